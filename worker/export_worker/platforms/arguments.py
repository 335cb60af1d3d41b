"""Checks what somebody gives to an operation, before anything is sent. Pure: texts in, typed arguments out.

Every problem is named at once, each with the parameter and what is allowed there.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.platforms.operations import Operation, Parameter

BODY = "body"
"""What the body as a whole is called in a problem."""

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _WrongValueError(Exception):
    """A value does not fit its parameter; the text says what is allowed."""


def find_operation(operations: Mapping[str, Operation], name: str) -> Operation:
    """The operation with this name or alias.

    Raises:
        InvalidRequestError: There is none.
    """
    for operation in operations.values():
        if name == operation.name or name in operation.aliases:
            return operation
    raise InvalidRequestError(
        [FieldProblem("operation", f"unknown operation {name!r}; known: {', '.join(sorted(operations))}")]
    )


def check_arguments(operation: Operation, texts: Sequence[str], body: bytes | None = None) -> dict[str, Any]:
    """The arguments with their types, by name, in the order of the table.

    Args:
        texts: Each as `name=value`. A list is given by repeating its name, or as a JSON list; an object as JSON.
        body: Of an operation that takes JSON: the parameters of the place `json`, as far as no text gives them. An
            operation that names no such parameter takes any object, and gets its fields as they are.

    Raises:
        InvalidRequestError: One or more of them are wrong, unknown, missing, or too many.
    """
    check = _Check(operation)
    check.texts(texts)
    if body is not None:
        check.body(body)
    check.needed()
    return check.result()


def body_problem(operation: Operation, *, given: bool) -> FieldProblem | None:
    """What is wrong with a body being there, or not being there."""
    if operation.body == "none" and given:
        return FieldProblem(BODY, f"{operation.name} takes none")
    if operation.body == "csv" and not given:
        return FieldProblem(BODY, f"is required: {operation.name} takes CSV")
    return None


class _Check:
    """Gathers arguments and problems."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._parameters: dict[str, Parameter] = {}
        for parameter in operation.parameters:
            # One that travels in two places needs to be given once; what stands first in the table speaks for both.
            self._parameters.setdefault(parameter.name, parameter)
        self._of_body = {parameter.name: parameter for parameter in operation.parameters if parameter.place == "json"}
        self._given: dict[str, Any] = {}
        self._problems: list[FieldProblem] = []
        self._spoilt: set[str] = set()

    def texts(self, texts: Sequence[str]) -> None:
        """Take `name=value` texts."""
        values: dict[str, list[str]] = {}
        for text in texts:
            name, mark, value = text.partition("=")
            if mark and name:
                values.setdefault(name, []).append(value)
            else:
                self._refuse("param", f"{text!r} must be like NAME=VALUE")
        for name, given in values.items():
            parameter = self._parameters.get(name)
            if parameter is None:
                self._refuse(name, self._unknown())
            else:
                self._take(parameter, partial(_from_texts, parameter, given))

    def body(self, body: bytes) -> None:
        """Take the fields of a JSON body."""
        try:
            fields = _json(body.decode("utf-8-sig"))
        except (_WrongValueError, UnicodeDecodeError):
            fields = None
        if not isinstance(fields, dict):
            self._refuse(BODY, "must be a JSON object in UTF-8")
            return
        for name, value in fields.items():
            self._field(name, value)

    def _field(self, name: str, value: Any) -> None:
        parameter = self._of_body.get(name)
        if parameter is not None and name not in self._given.keys() | self._spoilt:
            self._take(parameter, partial(_checked, parameter, value))
        elif parameter is not None and self._parameters[name].place == "json":
            self._refuse(name, "is given twice: as --param and in the body")
        elif parameter is not None:
            if self._given.get(name, value) != value:
                self._refuse(name, "differs between --param and the body")
        elif name in self._parameters:
            self._refuse(f"{BODY}.{name}", "does not go into the body; give it as --param")
        elif self._of_body:
            self._refuse(f"{BODY}.{name}", f"unknown field; allowed: {', '.join(self._of_body)}")
        else:
            self._given[name] = value

    def needed(self) -> None:
        """See that nothing is missing, and nothing excludes another."""
        seen = self._given.keys() | self._spoilt
        for parameter in self._parameters.values():
            if parameter.required and parameter.name not in seen:
                self._refuse(parameter.name, f"is required: {describe(parameter)}")
        for group in self._operation.one_of:
            if len(seen & set(group)) != 1:
                self._refuse(" or ".join(group), "exactly one of them is needed")
        for group in self._operation.any_of:
            if not seen & set(group):
                self._refuse(" or ".join(group), "at least one of them is needed")

    def result(self) -> dict[str, Any]:
        """All arguments, or all problems."""
        if self._problems:
            raise InvalidRequestError(self._problems)
        named = {name: self._given.pop(name) for name in self._parameters if name in self._given}
        return named | self._given

    def _take(self, parameter: Parameter, read: Callable[[], Any]) -> None:
        try:
            self._given[parameter.name] = read()
        except _WrongValueError as error:
            self._spoilt.add(parameter.name)
            self._refuse(parameter.name, str(error))

    def _unknown(self) -> str:
        return f"unknown parameter; allowed: {', '.join(self._parameters) or 'none'}"

    def _refuse(self, field: str, message: str) -> None:
        self._problems.append(FieldProblem(field, message))


def describe(parameter: Parameter) -> str:
    """What is allowed, in a few words: `text, at most 24 characters`."""
    words = {"list": "list of texts", "object": "JSON object", "boolean": "true or false"}
    said = [words.get(parameter.type, parameter.type)]
    if parameter.max_chars is not None:
        said.append(f"at most {parameter.max_chars} characters")
    if parameter.maximum is not None:
        said.append(f"at most {parameter.maximum}")
    if parameter.max_items is not None:
        said.append(f"at most {parameter.max_items} items")
    if parameter.pattern is not None:
        said.append(f"like {parameter.pattern}")
    if parameter.choices:
        said.append("one of " + ", ".join(parameter.choices))
    return ", ".join(said)


def _from_texts(parameter: Parameter, texts: Sequence[str]) -> Any:
    if parameter.type == "list":
        if len(texts) == 1 and texts[0].lstrip().startswith("["):
            return _checked(parameter, _json(texts[0]))
        return _checked(parameter, list(texts))
    if len(texts) > 1:
        raise _WrongValueError(f"is given {len(texts)} times, but is no list")
    return _checked(parameter, _read(parameter, texts[0]))


def _read(parameter: Parameter, text: str) -> Any:
    """The value that a text stands for; the text itself where it stands for none."""
    if parameter.type == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if parameter.type == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if parameter.type == "object":
        return _json(text)
    return text


def _checked(parameter: Parameter, value: Any) -> Any:
    """The value, if it is of the parameter's type and within its limits."""
    match parameter.type, value:
        case ("boolean", bool()) | ("object", dict()):
            pass
        case "integer", int() if not isinstance(value, bool):
            _check_number(parameter, value)
        case "text", str():
            _check_text(parameter, value)
        case "list", list() if all(isinstance(item, str) for item in value):
            _check_list(parameter, value)
        case _:
            _refuse_type(parameter)
    return value


def _refuse_type(parameter: Parameter) -> NoReturn:
    words = {
        "integer": "an integer",
        "text": "a text",
        "boolean": "true or false",
        "list": "a list of texts",
        "object": "a JSON object",
    }
    raise _WrongValueError(f"must be {words[parameter.type]}")


def _check_number(parameter: Parameter, number: int) -> None:
    if parameter.choices and str(number) not in parameter.choices:
        raise _WrongValueError(f"must be one of {', '.join(parameter.choices)}")
    if parameter.maximum is not None and number > parameter.maximum:
        raise _WrongValueError(f"must be at most {parameter.maximum}")


def _check_list(parameter: Parameter, texts: Sequence[str]) -> None:
    if parameter.required and not texts:
        raise _WrongValueError("must not be empty")
    if parameter.max_items is not None and len(texts) > parameter.max_items:
        raise _WrongValueError(f"must have at most {parameter.max_items} items, not {len(texts)}")
    for text in texts:
        _check_text(parameter, text)


def _check_text(parameter: Parameter, text: str) -> None:
    for complaint in _complaints(parameter, text):
        raise _WrongValueError(complaint)


def _complaints(parameter: Parameter, text: str) -> Iterator[str]:
    """What is wrong with a text."""
    if _SURROGATE.search(text):
        yield "must be text in UTF-8"
    if not text and (parameter.required or parameter.place == "path"):
        yield "must not be empty"
    if parameter.place == "path" and text in {".", ".."}:
        yield "must not be a relative path"
    if parameter.max_chars is not None and len(text) > parameter.max_chars:
        yield f"must have at most {parameter.max_chars} characters, not {len(text)}"
    if parameter.choices and text not in parameter.choices:
        yield f"must be one of {', '.join(parameter.choices)}"
    if parameter.pattern is not None and not re.fullmatch(parameter.pattern, text):
        yield f"must match {parameter.pattern}"


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _WrongValueError("must be JSON") from None


def _no_number(word: str) -> NoReturn:
    """Python reads NaN and Infinity, which are no JSON and which no platform would take."""
    raise ValueError(word)

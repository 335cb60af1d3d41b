"""Checks the arguments of an operation before anything is sent. Pure: texts in, typed arguments out.

All problems are reported together, each with its parameter and what is allowed there.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from export_worker.contract.names import did_you_mean, unknown_name
from export_worker.contract.wording import shown
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.platforms.operations import Operation, Parameter
from export_worker.texts.decoding import decode_text

BODY = "body"
"""Field name of a problem that concerns the whole body."""

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _WrongValueError(Exception):
    """A value does not fit its parameter. The message states what is allowed."""


def find_operation(operations: Mapping[str, Operation], name: str) -> Operation:
    """Returns the operation with this name or alias.

    Raises:
        InvalidRequestError: No operation has this name or alias.
    """
    for operation in operations.values():
        if name == operation.name or name in operation.aliases:
            return operation
    raise InvalidRequestError([FieldProblem("operation", unknown_name("operation", name, operations))])


def check_arguments(operation: Operation, texts: Sequence[str], body: bytes | None = None) -> dict[str, Any]:
    """Returns the arguments with their types, by name, in the order of the table.

    Args:
        operation: The operation that the arguments are for.
        texts: Each as `name=value`. A list is given by repeating its name, or as a JSON list. An object is given as
            JSON.
        body: JSON body of an operation that accepts one. It has those parameters with the location `json` that are
            not in `texts`. An operation without such parameters accepts any object and receives its fields unchanged.

    Raises:
        InvalidRequestError: One or more arguments are wrong, unknown, missing or given twice.
    """
    check = _Check(operation)
    check.add_texts(texts)
    if body is not None:
        check.add_body(body)
    check.require_parameters()
    return check.result()


def body_problem(operation: Operation, *, given: bool) -> FieldProblem | None:
    """Returns the problem if a body is given but not accepted, or required but not given; otherwise None."""
    if operation.body == "none" and given:
        return FieldProblem(BODY, f"is not accepted: {operation.name} takes none")
    if operation.body == "csv" and not given:
        return FieldProblem(BODY, f"is required: {operation.name} takes CSV")
    return None


class _Check:
    """Collects arguments and problems."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._parameters: dict[str, Parameter] = {}
        for parameter in operation.parameters:
            # A parameter that is sent in two locations is given once. Its first entry in the table applies.
            self._parameters.setdefault(parameter.name, parameter)
        self._body_fields = {
            parameter.name: parameter for parameter in operation.parameters if parameter.location == "json"
        }
        self._given: dict[str, Any] = {}
        self._problems: list[FieldProblem] = []
        self._invalid: set[str] = set()

    def add_texts(self, texts: Sequence[str]) -> None:
        """Adds arguments given as `name=value`."""
        values: dict[str, list[str]] = {}
        for text in texts:
            name, separator, value = text.partition("=")
            if separator and name:
                values.setdefault(name, []).append(value)
            else:
                self._add_problem("param", f"{text!r} must be like NAME=VALUE")
        for name, given in values.items():
            parameter = self._parameters.get(name)
            if parameter is None:
                self._add_problem(name, self._unknown(name))
            else:
                self._add(parameter, partial(_from_texts, parameter, given))

    def add_body(self, body: bytes) -> None:
        """Adds the fields of a JSON body."""
        try:
            fields = _json(decode_text(body))
        except _WrongValueError:
            fields = None
        except ValueError as error:
            self._add_problem(BODY, str(error))
            return
        if not isinstance(fields, dict):
            self._add_problem(BODY, "must be a JSON object")
            return
        for name, value in fields.items():
            self._add_field(name, value)

    def _add_field(self, name: str, value: Any) -> None:
        parameter = self._body_fields.get(name)
        if parameter is not None and name not in self._given.keys() | self._invalid:
            self._add(parameter, partial(_checked, parameter, value))
        elif parameter is not None and self._parameters[name].location == "json":
            self._add_problem(name, "is given twice: as --param and in the body")
        elif parameter is not None:
            if self._given.get(name, value) != value:
                self._add_problem(name, "differs between --param and the body")
        elif name in self._parameters:
            self._add_problem(f"{BODY}.{name}", "does not belong in the body; give it as --param")
        elif self._body_fields:
            allowed = ", ".join(self._body_fields)
            meant = did_you_mean(name, self._body_fields)
            self._add_problem(f"{BODY}.{name}", f"unknown field{meant}; allowed: {allowed}")
        else:
            self._given[name] = value

    def require_parameters(self) -> None:
        """Checks that all required parameters are given, and that each group has as many as the operation demands."""
        seen = self._given.keys() | self._invalid
        for parameter in self._parameters.values():
            if parameter.required and parameter.name not in seen:
                self._add_problem(parameter.name, f"is required: {describe(parameter)}")
        for group in self._operation.one_of:
            if len(seen & set(group)) != 1:
                self._add_problem(" or ".join(group), "exactly one of them is needed")
        for group in self._operation.any_of:
            if not seen & set(group):
                self._add_problem(" or ".join(group), "at least one of them is needed")

    def result(self) -> dict[str, Any]:
        """Returns all arguments, or raises an error with all problems."""
        if self._problems:
            raise InvalidRequestError(self._problems)
        named = {name: self._given.pop(name) for name in self._parameters if name in self._given}
        return named | self._given

    def _add(self, parameter: Parameter, read: Callable[[], Any]) -> None:
        try:
            self._given[parameter.name] = read()
        except _WrongValueError as error:
            self._invalid.add(parameter.name)
            self._add_problem(parameter.name, str(error))

    def _unknown(self, name: str) -> str:
        meant = did_you_mean(name, self._parameters)
        return f"unknown parameter{meant}; allowed: {', '.join(self._parameters) or 'none'}"

    def _add_problem(self, field: str, message: str) -> None:
        self._problems.append(FieldProblem(field, message))


def describe(parameter: Parameter) -> str:
    """Describes briefly what a parameter accepts: `text, at most 24 characters`."""
    type_names = {"list": "list of texts", "object": "JSON object", "boolean": "true or false"}
    limits = [type_names.get(parameter.type, parameter.type)]
    if parameter.max_chars is not None:
        limits.append(f"at most {parameter.max_chars} characters")
    if parameter.maximum is not None:
        limits.append(f"at most {parameter.maximum}")
    if parameter.max_items is not None:
        limits.append(f"at most {parameter.max_items} items")
    if parameter.pattern is not None:
        limits.append(parameter.form or f"like {parameter.pattern}")
    if parameter.choices:
        limits.append("one of " + ", ".join(parameter.choices))
    return ", ".join(limits)


def _from_texts(parameter: Parameter, texts: Sequence[str]) -> Any:
    if parameter.type == "list":
        if len(texts) == 1 and texts[0].lstrip().startswith("["):
            return _checked(parameter, _json(texts[0]))
        return _checked(parameter, list(texts))
    if len(texts) > 1:
        raise _WrongValueError(f"is given {len(texts)} times, but is no list")
    return _checked(parameter, _read(parameter, texts[0]))


def _read(parameter: Parameter, text: str) -> Any:
    """Converts a text to the parameter's type; returns the text unchanged when it cannot be converted."""
    if parameter.type == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if parameter.type == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if parameter.type == "object":
        return _json(text)
    return text


def _checked(parameter: Parameter, value: Any) -> Any:
    """Returns the value if it has the parameter's type and is within its limits."""
    if parameter.trimmed and isinstance(value, str):
        value = value.strip()
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
            _refuse_type(parameter, value)
    return value


def _refuse_type(parameter: Parameter, value: Any) -> NoReturn:
    type_names = {
        "integer": "a whole number",
        "text": "text in quotes",
        "boolean": "true or false",
        "list": "a list of texts",
        "object": "a JSON object",
    }
    raise _WrongValueError(f"must be {type_names[parameter.type]}, not {shown(value)}")


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
    for problem in _text_problems(parameter, text):
        raise _WrongValueError(problem)


def _text_problems(parameter: Parameter, text: str) -> Iterator[str]:
    """Yields what is wrong with a text."""
    if _SURROGATE.search(text):
        yield "must be text in UTF-8"
    if not text and (parameter.required or parameter.location == "path"):
        yield "must not be empty"
    if parameter.location == "path" and text in {".", ".."}:
        yield "must not be a relative path"
    if parameter.max_chars is not None and len(text) > parameter.max_chars:
        yield f"must have at most {parameter.max_chars} characters, not {len(text)}"
    if parameter.choices and text not in parameter.choices:
        yield f"must be one of {', '.join(parameter.choices)}{did_you_mean(text, parameter.choices)}"
    if parameter.pattern is not None and not re.fullmatch(parameter.pattern, text):
        yield f"must be {parameter.form}" if parameter.form else f"must match {parameter.pattern}"


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _WrongValueError("must be JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    """Refuses NaN and Infinity. Python's parser accepts them, but they are not JSON and no platform accepts them."""
    raise ValueError(name)

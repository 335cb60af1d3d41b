"""Templates of recipes: texts in which `{…}` holds a JMESPath expression. Pure.

A text that is one expression, such as `"{segment_id}"`, keeps the type of the value. If the expression finds nothing,
what the text is the value of is left out. In a longer text, such as `"users-{segment_id}.csv"`, the value becomes text.
Braces and quotes within an expression have the meaning that JMESPath gives them.

A producer may have no jmespath: it needs only the fields of a recipe. It does not check the expressions then.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from export_worker.contract.braces import EVALUATION_ERRORS, parts_of
from export_worker.contract.names import did_you_mean

EXPRESSION_MAX_CHARS = 1024
"""A template or an expression that is longer is no template but a program."""
_SCOPED = frozenset(
    {"filter_projection", "flatten", "index_expression", "pipe", "projection", "subexpression", "value_projection"}
)
"""Parts of an expression of which only the first child starts at the root; the others start at what that finds."""
_GROUPS = frozenset({"keep", "options"})
"""Names that stand for a group of values. A name in a group is checked, too."""


class TemplateError(ValueError):
    """A value that a template needs is missing, or is of a wrong type. The text names the expression, no value."""


class Expression:
    """A JMESPath expression.

    Args:
        source: Its text.

    Raises:
        ValueError: It is not valid JMESPath.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        jmespath = _jmespath()
        try:
            self._compiled = jmespath.compile(source)
        except jmespath.exceptions.JMESPathError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{source!r} is not a JMESPath expression ({reason})") from None
        except RecursionError:
            raise ValueError("the expression is nested too deeply") from None
        for problem in _wrong_parts(self._compiled.parsed, jmespath.functions.Functions.FUNCTION_TABLE):
            raise ValueError(f"{source!r} is not a JMESPath expression ({problem})")

    def value(self, document: Any) -> Any:
        """Returns what the expression finds in a document; None if it finds nothing.

        Raises:
            TemplateError: A function or a comparison of the expression got a value of a wrong type.
        """
        try:
            return self._compiled.search(document)
        except EVALUATION_ERRORS as error:
            # The text of the error may quote a value of the platform, which may be data of people.
            reason = type(error).__name__
            if isinstance(error, _jmespath().exceptions.JMESPathTypeError):
                reason = "a function in it got nothing or a wrong type; for what may be missing, write x && f(x)"
            raise TemplateError(f"{{{self.source}}} cannot be evaluated: {reason}") from None

    @property
    def names(self) -> frozenset[str]:
        """The names that the expression looks up in the document itself, and not in what it has found there.

        A name in one of the groups `keep` and `options` has the form `options.region`.
        """
        return frozenset(_root_names(self._compiled.parsed))


class Template:
    """A text with expressions in braces.

    Args:
        text: The text.

    Raises:
        ValueError: A brace is unmatched, or an expression is not valid.
    """

    def __init__(self, text: str) -> None:
        self._parts = tuple(parts_of(text, expression))

    @property
    def names(self) -> frozenset[str]:
        """The names that the expressions look up."""
        return frozenset(name for part in self._parts if isinstance(part, Expression) for name in part.names)

    def value(self, document: Mapping[str, Any]) -> Any:
        """Returns the text with its expressions replaced; the value itself if the text is one expression.

        Raises:
            TemplateError: A value is missing within a longer text, or is no text, number or boolean there.
        """
        match self._parts:
            case (Expression() as alone,):
                return alone.value(document)
            case parts:
                return "".join(part if isinstance(part, str) else _filled(part, document) for part in parts)

    def text(self, document: Mapping[str, Any], encoded: Callable[[str], str] = str) -> str:
        """Returns the filled text; an expression that finds nothing is an error also if it is the whole text.

        Args:
            encoded: Applied to the value of each expression, and not to the text around it.

        Raises:
            TemplateError: See `value`.
        """
        parts = (part if isinstance(part, str) else encoded(_filled(part, document)) for part in self._parts)
        return "".join(parts)


@cache
def expression(source: str) -> Expression:
    """Returns the compiled expression. Recipes are few and their texts are short, so all of them are kept."""
    return Expression(source)


@cache
def template(text: str) -> Template:
    """Returns the compiled template."""
    return Template(text)


def filled(tree: Any, document: Mapping[str, Any]) -> Any:
    """Returns a tree of TOML with all its templates filled. A member of a table that finds nothing is left out.

    Raises:
        TemplateError: See `Template.value`.
    """
    match tree:
        case str():
            return template(tree).value(document)
        case Mapping():
            members = ((name, filled(member, document)) for name, member in tree.items())
            return {name: value for name, value in members if value is not None}
        case list() | tuple():
            return [value for item in tree if (value := filled(item, document)) is not None]
        case _:
            return tree


def templates_in(tree: Any) -> Iterator[str]:
    """Yields every text of a tree of TOML."""
    match tree:
        case str():
            yield tree
        case Mapping():
            for member in tree.values():
                yield from templates_in(member)
        case list() | tuple():
            for item in tree:
                yield from templates_in(item)
        case _:
            pass


def as_text(value: Any) -> str | None:
    """Returns a text, number or boolean as text: `true`, `12`, `0.5`. None for anything else."""
    match value:
        case str():
            return value
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            return None


def checked_expression(source: str) -> str:
    """Returns the text if it is a valid expression, or if jmespath is missing. Raises ValueError."""
    _check_length(source)
    if has_jmespath():
        expression(source)
    return source


def checked_template(text: str) -> str:
    """Returns the text if it is a valid template. Raises ValueError."""
    _check_length(text)
    if has_jmespath():
        template(text)
    else:
        list(parts_of(text, str))
    return text


def unknown_names(names: frozenset[str], known: frozenset[str]) -> str | None:
    """Returns what is wrong with the names of an expression; None if all are known."""
    for name in sorted(names - known):
        return f"{{{name}}} is not known here{did_you_mean(name, known)}; known are {', '.join(sorted(known))}"
    return None


@cache
def has_jmespath() -> bool:
    """Returns whether expressions can be checked and evaluated."""
    try:
        _jmespath()
    except ImportError:
        return False
    return True


def _check_length(text: str) -> None:
    if len(text) > EXPRESSION_MAX_CHARS:
        raise ValueError(f"must have at most {EXPRESSION_MAX_CHARS} characters, not {len(text)}")


@cache
def _jmespath() -> Any:
    return import_module("jmespath")


def _filled(part: Expression, document: Mapping[str, Any]) -> str:
    value = part.value(document)
    text = as_text(value)
    if text is None:
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise TemplateError(f"{{{part.source}}} finds {found}, but text is needed here")
    return text


def _wrong_parts(node: Mapping[str, Any], functions: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is valid syntax, but could never be evaluated."""
    children = [child for child in node["children"] if isinstance(child, Mapping)]
    match node["type"]:
        case "function_expression":
            yield from _wrong_call(node["value"], len(children), functions)
        case "slice" if node["children"][2:] == [0]:
            yield "the step of a slice cannot be 0"
        case _:
            pass
    for child in children:
        yield from _wrong_parts(child, functions)


def _wrong_call(name: str, count: int, functions: Mapping[str, Any]) -> Iterator[str]:
    if name not in functions:
        yield f"there is no function {name}{did_you_mean(name, functions)}"
        return
    signature = functions[name]["signature"]
    is_variadic = bool(signature) and signature[-1].get("variadic", False)
    if count < len(signature) or (count > len(signature) and not is_variadic):
        yield f"{name} takes {len(signature)} arguments{' or more' if is_variadic else ''}, not {count}"


def _root_names(node: Mapping[str, Any]) -> Iterator[str]:
    """Yields the names that a part of an expression looks up at the root."""
    children = node["children"]
    match node["type"]:
        case "field":
            yield node["value"]
            return
        case "expref":
            return
        case "subexpression" if children[0]["type"] == "field" and children[0]["value"] in _GROUPS:
            yield f"{children[0]['value']}.{children[1].get('value', '')}"
            return
        case kind if kind in _SCOPED:
            children = children[:1]
        case _:
            pass
    for child in children:
        if isinstance(child, Mapping):
            yield from _root_names(child)

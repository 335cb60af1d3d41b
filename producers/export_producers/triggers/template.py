"""Turns a CloudEvent into an export request: a template whose strings hold JMESPath between braces. Pure.

`"{data.segment}"` alone keeps the type of what it finds, and leaves its field out where it finds nothing;
`"seg-{data.segment}"` becomes text. Braces and quotes within an expression are JMESPath's own.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from export_worker.errors import ConfigError

QUOTES = "'\"`"


class TemplateError(Exception):
    """The event does not have what the template needs; says which expression."""


@dataclass(frozen=True, slots=True)
class _Expression:
    source: str
    compiled: Any

    def value(self, event: Mapping[str, Any]) -> Any:
        try:
            return self.compiled.search(event)
        except JMESPathError as error:
            raise TemplateError(f"{{{self.source}}} cannot be evaluated: {error}") from None

    def text(self, event: Mapping[str, Any]) -> str:
        value = self.value(event)
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            return json.dumps(value)
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise TemplateError(f"{{{self.source}}} finds {found}, where text is needed")


@dataclass(frozen=True, slots=True)
class _Text:
    parts: tuple[str | _Expression, ...]


_Node = Any
"""A template with every string that has an expression compiled."""


class Template:
    """A compiled template.

    Args:
        place: Where it stands in the configuration, for errors.
        tree: As the configuration has it.

    Raises:
        ConfigError: A string of it is wrong; it is named.
    """

    def __init__(self, place: str, tree: Mapping[str, Any]) -> None:
        self._tree = _compiled(place, dict(tree))

    def render(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The request that the template makes of an event; it has not been checked yet.

        Raises:
            TemplateError: The event does not have what the template needs.
        """
        rendered: dict[str, Any] = _rendered(self._tree, event)
        return rendered


def _compiled(place: str, node: Any) -> _Node:
    if isinstance(node, str):
        try:
            parts = tuple(_parts(node))
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from None
        return node if all(isinstance(part, str) for part in parts) else _Text(parts)
    if isinstance(node, Mapping):
        return {name: _compiled(f"{place}.{name}", item) for name, item in node.items()}
    if isinstance(node, list | tuple):
        return [_compiled(f"{place}.{index}", item) for index, item in enumerate(node)]
    return node


def _parts(text: str) -> Iterator[str | _Expression]:
    """Texts and expressions in turn.

    Raises:
        ValueError: A brace has no partner, or an expression is no JMESPath.
    """
    position = 0
    while position < len(text):
        begin = text.find("{", position)
        plain = text[position:] if begin < 0 else text[position:begin]
        if "}" in plain:
            raise ValueError("a closing brace has no opening one")
        if plain:
            yield plain
        if begin < 0:
            return
        position = _end(text, begin)
        yield _expression(text[begin + 1 : position - 1])


def _end(text: str, begin: int) -> int:
    """Where the expression that begins with this brace is over."""
    depth, quote, position = 0, "", begin
    while position < len(text):
        character = text[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in QUOTES:
            quote = character
        else:
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                return position + 1
        position += 1
    raise ValueError("an opening brace has no closing one")


def _expression(source: str) -> _Expression:
    try:
        return _Expression(source, jmespath.compile(source))
    except JMESPathError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{{{source}}} is no JMESPath expression ({reason})") from None


def _rendered(node: _Node, event: Mapping[str, Any]) -> Any:
    match node:
        case _Text(parts=(_Expression() as alone,)):
            return alone.value(event)
        case _Text(parts=parts):
            return "".join(part if isinstance(part, str) else part.text(event) for part in parts)
        case dict():
            items = ((name, item, _rendered(item, event)) for name, item in node.items())
            # What finds nothing leaves its field out; a null that was written down stays.
            return {name: value for name, item, value in items if value is not None or item is None}
        case list():
            return [_rendered(item, event) for item in node]
        case _:
            return node

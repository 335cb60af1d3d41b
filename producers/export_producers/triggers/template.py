"""Turns a CloudEvent into an export request with a template: its strings hold JMESPath expressions in braces. Pure.

A string that is one expression, such as `"{data.segment}"`, keeps the type of the value that the expression finds. If
the expression finds nothing, the field is left out. In a longer string, such as `"seg-{data.segment}"`, the value is
converted to text. Inside an expression, braces and quotes have the meaning that JMESPath gives them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError

from export_worker.contract.braces import EVALUATION_ERRORS, parts_of
from export_worker.errors import ConfigError


class TemplateError(Exception):
    """The event lacks a value that the template needs. The text names the expression."""


def _reason(error: Exception) -> str:
    """Returns what is wrong, without the value of the event: an event may have data of people."""
    if isinstance(error, JMESPathTypeError):
        expected = ", ".join(error.expected_types)
        return f"{error.function_name}() expects {expected}, and the value is of the type {error.actual_type}"
    return str(error) if isinstance(error, JMESPathError) else type(error).__name__


@dataclass(frozen=True, slots=True)
class _Expression:
    source: str
    compiled: Any

    def value(self, event: Mapping[str, Any]) -> Any:
        try:
            return self.compiled.search(event)
        except EVALUATION_ERRORS as error:
            raise TemplateError(f"{{{self.source}}} cannot be evaluated: {_reason(error)}") from None

    def text(self, event: Mapping[str, Any]) -> str:
        value = self.value(event)
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            return json.dumps(value)
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise TemplateError(f"{{{self.source}}} finds {found}, but text is needed here")


@dataclass(frozen=True, slots=True)
class _Text:
    parts: tuple[str | _Expression, ...]


_Node = Any
"""A part of a template, in which every string with an expression is compiled."""


class Template:
    """A compiled template.

    Args:
        setting: The template's name in the configuration, for error messages, e.g. `triggers.ready.request`.
        tree: The template as the configuration has it.

    Raises:
        ConfigError: A string of the template is invalid; the message names it.
    """

    def __init__(self, setting: str, tree: Mapping[str, Any]) -> None:
        self._tree = _compile(setting, dict(tree))

    @property
    def connection(self) -> str | None:
        """The connection that every request has; None if an expression finds it in the event."""
        found = self._tree.get("connection")
        return found if isinstance(found, str) else None

    def render(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the request that the template makes from an event. The request is not validated yet.

        Raises:
            TemplateError: The event lacks a value that the template needs.
        """
        rendered: dict[str, Any] = _render(self._tree, event)
        return rendered


def _compile(setting: str, node: Any) -> _Node:
    if isinstance(node, str):
        try:
            parts = tuple(parts_of(node, _expression))
        except ValueError as error:
            raise ConfigError(f"{setting}: {error}") from None
        return node if all(isinstance(part, str) for part in parts) else _Text(parts)
    if isinstance(node, Mapping):
        return {name: _compile(f"{setting}.{name}", item) for name, item in node.items()}
    if isinstance(node, list | tuple):
        return [_compile(f"{setting}.{index}", item) for index, item in enumerate(node)]
    return node


def _expression(source: str) -> _Expression:
    try:
        return _Expression(source, jmespath.compile(source))
    except JMESPathError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{{{source}}} is not a JMESPath expression ({reason})") from None


def _render(node: _Node, event: Mapping[str, Any]) -> Any:
    match node:
        case _Text(parts=(_Expression() as alone,)):
            return alone.value(event)
        case _Text(parts=parts):
            return "".join(part if isinstance(part, str) else part.text(event) for part in parts)
        case dict():
            items = ((name, item, _render(item, event)) for name, item in node.items())
            # A field whose expression finds nothing is left out. A null that the template itself contains stays.
            return {name: value for name, item, value in items if value is not None or item is None}
        case list():
            return [_render(item, event) for item in node]
        case _:
            return node

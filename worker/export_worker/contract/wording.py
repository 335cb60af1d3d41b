"""Says in plain words what is wrong with a value. Pure."""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from ipaddress import ip_network
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from export_worker.contract.names import did_you_mean

SHOWN_MAX_CHARS = 12
"""A longer text is not shown: it may be a secret that was written to the wrong place."""

_WHOLE_NUMBER = "must be a whole number"
_TRUE_OR_FALSE = "must be true or false"
_LIST = "must be a list in square brackets"
_VALUES = {
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": _WHOLE_NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": _TRUE_OR_FALSE,
    "bool_parsing": _TRUE_OR_FALSE,
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "ip_any_network": "must be a network, such as 10.1.0.0/16",
    "literal_error": "must be {expected}",
}
"""What is allowed, by pydantic's type of the error. The wrong value is added: no such setting holds a secret."""
_TYPES = {"string_type": "must be text in quotes", "list_type": _LIST, "tuple_type": _LIST}
"""The same for settings that may hold secrets, so that only the type of the value is added."""
_LENGTHS = {
    "string_too_short": ("at least", "min_length", "character"),
    "string_too_long": ("at most", "max_length", "character"),
    "too_short": ("at least", "min_length", "item"),
    "too_long": ("at most", "max_length", "item"),
}
_TABLES = {"model_type", "model_attributes_type", "dict_type"}


def plain_message(detail: ErrorDetails, *, table: str) -> str:
    """Returns what one of pydantic's errors says, as a sentence without its subject: `must be true or false, not 1`.

    Args:
        table: What the file format calls a group of named values, e.g. `a JSON object`.
    """
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind in _VALUES:
        allowed = {name: _number(limit) for name, limit in context.items()}
        return _VALUES[kind].format_map(allowed) + f", not {shown(value)}" + _hint(kind, context, value)
    if kind in _LENGTHS:
        bound, key, unit = _LENGTHS[kind]
        count = context[key]
        return f"must have {bound} {count} {unit}{'' if count == 1 else 's'}, not {len(value)}"
    if kind in _TABLES:
        return f"must be {table}, not {type_of(value)}"
    if kind in _TYPES:
        return f"{_TYPES[kind]}, not {type_of(value)}"
    other = {
        "missing": "is required",
        "value_error": str(context.get("error")),
        "string_pattern_mismatch": f"must match {context.get('pattern')}",
    }
    return other.get(kind) or detail["msg"].replace("Input should", "must")


def _number(limit: Any) -> Any:
    """Returns a limit as people write it: pydantic says 60.0 for a limit of 60 of a number that may have decimals."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _hint(kind: str, context: dict[str, Any], value: Any) -> str:
    if not isinstance(value, str):
        return ""
    if value.startswith(("env:", "file:")):
        return "; env: and file: are read only where the setting is a secret"
    if kind == "literal_error":
        return did_you_mean(value, re.findall(r"'([^']*)'", context["expected"]))
    if kind == "ip_any_network":
        with suppress(ValueError):  # it is a network, but with the address of a host in it
            return f"; did you mean {ip_network(value, strict=False)}?"
    return ""


def shown(value: Any) -> str:
    """Returns how a message names a wrong value. A long text is not shown, because it may be a secret."""
    match value:
        case None | bool():
            text = json.dumps(value)
        case int() | float():
            is_large = abs(value) >= 10**SHOWN_MAX_CHARS
            text = "this large number" if is_large else str(value)
        case str():
            is_short = len(value) <= SHOWN_MAX_CHARS
            text = json.dumps(value, ensure_ascii=False) if is_short else f"a text of {len(value)} characters"
        case _:
            text = type_of(value)
    return text


def type_of(value: Any) -> str:
    """Returns the type of a value in plain words, with an article."""
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        tuple: "a list",
        dict: "a group of named values",
        type(None): "null",
        datetime: "a date and time",
        date: "a date",
        time: "a time",
    }
    return names.get(type(value), "a value of another type")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Constrains a text to a regular expression, and says in words what it allows.

    Args:
        regex: With `^` and `$`, the whole text must match.
        rule: The message for a text that does not match, e.g. `must be 8 letters or digits, such as WlGk4Daj`.
    """

    regex: str
    rule: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Returns the schema that checks the text."""
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Returns the JSON Schema of the text, with the regular expression."""
        return handler(schema) | {"pattern": self.regex}

    def _checked(self, text: str) -> str:
        # `$` of Python matches before a line end, too.
        matches = re.fullmatch if self.regex.startswith("^") else re.search
        if not matches(self.regex, text):
            raise PydanticCustomError("pattern", "{rule}", {"rule": self.rule})
        return text


WEB_ADDRESS = Pattern(
    r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
    "must be http://HOST or https://HOST, optionally with a port and a path, and nothing else",
)
"""The address of a service. It has no password and no query string, which could hold a secret."""

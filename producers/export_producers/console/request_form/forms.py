"""Forms for requests: fields from the JSON Schema of a kind, and requests from the texts of these fields. Pure.

A text that is no value of its field's type stays a text, so that the check of the request says what is allowed.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Literal

from pydantic import BaseModel

from export_worker.contract.printable import clean, dumps
from export_worker.contract.request import ExportRequest, kind_model

Json = Mapping[str, Any]
Scalar = Literal["text", "integer", "number", "choice"]
Shape = Literal["text", "integer", "number", "choice", "list", "pairs", "json"]
"""What a field takes: one value; several, one a line; named values as `name=value`, one a line; or any JSON."""

DEPTH_MAX = 4
"""Objects within objects, each with its own fields. Deeper ones are one field with JSON."""
OWN_STEPS = ("connection", "export")
"""The fields of a request that have been chosen before its form is shown, or that the kind has instead."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_INTEGER = re.compile(r"-?\d{1,20}", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,20})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form.

    Args:
        path: Where its value is in the request.
        about: The description of the schema, in English.
        default: The value that counts if the field is empty; None if there is no value then.
        choices: The values to choose from, by their texts.
        item: What each line takes, if there can be several.
    """

    path: tuple[str, ...]
    shape: Shape
    about: str = ""
    is_required: bool = False
    default: Any = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    item: Scalar = "text"

    @property
    def name(self) -> str:
        """Its name in the form, which is how messages name it, e.g. `export.tag_id`."""
        return ".".join(self.path)


def fields_of(kind: str) -> tuple[Field, ...]:
    """Returns the fields of a request for a kind: those of the kind, then those of every request."""
    export = _schema_of(_model_of(kind))
    ours = _object_fields(export, export.get("$defs", {}), ("export",), leaves_out=("kind",))
    return (*ours, *_fields_of_every_request())


def about_kind(kind: str) -> str:
    """Returns the description of a kind."""
    return str(_schema_of(_model_of(kind)).get("description", ""))


def _model_of(kind: str) -> type[BaseModel]:
    """Returns the model of a kind. Raises KeyError for a kind that is not known."""
    model = kind_model(kind)
    if model is None:
        raise KeyError(kind)
    return model


@lru_cache(maxsize=256)
def _schema_of(model: type[BaseModel]) -> Json:
    return model.model_json_schema()


@cache
def _fields_of_every_request() -> tuple[Field, ...]:
    request = ExportRequest.model_json_schema()
    return tuple(_object_fields(request, request.get("$defs", {}), (), leaves_out=OWN_STEPS))


def _object_fields(
    schema: Json, definitions: Json, path: tuple[str, ...], leaves_out: Sequence[str] = ()
) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, each in schema.get("properties", {}).items():
        if name not in leaves_out:
            yield from _fields(each, definitions, (*path, name), is_required=name in required)


def _fields(schema: Json, definitions: Json, path: tuple[str, ...], *, is_required: bool) -> Iterator[Field]:
    found = _resolved(schema, definitions)
    if found.get("properties") and len(path) < DEPTH_MAX:
        yield from _object_fields(found, definitions, path)
        return
    shape, item, choices = _shape(found, definitions)
    about, default = str(schema.get("description", found.get("description", ""))), schema.get("default")
    yield Field(path, shape, about, is_required, default, choices, item)


def _resolved(schema: Json, definitions: Json) -> Json:
    """Returns a schema without references, and without null: an empty field means that the value is left out."""
    for _ in range(DEPTH_MAX):
        others = [each for each in schema.get("anyOf", schema.get("oneOf", ())) if each.get("type") != "null"]
        if "$ref" in schema:
            schema = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
        elif len(others) == 1:
            schema = others[0]
    return schema


def _shape(schema: Json, definitions: Json) -> tuple[Shape, Scalar, Mapping[str, Any]]:
    scalar, choices = _scalar(schema)
    if scalar is not None:
        return scalar, "text", choices
    inner = schema.get("items") if schema.get("type") == "array" else schema.get("additionalProperties")
    scalar, choices = _scalar(_resolved(inner, definitions)) if isinstance(inner, Mapping) else (None, {})
    if scalar is None or schema.get("properties"):
        return "json", "text", {}
    return ("list" if schema.get("type") == "array" else "pairs"), scalar, choices


def _scalar(schema: Json) -> tuple[Scalar | None, Mapping[str, Any]]:
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return "choice", {each if isinstance(each, str) else dumps(each): each for each in values}
    match schema.get("type"):
        case "boolean":
            return "choice", {"true": True, "false": False}
        case "string":
            return "text", {}
        case "integer":
            return "integer", {}
        case "number":
            return "number", {}
        case _:
            return None, {}


def request_of(connection: str, kind: str, fields: Sequence[Field], texts: Mapping[str, str]) -> dict[str, Any]:
    """Returns the request that the texts of a form state. A field without a text is left out."""
    request: dict[str, Any] = {"connection": connection, "export": {"kind": kind}}
    for each in fields:
        text = texts.get(each.name, "").strip()
        if text:
            section = request
            for name in each.path[:-1]:
                section = section.setdefault(name, {})
            section[each.path[-1]] = _value(each, text)
    return request


def texts_of(fields: Sequence[Field], request: Json) -> dict[str, str] | None:
    """Returns the texts with which a form states exactly this request; None if the form cannot state it.

    Metadata without entries, which every stored request has, is the same as none.
    """
    texts = {each.name: text for each in fields if (text := _text(each, _at(request, each.path)))}
    connection, kind = request.get("connection"), _at(request, ("export", "kind"))
    made = request_of(str(connection), str(kind), fields, {name: cleaned(text) for name, text in texts.items()})
    return texts if made == {name: each for name, each in request.items() if each != {}} else None


def cleaned(text: str) -> str:
    """Returns a text of a form as the page shows it: without characters that turn text around."""
    return "\n".join(clean(line) for line in _LINE_END.split(text))


def _at(request: Any, path: Sequence[str]) -> Any:
    for name in path:
        request = request.get(name) if isinstance(request, Mapping) else None
    return request


def _value(of: Field, text: str) -> Any:
    lines = [line.strip() for line in _LINE_END.split(text) if line.strip()]
    match of.shape:
        case "list":
            return [_scalar_value(of.item, of.choices, line) for line in lines]
        case "pairs" if all("=" in line for line in lines):
            pairs = [line.partition("=") for line in lines]
            return {name.strip(): _scalar_value(of.item, of.choices, value.strip()) for name, _, value in pairs}
        case "json":
            return _parsed(text)
        case "pairs":
            return text
        case scalar:
            return _scalar_value(scalar, of.choices, text)


def _scalar_value(shape: Scalar, choices: Json, text: str) -> Any:
    if shape == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if shape == "number" and _NUMBER.fullmatch(text):
        return float(text)
    return choices.get(text, text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _text(of: Field, value: Any) -> str:
    """Returns the text of a value. For a value that its field cannot have, the text means something else."""
    match of.shape:
        case _ if value is None:
            return ""
        case "json":
            return dumps(value, indent=2)
        case "list" if isinstance(value, list):
            return "\n".join(map(_scalar_text, value))
        case "pairs" if isinstance(value, Mapping):
            return "\n".join(f"{name}={_scalar_text(each)}" for name, each in value.items())
        case _:
            return _scalar_text(value)


def _scalar_text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else dumps(value)

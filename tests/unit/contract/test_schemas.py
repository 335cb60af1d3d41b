"""The JSON Schemas describe every setting and every field, with the unit, the default and the limits that apply."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from export_worker.contract.event import Event
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Manifest, Status
from export_worker.schemas.settings import settings_schema

Json = dict[str, Any]

UNITS = {
    "_s": "second",
    "_kib": "KiB",
    "_mib": "MiB",
    "mib_per_second": "MiB a second",
    "_kib_per_s": "KiB a second",
    "_per_second": "second",
    "_bytes": "bytes",
    "percent": "percent",
}
"""The unit that the name of a field ends with, and the text of the description that states it."""
LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
INTEGER_MAX = 2**63 - 1
"""The limit of an id is that of a 64-bit integer, which no user meets."""
WRITTEN = {
    "request": ExportRequest.model_json_schema(mode="validation"),
    "config": settings_schema(),
}
READ = {
    "status": Status.model_json_schema(mode="serialization"),
    "event": Event.model_json_schema(mode="serialization"),
    "accepted": Accepted.model_json_schema(mode="serialization"),
    "manifest": Manifest.model_json_schema(mode="serialization"),
}


def fields(schemas: dict[str, Json]) -> Iterator[tuple[str, Json, bool]]:
    """Yields each field with its name, its schema, and whether it is required."""
    for document, schema in schemas.items():
        for model, found in {document: schema, **schema.get("$defs", {})}.items():
            for name, field in found.get("properties", {}).items():
                yield f"{model}.{name}", field, name in found.get("required", ())


def limits(schema: Json) -> Iterator[float]:
    """Yields the limits of a value itself. The limits of the items of a list are not its own."""
    yield from (schema[name] for name in LIMITS if schema.get(name, INTEGER_MAX) < INTEGER_MAX)
    for part in schema.get("anyOf", ()):
        yield from limits(part)


def has_number(text: str, number: float) -> bool:
    """Returns whether a text has a number, with or without commas between thousands."""
    value = int(number) if number == int(number) else number
    return any(re.search(rf"(?<![\d,.]){form}(?!\d|[,.]\d)", text) for form in (f"{value}", f"{value:,}"))


def has_default(text: str, default: Any) -> bool:
    match default:
        case bool():
            return f"Default: {json.dumps(default)}" in text
        case int() | float():
            return has_number(text, default)
        case str() if default:
            return f"`{default}`" in text
        case _:
            return "Default" in text or default is None


def problems(name: str, field: Json, *, required: bool) -> Iterator[str]:
    """Yields what the description of a setting or of a field of the request does not state."""
    text = field.get("description", "")
    if not text:
        yield f"{name}: no description"
        return
    if "$ref" in field:
        return
    if required and "Required" not in text:
        yield f"{name}: is required"
    if not required and "Default" not in text:
        yield f"{name}: the default"
    if not has_default(text, field.get("default")):
        yield f"{name}: the default {field['default']}"
    yield from (f"{name}: the limit {limit}" for limit in limits(field) if not has_number(text, limit))


def unit_problems(name: str, field: Json) -> Iterator[str]:
    for end, unit in UNITS.items():
        if name.endswith(end) and unit.lower() not in field.get("description", "").lower():
            yield f"{name}: the unit {unit}"
            return


def test_every_setting_and_field_of_a_request_states_default_limits_and_unit() -> None:
    found = [
        problem
        for name, field, required in fields(WRITTEN)
        for problem in (*problems(name, field, required=required), *unit_problems(name, field))
    ]
    assert found == []


def test_every_field_of_the_other_documents_is_described() -> None:
    assert [name for name, field, _ in fields(READ) if not field.get("description")] == []
    assert [problem for name, field, _ in fields(READ) for problem in unit_problems(name, field)] == []


@pytest.mark.parametrize(
    ("field", "missing"),
    [
        ({"default": 8, "description": "Default 80."}, "the default 8"),
        ({"default": 259_200.0, "description": "Default 259,200 (3 days)."}, None),
        ({"default": 1, "maximum": 64, "description": "Default 1, at most 6,464."}, "the limit 64"),
        ({"default": True, "description": "Default: false."}, "the default True"),
        ({"default": 1}, "no description"),
    ],
)
def test_missing_text_is_found(field: Json, missing: str | None) -> None:
    assert list(problems("x", field, required=False)) == ([f"x: {missing}"] if missing else [])

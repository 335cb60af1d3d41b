"""The OpenAPI document: complete, and clean by the rules of Spectral and redocly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export_producers import reasons
from export_producers.gateway.documents import openapi
from export_worker.contract.request import kind_models
from support.document_linters import redocly_findings, spectral_findings

DOCUMENT = openapi.document()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def test_spectral_finds_nothing(tmp_path: Path) -> None:
    assert spectral_findings(DOCUMENT, "spectral:oas", tmp_path) == []


def test_redocly_finds_nothing(tmp_path: Path) -> None:
    assert redocly_findings(DOCUMENT, tmp_path) == []


@pytest.mark.parametrize("model", [model.__name__ for model in kind_models().values()])
def test_schema_of_a_kind_requires_the_kind(model: str) -> None:
    assert SCHEMAS[model]["required"][0] == "kind"
    assert "const" in SCHEMAS[model]["properties"]["kind"]


def test_every_field_is_described() -> None:
    # The fields of a reason are the parts of its sentence, which is its description.
    fields = {
        f"{model}.{name}": field
        for model, schema in SCHEMAS.items()
        if not hasattr(reasons, model)
        for name, field in schema.get("properties", {}).items()
    }
    assert "RetryOrder.from" in fields
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_every_time_has_the_format_date_time() -> None:
    times = {
        f"{model}.{name}": field
        for model, schema in SCHEMAS.items()
        for name, field in schema.get("properties", {}).items()
        if name.endswith("_at")
    }
    assert "Status.created_at" in times
    for name, field in times.items():
        assert "'format': 'date-time'" in str(field), name


def test_event_stream_has_the_schema_of_its_events() -> None:
    answer = DOCUMENT["paths"]["/v1/exports/{export_id}/events"]["get"]["responses"]["200"]
    schema = answer["content"]["text/event-stream"]["schema"]
    assert schema == {"type": "array", "items": {"$ref": "#/components/schemas/StatusEvent"}}
    assert SCHEMAS["StatusEvent"]["properties"]["data"]["contentSchema"] == {"$ref": "#/components/schemas/Status"}


def test_every_operation_and_parameter_is_described_and_can_be_refused() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for name, operation in operations():
        assert operation["description"], name
        assert set(operation["tags"]) < tags, name
        assert any(status.startswith("4") for status in operation["responses"]), name
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), f"{name}: {parameter['name']}"

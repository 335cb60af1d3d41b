"""The documents that the project writes: JSON loses nothing, and each schema is consistent."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from export_worker.config import Config
from export_worker.contract.event import Event
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Manifest, Phase, Status

SAMPLE_STATUS: dict[str, Any] = {
    "export_id": "0d4c8d2e",
    "phase": "running",
    "platform_stage": "DATA_READY",
    "operation_id": "VGFnVXNlckV4cG9ydA==",
    "connection": "gio",
    "kind": "growingio.segment_users",
    "progress": {"percent": None, "bytes_done": 0, "bytes_total": None, "files_done": 0, "files_total": None},
    "counters": {"polls": 3, "submits": 1, "retries": 0},
    "created_at": "2026-11-22T03:00:00.000Z",
    "updated_at": "2026-11-22T03:00:06.250Z",
    "due_at": "2026-11-22T03:00:09.999Z",
    "finished_at": None,
    "error": {"code": "platform_error", "message": "…", "step": "poll", "retryable": False},
    "objects": [
        {
            "uri": "s3://b/k/下载用户列表.csv",
            "bucket": "b",
            "key": "k/下载用户列表.csv",
            "bytes": 123,
            "etag": "0cc1",
            "checksum": "CRC64NVME:AAAAAAAAAAA=",
            "file_name": "下载用户列表.csv",
        }
    ],
    "manifest": "s3://b/k/_manifest.json",
    "metadata": {"order": "42"},
    "request": {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "k"}},
    "requested_by": "library",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "eta": {"p50": 4.0, "p95": 12.5, "samples": 20},
}


def test_documented_status_survives_a_round_trip_through_json() -> None:
    status = Status.model_validate_json(json.dumps(SAMPLE_STATUS))
    assert status.phase is Phase.RUNNING
    assert json.loads(status.model_dump_json()) == SAMPLE_STATUS
    assert list(status.model_dump()) == list(SAMPLE_STATUS)


def test_status_of_a_newer_worker_is_read_without_its_unknown_fields() -> None:
    newer = SAMPLE_STATUS | {"colour": "blue", "progress": {"speed": 1}, "counters": {"naps": 2}}
    newer["error"] = {"code": "code_of_tomorrow", "message": "m", "step": "nap", "retryable": True, "more": 1}
    status = Status.model_validate_json(json.dumps(newer))
    assert status.error is not None
    assert status.error.code == "code_of_tomorrow"


def test_status_of_an_older_worker_has_neither_request_nor_eta() -> None:
    newer = {"request", "requested_by", "trace_id", "eta"}
    older = {name: value for name, value in SAMPLE_STATUS.items() if name not in newer}
    assert json.loads(Status.model_validate_json(json.dumps(older)).model_dump_json()) == older


def test_timestamps_are_written_in_utc_with_milliseconds() -> None:
    status = Status.model_validate(SAMPLE_STATUS | {"created_at": "2026-11-22T11:00:00.1239+08:00"})
    assert status.model_dump()["created_at"] == "2026-11-22T03:00:00.123Z"


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001
@example(datetime(2038, 2, 1, 0, 0, 0, 726001, tzinfo=UTC))
def test_timestamp_has_the_same_milliseconds_in_documents_and_scores(moment: datetime) -> None:
    text = isoformat(moment)
    status = Status.model_validate(SAMPLE_STATUS | {"created_at": text})
    assert isoformat(status.created_at) == text
    assert epoch_ms(status.created_at) == epoch_ms(moment)


def test_documented_event_survives_a_round_trip_through_json() -> None:
    event = {
        "specversion": "1.0",
        "id": "0d4c8d2e.1",
        "type": "export.failed",
        "source": "/export-worker/exports",
        "subject": "0d4c8d2e",
        "time": "2026-11-22T03:00:10.000Z",
        "datacontenttype": "application/json",
        "data": SAMPLE_STATUS,
    }
    assert json.loads(Event.model_validate_json(json.dumps(event)).model_dump_json()) == event


SCHEMAS = {
    "request": ExportRequest.model_json_schema(mode="validation"),
    "status": Status.model_json_schema(mode="serialization"),
    "event": Event.model_json_schema(mode="serialization"),
    "accepted": Accepted.model_json_schema(mode="serialization"),
    "manifest": Manifest.model_json_schema(mode="serialization"),
    "config": Config.model_json_schema(mode="validation"),
}


def nodes(schema: Any) -> list[dict[str, Any]]:
    """Returns every JSON object in a schema."""
    found = [schema] if isinstance(schema, dict) else []
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    return found + [node for item in inner for node in nodes(item)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_consistent(name: str) -> None:
    schema = SCHEMAS[name]
    assert json.loads(json.dumps(schema)) == schema
    assert schema["type"] == "object"
    references = {node["$ref"] for node in nodes(schema) if isinstance(node.get("$ref"), str)}
    assert references <= {f"#/$defs/{definition}" for definition in schema.get("$defs", {})}
    for node in nodes(schema):
        if isinstance(node.get("required"), list):
            assert set(node["required"]) <= set(node["properties"])


def test_schema_of_a_status_has_every_documented_field() -> None:
    schema = SCHEMAS["status"]
    assert set(schema["properties"]) == set(SAMPLE_STATUS)
    assert set(schema["$defs"]["StoredObject"]["properties"]) == {*SAMPLE_STATUS["objects"][0], "rows"}
    assert schema["$defs"]["Phase"]["enum"] == [phase.value for phase in Phase]

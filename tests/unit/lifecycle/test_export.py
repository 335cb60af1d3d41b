"""The status, the completion event and the record of an export."""

import json
from typing import Any

import pytest

from export_worker.contract.status import Phase, StoredObject
from export_worker.errors import (
    PlatformRefusedError,
    PlatformUnavailableError,
    ResultMissingError,
)
from export_worker.lifecycle import endings, transitions
from export_worker.lifecycle.export import Export, Transferring, status_of
from export_worker.lifecycle.observations import Pending
from support.events import event_of
from support.export_states import (
    POLICY,
    at,
    cancelled,
    export_of,
    failed,
    polled,
    running,
    saved,
    stored,
    succeeded,
    transferring,
    transferring_state,
)


def test_status_of_queued_export() -> None:
    assert json.loads(status_of(export_of()).model_dump_json()) == {
        "export_id": "e1",
        "phase": "queued",
        "platform_stage": None,
        "operation_id": None,
        "connection": "gio",
        "kind": "growingio.tag_users",
        "progress": {"percent": None, "bytes_done": 0, "bytes_total": None, "files_done": 0, "files_total": None},
        "counters": {"polls": 0, "submits": 0, "retries": 0},
        "created_at": "2026-11-22T03:00:00.000Z",
        "updated_at": "2026-11-22T03:00:00.000Z",
        "due_at": "2026-11-22T03:00:00.000Z",
        "finished_at": None,
        "error": None,
        "objects": [],
        "manifest": None,
        "metadata": {"order": "42"},
    }


def test_status_of_running_export() -> None:
    status = status_of(polled(running(), Pending("EXECUTING", 40.0), at(1)).export)
    assert (status.phase, status.platform_stage, status.operation_id) == (Phase.RUNNING, "EXECUTING", "op1")
    assert status.progress.percent == 40.0
    assert status.due_at == at(5).now
    assert status.updated_at == at(1).now


def test_status_of_transferring_export() -> None:
    export = transferring()
    export = transitions.after_files(export, transferring_state(export), [stored()], at(6)).export
    status = status_of(export)
    assert (status.phase, status.platform_stage) == (Phase.TRANSFERRING, "FINISH")
    assert [type(item) for item in status.objects] == [StoredObject]
    assert status.objects[0].uri == "s3://bucket/k/b.csv"
    assert status.manifest is None


def test_status_of_succeeded_export() -> None:
    status = event_of(succeeded(), "exports").data
    assert status.phase is Phase.SUCCEEDED
    assert (status.due_at, status.finished_at) == (None, at(7).now)
    assert status.manifest == "s3://bucket/k/_manifest.json"
    assert [item.file_name for item in status.objects] == ["下载 & 列表.csv", "b.csv"]
    assert status.progress.model_dump() == {
        "percent": 100.0,
        "bytes_done": 20,
        "bytes_total": 20,
        "files_done": 2,
        "files_total": 2,
    }


def test_status_of_failed_export() -> None:
    status = event_of(failed(), "exports").data
    assert (status.phase, status.operation_id, status.platform_stage) == (Phase.FAILED, "op1", "CREATED")
    assert (status.due_at, status.finished_at) == (None, at(3).now)
    assert status.error is not None
    assert status.objects == []


@pytest.mark.parametrize(
    ("make", "role", "step"),
    [
        (export_of, "control", "submit"),
        (running, "control", "poll"),
        (transferring, "transfer", "transfer"),
        (succeeded, "control", "transfer"),
        (failed, "control", "transfer"),
        (cancelled, "control", "transfer"),
    ],
)
def test_role_and_name_of_next_step(make: Any, role: str, step: str) -> None:
    export: Export = make()
    assert (export.role, export.step_name) == (role, step)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(succeeded, "export.succeeded"), (failed, "export.failed"), (cancelled, "export.cancelled")],
)
def test_event_of_same_end_is_equal_and_restart_changes_its_id(make: Any, kind: str) -> None:
    export: Export = make()
    event = event_of(export, "exports")
    assert (event.id, event.type, event.subject) == ("e1.1", kind, "e1")
    assert event.source == "/export-worker/exports"
    request = json.loads(export.request.model_dump_json(exclude_none=True))
    assert event.data.request == request
    assert event.time == event.data.finished_at
    assert event_of(saved(export), "exports").model_dump_json() == event.model_dump_json()
    # A hash tag in the namespace is no valid part of a URI reference.
    assert event_of(export, "{exports}").source == "/export-worker/%7Bexports%7D"
    again = endings.after_cancel(transitions.restart(export, "submit", at(50)).export, at(51)).export
    assert event_of(again, "exports").id == "e1.2"


@pytest.mark.parametrize("make", [export_of, running, transferring])
def test_event_of_open_export_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="only an ended export"):
        event_of(make(), "exports")


@pytest.mark.parametrize("make", [succeeded, failed, cancelled])
def test_ended_export_takes_no_step(make: Any) -> None:
    for error in (PlatformRefusedError("no"), PlatformUnavailableError("502"), ResultMissingError("404")):
        with pytest.raises(TypeError, match="takes no step"):
            endings.after_failure(make(), error, at(9), POLICY)
    with pytest.raises(TypeError, match="takes no step"):
        endings.after_deadline(make(), at(9), POLICY)
    with pytest.raises(TypeError, match="takes no step"):
        endings.after_cancel(make(), at(9))


def test_record_with_unknown_fields_is_read() -> None:
    record = json.loads(running().model_dump_json()) | {"colour": "blue"}
    record["state"]["mood"] = "good"
    assert Export.model_validate_json(json.dumps(record)) == running()


def test_record_of_an_older_worker_counts_the_bytes_of_its_stored_files() -> None:
    before = transferring()
    record = json.loads(before.model_dump_json())
    del record["state"]["stored_bytes"]
    assert Export.model_validate_json(json.dumps(record)) == before
    assert isinstance(before.state, Transferring)
    assert before.state.stored_bytes == sum(item.source_bytes for item in before.state.stored)

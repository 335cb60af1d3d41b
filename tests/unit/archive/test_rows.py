"""What a row of the archive has, and what keeps no row and no hour from it."""

import io
from datetime import UTC, datetime, timedelta

from pyarrow import parquet

from export_worker.archive.records import ended_export
from export_worker.archive.rows import EndedExport, TimelineEntry, of_this_end, row_of
from export_worker.archive.tables import SCHEMA, ExportTable
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import ErrorReport, Phase, Status, StoredObject
from export_worker.redis.ended_log import EndedEntry

ACCEPTED_AT = datetime(2026, 11, 30, 22, tzinfo=UTC)
ID = "0" * 32


def after(seconds: float) -> datetime:
    return ACCEPTED_AT + timedelta(seconds=seconds)


def entry(generation: int = 1, seconds: float = 100) -> EndedEntry:
    return EndedEntry(ID, epoch_ms(after(seconds)), generation, 0)


def status(**more: object) -> Status:
    known = {"export_id": ID, "phase": Phase.FAILED, "connection": "gio", "kind": "growingio.tag_users"}
    times = {"created_at": ACCEPTED_AT, "updated_at": ACCEPTED_AT}
    return Status.model_validate({**known, **times, **more})


TWO_GENERATIONS = [
    TimelineEntry(after(0), "queued", 1, "accepted"),
    TimelineEntry(after(10), "running", 1, "submitted"),
    TimelineEntry(after(40), "failed", 2, "refused"),
    TimelineEntry(after(200), "running", 3, "retried"),
    TimelineEntry(after(230), "transferring", 4, "ready"),
    TimelineEntry(after(300), "succeeded", 5, "stored"),
]


def test_timeline_of_an_end_begins_behind_the_end_before() -> None:
    assert of_this_end(TWO_GENERATIONS[:3]) == TWO_GENERATIONS[:3]
    assert of_this_end(TWO_GENERATIONS) == TWO_GENERATIONS[3:]
    note = TimelineEntry(after(40), "failed", 2, "a retry was cancelled")
    assert of_this_end([*TWO_GENERATIONS[:3], note]) == [*TWO_GENERATIONS[:3], note]
    assert of_this_end(TWO_GENERATIONS[:2]) == TWO_GENERATIONS[:2]


def test_durations_are_those_of_the_generation() -> None:
    first = row_of(entry(1, 40), EndedExport(status(), TWO_GENERATIONS[:3]))
    assert [first[name] for name in ("duration_s", "queued_s", "running_s", "transferring_s")] == [40, 10, 30, 0]
    second = row_of(entry(2, 300), EndedExport(status(), TWO_GENERATIONS))
    assert [second[name] for name in ("duration_s", "queued_s", "running_s", "transferring_s")] == [100, 0, 30, 70]


def test_columns_of_a_row_are_those_of_the_schema() -> None:
    stored = StoredObject(uri="s3://b/k", bucket="b", key="k", bytes=5, etag="e", checksum="c", file_name="k", rows=2)
    error = ErrorReport(code="platform_refused", message="no", step="poll", retryable=False)
    row = row_of(entry(), EndedExport(status(objects=[stored], error=error), TWO_GENERATIONS[:3]))
    assert set(row) == set(SCHEMA.names)
    assert (row["files"], row["bytes"], row["rows"], row["error_code"]) == (1, 5, 2, "platform_refused")


def test_row_that_parquet_cannot_have_keeps_no_other_row_from_the_file() -> None:
    table = ExportTable()
    bad = row_of(entry(2), EndedExport(status(platform_stage="\ud800")))
    body = table.add([row_of(entry(1), EndedExport(status())), bad, row_of(entry(3), None)]) + table.finish()
    rows = parquet.read_table(io.BytesIO(body)).to_pylist()
    assert [(row["generation"], row["connection"]) for row in rows] == [(1, "gio"), (2, None), (3, None)]


def test_large_number_is_cut_to_that_of_parquet() -> None:
    table = ExportTable()
    stored = StoredObject(uri="", bucket="", key="", bytes=2**70, etag="", checksum="", file_name="", rows=2**70)
    body = table.add([row_of(entry(), EndedExport(status(objects=[stored])))]) + table.finish()
    (row,) = parquet.read_table(io.BytesIO(body)).to_pylist()
    assert row["connection"] == "gio"
    assert row["bytes"] == row["rows"] == row["objects"][0]["rows"] == 2**63 - 1


def test_damaged_records_are_read_as_missing() -> None:
    assert ended_export(ID, None, []) is None
    assert ended_export(ID, b"{", []) is None
    assert ended_export(ID, b"2\nsucceeded\n", []) is None

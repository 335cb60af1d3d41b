"""One export in every phase, for the tests of the state machine."""

from datetime import UTC, datetime, timedelta
from typing import Any

from export_worker.contract.request import ExportRequest, GrowingioTagUsers
from export_worker.contract.status import ManifestObject
from export_worker.errors import (
    DownloadForbiddenError,
    PlatformNotFoundError,
)
from export_worker.lifecycle import endings, submits, transitions
from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.decisions import Decision, Moment, Policy
from export_worker.lifecycle.export import Export, Running, Transferring, accepted
from export_worker.lifecycle.observations import OperationFailed, Pending, Ready, RemoteFile, Stored, Submitted
from export_worker.lifecycle.poll_schedule import PollSchedule

START = datetime(2026, 11, 22, 3, tzinfo=UTC)
POLL = Backoff(2.0, 60.0)
POLICY = Policy(
    poll=PollSchedule(POLL.first_s, POLL.max_s), retry=Backoff(1.0, 30.0), max_attempts=3, deadline_s=3600.0
)
FILES = (RemoteFile("/a/下载 & 列表.csv", "下载 & 列表.csv"), RemoteFile("/a/b.csv", "b.csv"))
STARTS = ("submit", "poll", "transfer")


def export_of(**request: Any) -> Export:
    body = ExportRequest(connection="gio", export=GrowingioTagUsers(tag_key="t"), metadata={"order": "42"}, **request)
    return accepted("e1", body, START)


def at(after_s: float = 0.0, draw: float = 1.0) -> Moment:
    return Moment(START + timedelta(seconds=after_s), draw)


def stored(name: str = "b.csv", size_bytes: int = 10) -> ManifestObject:
    return ManifestObject(
        uri=f"s3://bucket/k/{name}",
        bucket="bucket",
        key=f"k/{name}",
        bytes=size_bytes // 2,
        etag="0cc1",
        checksum="CRC64NVME:AAAAAAAAAAA=",
        file_name=name,
        source_uri=f"/a/{name}",
        source_bytes=size_bytes,
    )


def running(after_s: float = 0.0, **request: Any) -> Export:
    counted = submits.count_submit(export_of(**request))
    return transitions.after_submit(counted, Submitted("op1", "CREATED"), at(after_s), POLICY).export


def running_state(export: Export) -> Running:
    assert isinstance(export.state, Running)
    return export.state


def transferring_state(export: Export) -> Transferring:
    assert isinstance(export.state, Transferring)
    return export.state


def polled(export: Export, seen: Pending | Ready | OperationFailed, moment: Moment) -> Decision:
    return transitions.after_poll(export, running_state(export), seen, moment, POLICY)


def transferring() -> Export:
    return polled(running(), Ready("FINISH", FILES), at(5)).export


def succeeded() -> Export:
    export = transferring()
    for name in ("下载 & 列表.csv", "b.csv"):
        export = transitions.after_files(export, transferring_state(export), [stored(name)], at(6)).export
    stored_all = Stored(tuple(transferring_state(export).stored), "s3://bucket/k/_manifest.json")
    return transitions.after_transfer(export, transferring_state(export), stored_all, at(7)).export


def failed() -> Export:
    return endings.after_failure(running(), PlatformNotFoundError("no such tag"), at(3), POLICY).export


def cancelled() -> Export:
    return endings.after_cancel(running(), at(3)).export


def half_stored() -> Export:
    export = transferring()
    return transitions.after_files(export, transferring_state(export), [stored("下载 & 列表.csv")], at(6)).export


def given_up(export: Export) -> Export:
    return endings.after_failure(export, DownloadForbiddenError("no"), at(8), POLICY).export


def saved(export: Export) -> Export:
    """Returns the export as the record store reads it."""
    return Export.model_validate_json(export.model_dump_json(exclude_none=True))


def due_in_s(decision: Decision, moment: Moment) -> float:
    return (decision.export.due_at - moment.now).total_seconds()


def code_of(export: Export) -> str:
    assert export.error is not None
    return export.error.code

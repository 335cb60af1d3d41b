"""An export as the worker sees it: what was asked for, and where it stands.

A state is a type. A running export *has* an operation id and a transferring one *has* files, so nobody asks for None.
The whole value is immutable; `steps` makes the next one, `store` keeps it.
"""

from datetime import datetime
from typing import Annotated, Literal, assert_never

from pydantic import Field

from export_worker.contract.event import Event
from export_worker.contract.model import Model, Timestamp
from export_worker.contract.redis_keys import Role
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Counters, ErrorReport, ManifestObject, Phase, Progress, Status, StoredObject
from export_worker.lifecycle.observations import RemoteFile, ResumableUpload


class _Record(Model):
    """Read back from Redis: a newer worker may have written more than this one knows."""

    model_config = Model.model_config | {"extra": "ignore", "strict": False}


class Queued(_Record):
    """Accepted; the platform does not know of it, or we do not know that it does."""

    phase: Literal[Phase.QUEUED] = Phase.QUEUED


class Running(_Record):
    """Submitted. `empty_looks` counts the polls that said "done" without naming a file.

    `submitted_at` is None when it is not known how long the job has run: after a retry by hand. `looked_at` is the last
    look that said "not yet". `upload` is one that waits for its file to be named anew, and so are the files that are
    `stored`: of those that the platform had named, in this order, as `names`.
    """

    phase: Literal[Phase.RUNNING] = Phase.RUNNING
    operation_id: str
    stage: str | None = None
    percent: float | None = None
    empty_looks: int = 0
    submitted_at: Timestamp | None = None
    looked_at: Timestamp | None = None
    upload: ResumableUpload | None = None
    names: list[str] = []
    stored: list[ManifestObject] = []


class Transferring(_Record):
    """The platform is done and has named its files; `stored` are those that stand in S3 already.

    `landed_at` is when the last of the files landed; the manifest tells it, so one written twice is the same twice.
    `upload` is the one that whoever takes the transfer up goes on with.
    """

    phase: Literal[Phase.TRANSFERRING] = Phase.TRANSFERRING
    operation_id: str
    stage: str | None = None
    files: list[RemoteFile]
    stored: list[ManifestObject] = []
    landed_at: Timestamp | None = None
    upload: ResumableUpload | None = None


class Succeeded(_Record):
    """Every file stands in S3, then the manifest, then `_SUCCESS`."""

    phase: Literal[Phase.SUCCEEDED] = Phase.SUCCEEDED
    operation_id: str
    stage: str | None = None
    stored: list[ManifestObject]
    manifest_uri: str
    finished_at: Timestamp


class _Stopped(_Record):
    """Ended before its time. What it had reached is kept: a retry may go on from there."""

    operation_id: str | None = None
    stage: str | None = None
    files: list[RemoteFile] = []
    stored: list[ManifestObject] = []
    landed_at: Timestamp | None = None
    finished_at: Timestamp


class Failed(_Stopped):
    """Given up; the export's error says why."""

    phase: Literal[Phase.FAILED] = Phase.FAILED


class Cancelled(_Stopped):
    """Somebody asked for its end."""

    phase: Literal[Phase.CANCELLED] = Phase.CANCELLED


Open = Queued | Running | Transferring
Ended = Succeeded | Failed | Cancelled
State = Annotated[Open | Ended, Field(discriminator="phase")]


class Export(_Record):
    """One export at one moment.

    Args:
        attempt: Failures since the last progress.
        throttled: Refusals for too many calls since the last progress; they use no attempt.
        generation: How many times the export was set going: once, and once more for each retry by hand.
        set_going_at: When that was last; deadlines count from it.
    """

    export_id: str
    request: ExportRequest
    state: State
    created_at: Timestamp
    updated_at: Timestamp
    due_at: Timestamp
    counters: Counters = Counters()
    attempt: int = 0
    throttled: int = 0
    generation: int = 1
    set_going_at: Timestamp
    error: ErrorReport | None = None

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self.state.phase

    @property
    def role(self) -> Role:
        """Which workers look at it next."""
        return "transfer" if isinstance(self.state, Transferring) else "control"

    @property
    def step_name(self) -> str:
        """The step that comes next: submit, poll or transfer."""
        match self.state:
            case Queued():
                return "submit"
            case Running():
                return "poll"
            case Transferring() | Succeeded() | Failed() | Cancelled():
                return "transfer"
            case _:
                assert_never(self.state)


def accepted(export_id: str, request: ExportRequest, created_at: datetime) -> Export:
    """An export that has just been accepted."""
    return Export(
        export_id=export_id,
        request=request,
        state=Queued(),
        created_at=created_at,
        updated_at=created_at,
        due_at=created_at,
        set_going_at=created_at,
    )


def status_of(export: Export) -> Status:
    """The status document of an export."""
    state = export.state
    ended = isinstance(state, Ended)
    return Status(
        export_id=export.export_id,
        phase=export.phase,
        platform_stage=None if isinstance(state, Queued) else state.stage,
        operation_id=None if isinstance(state, Queued) else state.operation_id,
        connection=export.request.connection,
        kind=export.request.kind,
        progress=_progress(state),
        counters=export.counters,
        created_at=export.created_at,
        updated_at=export.updated_at,
        due_at=None if ended else export.due_at,
        finished_at=state.finished_at if isinstance(state, Ended) else None,
        error=export.error,
        objects=[] if isinstance(state, Queued | Running) else [_stored(item) for item in state.stored],
        manifest=state.manifest_uri if isinstance(state, Succeeded) else None,
        metadata=export.request.metadata,
    )


def _progress(state: State) -> Progress:
    match state:
        case Running():
            return Progress(percent=state.percent)
        case Transferring():
            return Progress(
                bytes_done=_source_bytes(state.stored), files_done=len(state.stored), files_total=len(state.files)
            )
        case Succeeded():
            total = _source_bytes(state.stored)
            files = len(state.stored)
            return Progress(percent=100.0, bytes_done=total, bytes_total=total, files_done=files, files_total=files)
        case Queued() | Failed() | Cancelled():
            return Progress()
        case _:
            assert_never(state)


def _source_bytes(stored: list[ManifestObject]) -> int:
    return sum(item.source_bytes for item in stored)


def _stored(item: ManifestObject) -> StoredObject:
    return StoredObject.model_validate(item.model_dump())


def event_of(export: Export, namespace: str, trace: str = "") -> Event:
    """The completion event of an export in a terminal phase. The same export gives the same event, id included.

    Args:
        trace: The W3C traceparent that came with the request: who hears of the end goes on in the trace of who asked.
    """
    status = status_of(export)
    if status.finished_at is None:
        raise ValueError("only an ended export has an event")
    return Event.model_validate(
        {
            "id": f"{export.export_id}.{export.generation}",
            "type": f"export.{export.phase}",
            "source": f"/export-worker/{namespace}",
            "subject": export.export_id,
            "time": status.finished_at,
            "traceparent": trace or None,
            "data": status,
        }
    )

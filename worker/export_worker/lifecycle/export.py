"""An export as the worker sees it: its request and its state.

Each state is a type. A running export *has* an operation id and a transferring one *has* files, so no code checks them
for None. An export is immutable: `transitions` returns the next value, and the record store saves it.
"""

from datetime import datetime
from typing import Annotated, Literal, assert_never

from pydantic import Field

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.redis_keys import CallKind, Role
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Counters, ErrorReport, ManifestObject, Phase, Progress, Status, StoredObject
from export_worker.lifecycle.observations import RemoteFile, ResumableUpload


class _Record(Model):
    """Read from Redis. Unknown fields are ignored, since a newer worker may have written them."""

    # A worker reads records in its event loop, so their validators are built when this module is imported.
    model_config = Model.model_config | {"extra": "ignore", "strict": False, "defer_build": False}


class Queued(_Record):
    """Accepted, and not known to be submitted."""

    phase: Literal[Phase.QUEUED] = Phase.QUEUED


class Running(_Record):
    """Submitted. `empty_looks` counts the polls that found the operation finished without a file.

    `submitted_at` is None after a retry by hand, when the age of the operation is unknown. `looked_at` is the time of
    the last poll that returned "not yet".

    After a file was missing at the source, the platform is polled for its new address. `names` are then the files that
    the platform had named, in order, `stored` those of them that are in S3, and `upload` the one that can be resumed.
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
    """The platform has finished and named its files; `stored` are those that are in S3 already.

    `stored_bytes` is how many bytes of them came from the source: adding them up would take longer with each file.
    `landed_at` is the time at which the last file was stored. The manifest contains it, so that a manifest that is
    written twice has the same bytes. `upload` is the multipart upload that the next attempt resumes. `copy_of` is the
    export whose stored files are copied within S3, because it has shared its operation.
    """

    phase: Literal[Phase.TRANSFERRING] = Phase.TRANSFERRING
    operation_id: str
    stage: str | None = None
    files: list[RemoteFile]
    stored: list[ManifestObject] = []
    stored_bytes: int = Field(default_factory=lambda data: _source_bytes(data.get("stored", [])))
    landed_at: Timestamp | None = None
    upload: ResumableUpload | None = None
    copy_of: str | None = None


class Succeeded(_Record):
    """Every file is in S3, and so are the manifest and `_SUCCESS`."""

    phase: Literal[Phase.SUCCEEDED] = Phase.SUCCEEDED
    operation_id: str
    stage: str | None = None
    stored: list[ManifestObject]
    manifest_uri: str
    finished_at: Timestamp


class _Stopped(_Record):
    """Ended without success. The results so far are kept, so that a retry by hand can continue from there."""

    operation_id: str | None = None
    stage: str | None = None
    files: list[RemoteFile] = []
    stored: list[ManifestObject] = []
    landed_at: Timestamp | None = None
    finished_at: Timestamp


class Failed(_Stopped):
    """Failed; `Export.error` has the reason."""

    phase: Literal[Phase.FAILED] = Phase.FAILED


class Cancelled(_Stopped):
    """Ended, because its cancellation was requested."""

    phase: Literal[Phase.CANCELLED] = Phase.CANCELLED


Open = Queued | Running | Transferring
Ended = Succeeded | Failed | Cancelled
State = Annotated[Open | Ended, Field(discriminator="phase")]


class EarlierFiles(_Record):
    """Files of an earlier attempt. The platform may name them otherwise when the export reaches its files again.

    `names` are the platform's names of all of them, in order: any of them may be in S3, since a worker can die before
    it saves a stored file. `keys` are the keys of those that were saved. A succeeded export has only `keys`.
    """

    names: list[str] = []
    keys: list[str] = []


class Export(_Record):
    """One export at one moment.

    Args:
        attempt: Failures since the last progress.
        throttled: Refusals for too many requests since the last progress. They use no attempt.
        generation: One, plus one for each retry by hand.
        set_going_at: Time of acceptance, or of the last retry by hand. The deadline counts from it.
        earlier_files: Files of earlier attempts. Those that the manifest does not list are removed before `_SUCCESS`.
        unclear_submits: Submits since the last known operation that the platform may have received; see `submits`.
        open_submits: Submits that the running step has begun: saved before the request is sent, and 0 in each decision.
            The next worker of a step finds more than 0 only if the worker before it has stopped in a submit.
        operation_retries: How often the export was queued again after a failed operation, since acceptance or the last
            retry by hand. Workers of version 0.2 drop it, and then the count begins again.
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
    earlier_files: list[EarlierFiles] = []
    unclear_submits: int = 0
    open_submits: int = 0
    operation_retries: int = 0

    @property
    def phase(self) -> Phase:
        """The phase of its state."""
        return self.state.phase

    @property
    def role(self) -> Role:
        """The role of the workers that run its next step."""
        return "transfer" if isinstance(self.state, Transferring) else "control"

    @property
    def step_name(self) -> CallKind:
        """The next step: submit, poll or transfer."""
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
    """Returns the export of a request that has just been accepted."""
    return Export(
        export_id=export_id,
        request=request,
        state=Queued(),
        created_at=created_at,
        updated_at=created_at,
        due_at=created_at,
        set_going_at=created_at,
    )


def has_progressed(before: Export, after: Export) -> bool:
    """Returns whether a transfer got further: another file is stored, or more parts of an upload can be reused."""
    if not isinstance(before.state, Transferring) or not isinstance(after.state, Transferring):
        return False
    return _reached(after.state) > _reached(before.state)


def _reached(state: Transferring) -> tuple[int, int]:
    return len(state.stored), 0 if state.upload is None else state.upload.parts


def with_earlier_files(export: Export) -> Export:
    """Returns the export with the files of its state noted as earlier files, for a step that leaves this state."""
    state = export.state
    if isinstance(state, Queued | Running):
        return export
    names = [] if isinstance(state, Succeeded) else [file.name for file in state.files]
    files = EarlierFiles(names=names, keys=[item.key for item in state.stored])
    if files in (EarlierFiles(), *export.earlier_files):
        return export
    return export.model_copy(update={"earlier_files": [*export.earlier_files, files]})


def earlier_names_length(export: Export) -> int:
    """Returns how many characters the names of all earlier files have."""
    return sum(len(name) for files in export.earlier_files for name in files.names)


def status_of(export: Export, *, with_objects: bool = True) -> Status:
    """Returns the status document of an open export without its request, which has a field of its own in the record.

    That of an ended one follows from its packed record; see `contract.past_documents`.

    Args:
        with_objects: Whether it lists the stored objects.
    """
    state = export.state
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
        due_at=export.due_at,
        error=export.error,
        objects=_objects(state) if with_objects else [],
        metadata=export.request.metadata,
    )


def _objects(state: State) -> list[StoredObject]:
    return [] if isinstance(state, Queued | Running) else [_stored(item) for item in state.stored]


def _progress(state: State) -> Progress:
    match state:
        case Running():
            return Progress(percent=state.percent)
        case Transferring():
            return Progress(bytes_done=state.stored_bytes, files_done=len(state.stored), files_total=len(state.files))
        case Queued() | Succeeded() | Failed() | Cancelled():
            return Progress()
        case _:
            assert_never(state)


def _source_bytes(stored: list[ManifestObject]) -> int:
    return sum(item.source_bytes for item in stored)


def _stored(item: ManifestObject) -> StoredObject:
    return StoredObject.model_validate(item.model_dump())


def event_id_of(export: Export) -> str:
    """Returns the id of the completion event of an ended export."""
    return f"{export.export_id}.{export.generation}"

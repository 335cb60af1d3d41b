"""Batches: exports that are enqueued, followed and cancelled as one, with one event and one manifest."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.phase import Phase
from export_worker.contract.redis_keys import NO_END_MS
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Count, ErrorReport, StoredObject
from export_worker.contract.wording import Pattern
from export_worker.errors import (
    ExportNotFoundError,
    ExportWorkerError,
    FieldProblem,
    IdempotencyConflictError,
    InvalidRequestError,
)

BATCH_MAX = 10_000
"""Requests of one batch. Each needs some 2 KB in Redis while it waits."""
BATCH_FIELDS = (
    "seed",
    "total",
    "created_ms",
    "requested_by",
    "connections",
    "accepted",
    "open",
    "succeeded",
    "failed",
    "cancelled",
    "generation",
    "ended_ms",
    "stop",
    "manifest",
)
"""The fields of a batch in Redis that its document is made of."""

BatchName = Annotated[
    str,
    Pattern(
        r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$",
        "must have 1 to 100 characters: letters, digits, _, - and ., and begin with a letter or digit, such as night-1",
    ),
]
"""The name of a batch. It is a part of the key of the manifest."""

_TimeMs = Annotated[int, Field(ge=0, le=NO_END_MS)]
_NAME: TypeAdapter[str] = TypeAdapter(BatchName)


class BatchConflictError(IdempotencyConflictError):
    """The name of a batch is that of other requests, or the batch can accept no further ones."""

    def __init__(self, batch: str, reason: str) -> None:
        ExportWorkerError.__init__(self, f"batch: {batch} {reason}")
        self.batch = batch
        self.reason = reason

    @property
    def problems(self) -> tuple[FieldProblem, ...]:
        """The problem of the name."""
        return (FieldProblem("batch", self.reason),)


class BatchNotFoundError(ExportNotFoundError):
    """There is no batch with this name, or its retention has passed."""

    def __init__(self, batch: str) -> None:
        ExportWorkerError.__init__(self, f"no batch {batch}: the name is wrong, or its retention has passed")
        self.batch = batch


class _Report(Model):
    model_config = ConfigDict(extra="ignore", strict=False)


class Batch(_Report):
    """How far a batch is."""

    batch: str
    """The name of the batch."""
    state: Literal["accepting", "running", "cancelling", "completed"]
    """`accepting`: not all requests are accepted yet, and the caller must enqueue the same batch again if this does not
    change; `running`: exports are open; `cancelling`: the cancellation was requested; `completed`: all have ended."""
    total: Count
    """The number of requests in the batch."""
    accepted: Count
    """How many of them were accepted."""
    open: Count
    """How many exports have not ended."""
    succeeded: Count = 0
    """How many exports have succeeded."""
    failed: Count = 0
    """How many exports have failed."""
    cancelled: Count = 0
    """How many exports were cancelled."""
    created_at: Timestamp
    """When the batch was enqueued."""
    finished_at: Timestamp | None = None
    """When its last export ended. Null while an export is open."""
    requested_by: str | None = None
    """Who has enqueued the batch."""
    connections: list[str] = []
    """The connections that its requests name, sorted."""
    completions: Count = 0
    """How often the batch was completed. A retry of one of its exports opens it again, and another event follows."""
    manifest: str | None = None
    """The address of the manifest over all exports. Null until the completion is announced."""


class BatchEvent(Model):
    """Reports that all exports of a batch have ended. `id` is the same in every delivery."""

    model_config = ConfigDict(extra="ignore", strict=False)

    specversion: Literal["1.0"] = "1.0"
    """The version of CloudEvents."""
    id: str
    """The id of the event. Every delivery of the event has the same id."""
    type: Literal["batch.completed"] = "batch.completed"
    """The type of the event."""
    source: str
    """The namespace of the workers, as `/export-worker/{namespace}`."""
    subject: str
    """The name of the batch."""
    time: Timestamp
    """When the last export ended."""
    datacontenttype: Literal["application/json"] = "application/json"
    """The media type of `data`."""
    data: Batch
    """The batch."""


class BatchExport(_Report):
    """One export in the manifest of a batch."""

    export_id: str
    """The id of the export."""
    phase: Phase | None = None
    """How the export ended. Null if its record has expired."""
    connection: str | None = None
    """The name of the connection."""
    kind: str | None = None
    """The kind of the export."""
    error: Annotated[ErrorReport | None, Field(exclude_if=lambda value: value is None)] = None
    """Why the export failed. Missing if it did not."""
    manifest: str | None = None
    """The address of the manifest of the export. Null if it has not succeeded."""
    objects: list[StoredObject] = []
    """The files in S3."""
    metadata: dict[str, str] = {}
    """The metadata of the request."""


class BatchManifest(_Report):
    """The manifest of a batch: all exports, in the order of the requests, and their files."""

    version: Literal[1] = 1
    """The version of the form of this document."""
    batch: str
    """The name of the batch."""
    finished_at: Timestamp
    """When the last export ended."""
    exports: list[BatchExport]
    """The exports."""
    succeeded: Count
    """How many exports have succeeded."""
    failed: Count
    """How many exports have failed."""
    cancelled: Count
    """How many exports were cancelled."""
    total_bytes: Count
    """The bytes of all objects."""


BatchRequests = Annotated[list[ExportRequest], Field(min_length=1, max_length=BATCH_MAX)]
"""The requests of a batch."""


class BatchOrder(Model):
    """A batch, as a caller of the HTTP API enqueues it."""

    model_config = ConfigDict(defer_build=True)

    batch: BatchName
    """The name of the batch: 1 to 100 letters, digits, `_`, `-` and `.`. The same name with the same requests is the
    same batch; with other requests it is refused."""
    requests: BatchRequests
    """The requests, 1 to 10,000. None of them has an idempotency key: the name of the batch is one for all."""


class StoredBatch(_Report):
    """The fields of a batch in Redis."""

    seed: str
    total: int
    created_ms: _TimeMs
    requested_by: str = ""
    connections: str = "[]"
    accepted: int = 0
    open: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    generation: int = 0
    ended_ms: _TimeMs | None = None
    stop: int | None = None
    manifest: str | None = None

    @classmethod
    def read(cls, values: Sequence[bytes | None]) -> Self | None:
        """Returns a batch from the values of `BATCH_FIELDS`; None if it does not exist.

        Raises:
            ValueError: It cannot be read.
        """
        found = zip(BATCH_FIELDS, values, strict=True)
        fields = {name: value.decode() for name, value in found if value is not None}
        return cls.model_validate(fields) if "seed" in fields else None

    @property
    def state(self) -> Literal["accepting", "running", "cancelling", "completed"]:
        """See `Batch.state`."""
        if self.ended_ms is not None:
            return "completed"
        if self.stop is not None:
            return "cancelling"
        return "accepting" if self.accepted < self.total else "running"

    def document(self, name: str) -> Batch:
        """Returns the document of this batch."""
        return Batch(
            batch=name,
            state=self.state,
            total=self.total,
            accepted=self.accepted,
            open=self.open,
            succeeded=self.succeeded,
            failed=self.failed,
            cancelled=self.cancelled,
            created_at=_moment(self.created_ms),
            finished_at=None if self.ended_ms is None else _moment(self.ended_ms),
            requested_by=self.requested_by or None,
            connections=_names(self.connections),
            completions=self.generation,
            manifest=self.manifest,
        )


def checked_batch_name(name: str) -> str:
    """Returns the name of a batch.

    Raises:
        InvalidRequestError: It is none.
    """
    try:
        return _NAME.validate_python(name)
    except ValidationError as error:
        raise InvalidRequestError([FieldProblem("batch", error.errors()[0]["msg"])]) from None


def fingerprint_of(requests: Sequence[ExportRequest]) -> str:
    """Returns a digest of the requests of a batch, in their order."""
    return sha256("\n".join(request.fingerprint() for request in requests).encode()).hexdigest()


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def json_of(text: str) -> object:
    """Returns what a JSON text has; None if it is none."""
    try:
        found: object = json.loads(text)
    except ValueError:
        return None
    return found


def _names(text: str) -> list[str]:
    found = json_of(text)
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []

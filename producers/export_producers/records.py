"""What the producer side writes into Redis and reads from it. Pure."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from json import dumps
from typing import Literal

from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.queue_jobs import ARQ_JOB_PREFIX, JOB_TTL_MS, job_payload
from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Phase, Progress, Status
from export_worker.contract.trace import TraceContext
from export_worker.errors import FieldProblem, InvalidRequestError

Start = Literal["submit", "poll", "transfer"]


@dataclass(frozen=True, slots=True)
class Offer:
    """One request on its way to be accepted."""

    request: ExportRequest
    export_id: str
    now: datetime
    trace: TraceContext | None = None

    def naming(self, sinks: Sequence[str]) -> "Offer | InvalidRequestError":
        """Itself, unless it names a sink that is none of these; while none is known, any may be."""
        unknown = [name for name in self.request.notify or () if name not in sinks]
        if not sinks or not unknown:
            return self
        message = f"unknown sink {unknown[0]!r}; known: {', '.join(sinks)}"
        return InvalidRequestError([FieldProblem("notify", message)])

    def keys(self, keys: Keys) -> list[str]:
        """The keys of `enqueue.lua`."""
        request, export_id = self.request, self.export_id
        dedupe = [keys.dedupe(request.idempotency_key)] if request.idempotency_key else []
        return [
            keys.export(export_id),
            keys.timeline(export_id),
            keys.open,
            keys.created,
            keys.phase(Phase.QUEUED),
            keys.queue("control"),
            ARQ_JOB_PREFIX + keys.job_id(export_id, 0),
            keys.connections,
            *dedupe,
        ]

    def arguments(self, keys: Keys) -> dict[str, object]:
        """The argument of `enqueue.lua`."""
        request, export_id, now_ms = self.request, self.export_id, epoch_ms(self.now)
        return {
            "export_id": export_id,
            "now_ms": now_ms,
            "prefix": keys.prefix,
            "wake": keys.wake("control"),
            "request": request.model_dump_json(exclude_none=True),
            "status": first_status(request, export_id, self.now).model_dump_json(),
            "connection": request.connection,
            "platform": request.platform,
            "kind": request.kind,
            # The script compares fingerprints only for an idempotency key.
            "fingerprint": request.fingerprint() if request.idempotency_key else None,
            "trace": None if self.trace is None else self.trace.model_dump_json(exclude_none=True),
            "note": dumps({"at": isoformat(self.now), "phase": Phase.QUEUED, "step": 0, "note": "accepted"}),
            "job_id": keys.job_id(export_id, 0),
            "payload": job_payload(export_id, 0, now_ms),
            "payload_ttl_ms": JOB_TTL_MS,
        }


@dataclass(frozen=True, slots=True)
class Page:
    """Some exports of a listing, the newest first.

    Args:
        cursor: Gives the next page; None when this is the last.
    """

    statuses: list[Status]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a listing ended. What is accepted later stands before it, so it moves nothing."""

    created_ms: int
    export_id: str

    @property
    def cursor(self) -> str:
        """For the caller, to whom it means nothing."""
        return urlsafe_b64encode(f"{self.created_ms}.{self.export_id}".encode()).decode().rstrip("=")


def place_of(cursor: str) -> Place:
    """The place that a cursor stands for.

    Raises:
        InvalidRequestError: It is none of ours.
    """
    try:
        created, _, export_id = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(".")
        place = Place(int(created), export_id)
    except ValueError:
        place = None
    if place is None or place.cursor != cursor:
        raise InvalidRequestError([FieldProblem("cursor", "must be one that an earlier page has given")])
    return place


@dataclass(frozen=True, slots=True)
class Restart:
    """An ended export on its way to be set going again.

    Args:
        before: Its status as it was read.
        after: Its status then.
        step: The step that the record had when it was read.
    """

    before: Status
    after: Status
    step: int
    start: Start
    now: datetime

    def keys(self, keys: Keys, idempotency_key: str) -> list[str]:
        """The keys of `retry.lua`."""
        export_id = self.before.export_id
        return [
            keys.export(export_id),
            keys.timeline(export_id),
            keys.open,
            keys.ended,
            keys.phase(self.before.phase),
            keys.phase(self.after.phase),
            keys.queue("control"),
            keys.dedupe(idempotency_key),
            ARQ_JOB_PREFIX + keys.job_id(export_id, self.step),
        ]

    def arguments(self, keys: Keys) -> dict[str, object]:
        """The argument of `retry.lua`."""
        export_id, now_ms = self.before.export_id, epoch_ms(self.now)
        return {
            "export_id": export_id,
            "now_ms": now_ms,
            "wake": keys.wake("control"),
            "step": str(self.step),
            "status": self.after.model_dump_json(),
            "phase": self.after.phase,
            "start": self.start,
            "created_ms": epoch_ms(self.before.created_at),
            "job_id": keys.job_id(export_id, self.step),
            "payload": job_payload(export_id, self.step, now_ms),
            "payload_ttl_ms": JOB_TTL_MS,
        }


def first_status(request: ExportRequest, export_id: str, now: datetime) -> Status:
    """The status of an export that has just been accepted."""
    return Status(
        export_id=export_id,
        phase=Phase.QUEUED,
        connection=request.connection,
        kind=request.kind,
        created_at=now,
        updated_at=now,
        due_at=now,
        metadata=request.metadata,
    )


def read_status(status: bytes, progress: bytes | None) -> Status:
    """The status as a record has it; a transfer tells its progress more often than that."""
    told = Status.model_validate_json(status)
    if progress is None:
        return told
    return told.model_copy(update={"progress": Progress.model_validate_json(progress)})


def retried(status: Status, start: Start | None, now: datetime) -> tuple[Start, Status]:
    """Where an ended export goes on, and its status then.

    Raises:
        InvalidRequestError: It has not ended.
    """
    if not status.phase.terminal:
        message = f"{status.export_id} is {status.phase}; only an ended export can be retried"
        raise InvalidRequestError([FieldProblem("export_id", message)])
    start = start or _failed_step(status)
    phase = Phase.QUEUED if start == "submit" or status.operation_id is None else Phase.RUNNING
    change = {"phase": phase, "updated_at": now, "due_at": now, "finished_at": None, "error": None}
    return start, status.model_copy(update=change)


def _failed_step(status: Status) -> Start:
    """Where a retry begins if nobody says: at the step that failed, and at the beginning after a success."""
    steps: dict[str, Start] = {"poll": "poll", "transfer": "transfer"}
    return "submit" if status.error is None else steps.get(status.error.step, "submit")


def wrong_connection(request: ExportRequest, platform: str | None, known: Mapping[str, str]) -> InvalidRequestError:
    """The error for a connection that is unknown, or belongs to a platform that does not offer the kind."""
    names = ", ".join(f"{name} ({kind})" for name, kind in sorted(known.items())) or "none is configured"
    if platform is None:
        message = f"unknown connection {request.connection!r}; known: {names}"
    else:
        needed = f"but {request.kind} needs {request.platform}"
        message = f"{request.connection!r} is of platform {platform}, {needed}; known: {names}"
    return InvalidRequestError([FieldProblem("connection", message)])

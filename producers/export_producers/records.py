"""The records that the producer side writes to Redis and reads from it. Pure."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from export_producers.identities import BatchPlace, MessageIdentity
from export_producers.readable import json_object
from export_producers.requesters import LIBRARY, shown_requester
from export_worker.contract.archive_state import ArchivePointer
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.names import did_you_mean, unknown_name
from export_worker.contract.past import Past
from export_worker.contract.past_documents import record_fields
from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import NORMAL, ExportRequest
from export_worker.contract.status import TERMINAL_PHASES, Phase, Status
from export_worker.contract.trace import TraceContext
from export_worker.errors import FieldProblem, InvalidRequestError

MESSAGE_TTL_MS = 90 * 86_400_000
"""How long the identity of a message, or the idempotency key of a caller with a name, is kept while its export is open:
longer than any deadline. A worker that ends the export sets the exact time, but a worker of version 0.1 does not know
the key."""

REPEATED_RETRY_MS = 3_600_000
"""How long the answer to a retry with a condition is kept for a repeated call: longer than a caller tries."""

RECORD_FIELDS = ("status", "progress", "request", "requested_by", "trace")
"""The fields of a record that a status is read from."""
FIRST_FIELDS = {"export_id", "phase", "connection", "kind", "created_at", "updated_at"}
"""The fields of the status of a new export. The others follow from its request, and each byte counts while it waits."""
REQUEST = RECORD_FIELDS.index("request")
"""The position of the request in these fields."""

Start = Literal["submit", "poll", "transfer"]
"""The step from which an export restarts."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One request that is about to be enqueued.

    Args:
        message: The message that requests the export. Without effect if the request has an idempotency key.
        owner: Whose idempotency key the request has; None for the keys that callers without a name share.
        requested_by: Who requests the export.
        place: Of a request in a batch, which has no idempotency key.
    """

    request: ExportRequest
    export_id: str
    now: datetime
    trace: TraceContext | None = None
    message: MessageIdentity | None = None
    owner: str | None = None
    requested_by: str = LIBRARY
    place: BatchPlace | None = None

    def check_sinks(self, sinks: Sequence[str]) -> "Offer | InvalidRequestError":
        """Returns this offer, or an error if its request names a sink that is not among `sinks`.

        Args:
            sinks: The sinks that workers have announced. If there are none, every name is allowed.
        """
        unknown = [name for name in self.request.notify or () if name not in sinks]
        if not sinks or not unknown:
            return self
        return InvalidRequestError([FieldProblem("notify", unknown_name("sink", unknown[0], sinks))])

    def keys(self, keys: Keys) -> list[str]:
        """The keys of `enqueue.lua`."""
        export_id = self.export_id
        return [
            keys.export(export_id),
            keys.open,
            keys.queue("control"),
            keys.connections,
            *self.identity_keys(keys),
        ]

    def identity_keys(self, keys: Keys) -> list[str]:
        """The keys that recognize a repeated request or message."""
        if self.request.idempotency_key and self.owner:
            return [keys.owned(self.owner, self.request.idempotency_key)]
        if self.request.idempotency_key:
            return [keys.dedupe(self.request.idempotency_key)]
        if self.message is not None:
            return [keys.message(self.message.text), keys.dedupe(self.message.earlier_key)]
        return []

    def arguments(self, keys: Keys) -> dict[str, object]:
        """The argument of `enqueue.lua`."""
        request, export_id, now_ms = self.request, self.export_id, epoch_ms(self.now)
        return {
            "export_id": export_id,
            "now_ms": now_ms,
            "prefix": keys.prefix,
            "wake": keys.wake("control"),
            "request": request.model_dump_json(exclude_none=True),
            "status": first_status(request, export_id, self.now).model_dump_json(include=FIRST_FIELDS),
            "connection": request.connection,
            "platform": request.platform,
            "kind": request.kind,
            "requested_by": shown_requester(self.requested_by),
            "priority": request.priority if request.priority != NORMAL else None,
            "metadata": request.metadata or None,
            # The script compares fingerprints only for an idempotency key or a message.
            "fingerprint": request.fingerprint() if request.idempotency_key or self.message else None,
            "share": request.sharing_digest(),
            "is_owned": True if self.request.idempotency_key and self.owner else None,
            "message_ttl_ms": MESSAGE_TTL_MS,
            "published_ms": None if self.message is None else self.message.published_ms,
            "trace": None if self.trace is None else self.trace.model_dump_json(exclude_none=True),
            "job_id": keys.job_id(export_id, 0),
            **({} if self.place is None else self.place.arguments),
        }


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, newest first.

    Args:
        cursor: The cursor for the next page; None if this is the last page.
        total: How many exports match on all pages together; None if counting them would take too long.
        searched_until: The search stopped at exports that were accepted at this time, with fewer matches than the page
            has room for. The next page continues there.
        positions: The position of each status, if the listing has an order that can be continued.
        missing: The queues whose exports are missing, because their Redis cannot be reached.
        archive: Where older exports are, if the filter has a time from which Redis no longer keeps all; else None.
    """

    statuses: list[Status]
    cursor: str | None
    total: int | None = None
    searched_until: datetime | None = None
    positions: Sequence["Position"] = ()
    missing: tuple[str, ...] = ()
    archive: ArchivePointer | None = None


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """The last entry of a page. Exports that are accepted later are listed before it, so the next page is unchanged.

    Args:
        number: The number of the export; 0 for one that an earlier version accepted. It is listed after all others.
    """

    number: int
    created_ms: int
    export_id: str

    @property
    def created_at(self) -> datetime:
        """The time of creation."""
        return datetime.fromtimestamp(self.created_ms / 1000, UTC)

    @property
    def cursor(self) -> str:
        """The position as opaque text for the caller."""
        number = f"{self.number}." if self.number else ""
        return urlsafe_b64encode(f"{number}{self.created_ms}.{self.export_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Returns the position of a cursor. Version 0.2 gave cursors without a number.

    Raises:
        InvalidRequestError: The cursor is invalid.
    """
    try:
        number, created, export_id = f"0.{_text_of(cursor)}".split(".")[-3:]
        position = Position(int(number), int(created), export_id)
    except ValueError:
        position = None
    if position is None or position.cursor != cursor:
        raise InvalidRequestError([FieldProblem("cursor", "must be the cursor of an earlier page")])
    return position


def _text_of(cursor: str) -> str:
    return urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()


@dataclass(frozen=True, slots=True)
class Restart:
    """An export that has ended and is about to be restarted.

    Args:
        before: Its status as it was read.
        after: Its status after the restart.
        step: The number of the step that the record had when it was read.
        start: The step to restart from.
        past: The packed record, if the export has one.
        call: The call, if it has a condition: a repeated one gets the same answer. See `retry_call`.
    """

    before: Status
    after: Status
    step: int
    start: Start
    now: datetime
    past: Past | None = None
    call: str | None = None

    def keys(self, keys: Keys, idempotency_key: str) -> list[str]:
        """The keys of `retry.lua`."""
        export_id = self.before.export_id
        return [
            keys.export(export_id),
            keys.timeline(export_id),
            keys.open,
            keys.queue("control"),
            keys.dedupe(idempotency_key),
            keys.restarted(export_id),
        ]

    def stored(self, keys: Keys) -> list[bytes]:
        """The bytes that `retry.lua` stores: for a packed record, its header, its fields and its timeline."""
        if self.past is None:
            return []
        return [self.past.header.text, *self._fields(keys), *self.past.timeline]

    def _fields(self, keys: Keys) -> list[bytes]:
        """The names and values of the hash that replaces the packed record."""
        if self.past is None:
            return []
        identity = self.past.header.identity
        message = {"message": f"{keys.prefix}{identity}".encode()} if identity else {}
        fields = record_fields(self.past) | message
        return [part for name, value in fields.items() for part in (name.encode(), value)]

    def _of_past(self, keys: Keys) -> dict[str, object]:
        """What the script must know of a packed record."""
        if self.past is None:
            return {}
        header = self.past.header
        event_id = f"{self.before.export_id}.{header.generation}"
        return {"event_id": event_id, "until_ms": header.until_ms, "fields": len(self._fields(keys))}

    def arguments(self, keys: Keys) -> dict[str, object]:
        """The argument of `retry.lua`."""
        before, now_ms = self.before, epoch_ms(self.now)
        export_id = before.export_id
        return {
            "export_id": export_id,
            "now_ms": now_ms,
            "prefix": keys.prefix,
            "wake": keys.wake("control"),
            "step": str(self.step),
            "status": self.after.model_dump_json(exclude={"request", "requested_by", "trace_id"}),
            "phase": self.after.phase,
            "connection": before.connection,
            "kind": before.kind,
            "old_phase": before.phase,
            "start": self.start,
            "job_id": keys.job_id(export_id, self.step),
            "message_ttl_ms": MESSAGE_TTL_MS,
            "answer": None if self.call is None else to_json({"call": self.call, "status": self.after}).decode(),
            "answer_ttl_ms": REPEATED_RETRY_MS,
            **self._of_past(keys),
        }


def first_status(request: ExportRequest, export_id: str, now: datetime) -> Status:
    """Returns the status of an export that has just been accepted."""
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


def read_status(record: Sequence[bytes | None], stored: Sequence[bytes] = ()) -> Status:
    """Returns the status of a record.

    A transfer writes its progress to a separate field, which is newer. The stored status does not repeat the request,
    who requested the export, and the trace.

    Args:
        record: The values of `RECORD_FIELDS`.
        stored: The files that a transfer of many files has stored; see `Keys.stored`.

    Raises:
        ValueError: The status or the progress of a transfer cannot be read.
    """
    status, progress, request, requested_by, trace = record
    document = from_json(status or b"")
    if not isinstance(document, dict):
        return Status.model_validate(document)  # raises the error of a status that is no object
    if progress is not None:
        document["progress"] = from_json(progress)
    if stored and document.get("phase") == Phase.TRANSFERRING:
        document["objects"] = [from_json(item) for item in stored]
    if request is not None and (asked := json_object(request)) is not None:
        document["request"] = asked
        if document.get("due_at") is None and document.get("phase") not in TERMINAL_PHASES:
            document |= {"due_at": document.get("created_at"), "metadata": _metadata(asked)}
    if requested_by is not None:
        document["requested_by"] = requested_by.decode(errors="replace")
    if trace is not None and (context := TraceContext.read(trace)) is not None:
        document["trace_id"] = context.trace_id
    # Its default would be copied, which takes longer than all else.
    document.setdefault("objects", [])
    return Status.model_validate(document)


def _metadata(request: Mapping[str, Any]) -> dict[str, str]:
    """Returns the metadata of a request. What is no text is left out: the record may be damaged."""
    found = request.get("metadata")
    texts = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in texts if isinstance(value, str)}


def retried(
    status: Status, start: Start | None, now: datetime, ended_at: datetime | None = None
) -> tuple[Start, Status]:
    """Returns the step from which an export restarts, and its status after the restart.

    Args:
        start: The step that the caller chose; None for the default.
        ended_at: When the export must have ended; None for any time.

    Raises:
        InvalidRequestError: The export has not ended, or not at this time.
    """
    if not status.phase.terminal:
        message = f"{status.export_id} is {status.phase}; only an ended export can be retried"
        raise InvalidRequestError([FieldProblem("export_id", message)])
    if ended_at is not None and status.finished_at != ended_at:
        raise ended_otherwise(status.export_id)
    start = start or start_of_retry(status)
    phase = Phase.QUEUED if start == "submit" or status.operation_id is None else Phase.RUNNING
    change = {"phase": phase, "updated_at": now, "due_at": now, "finished_at": None, "error": None}
    return start, status.model_copy(update=change)


def retry_call(start: Start | None, ended_at: datetime) -> str:
    """Returns what two retries of an export have in common if the second one repeats the first one."""
    return f"{start or ''} {isoformat(ended_at)}"


def idempotency_key_of(request: bytes) -> str:
    """Returns the idempotency key of a stored request, whose kind may be of a package that is missing here."""
    return str((json_object(request) or {}).get("idempotency_key") or "")


def ended_otherwise(export_id: str) -> InvalidRequestError:
    """Returns the error for an export that was restarted after the caller has read how it ended."""
    return InvalidRequestError([FieldProblem("export_id", f"{export_id} has been restarted in the meantime")])


def start_of_retry(status: Status) -> Start:
    """Returns the default step of a retry: the step that failed, or submit if no step failed."""
    steps: dict[str, Start] = {"poll": "poll", "transfer": "transfer"}
    return "submit" if status.error is None else steps.get(status.error.step, "submit")


def differing_fields(request: ExportRequest, stored: bytes | None) -> tuple[str, ...]:
    """Returns the fields in which a request differs from a stored one; none if that one cannot be read."""
    try:
        return () if stored is None else ExportRequest.model_validate_json(stored).differences(request)
    except ValidationError:  # it was accepted by a newer version, or before its kind was removed
        return ()


def wrong_connection(request: ExportRequest, platform: str | None, known: Mapping[str, str]) -> InvalidRequestError:
    """Returns the error for an unknown connection, or for one whose platform does not offer the kind."""
    names = ", ".join(f"{name} ({offered})" for name, offered in sorted(known.items())) or "none is configured"
    if platform is None:
        message = f"unknown connection {request.connection!r}{did_you_mean(request.connection, known)}; known: {names}"
    else:
        needed = f"but {request.kind} needs {request.platform}"
        message = f"{request.connection!r} is of platform {platform}, {needed}; known: {names}"
    return InvalidRequestError([FieldProblem("connection", message)])

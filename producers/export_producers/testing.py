"""`InMemoryExportQueue`: a queue for the tests of services. It needs neither Redis, nor workers, nor a platform.

It passes the same conformance suite as the real queue. The test scripts how each export ends:

    queue = InMemoryExportQueue(then=[Succeeds(["users.csv"]), Fails("platform_error")])
    first = await queue.enqueue(request)
    assert (await queue.wait(first.export_id)).objects[0].file_name == "users.csv"
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

from export_producers.batches import checked_batch
from export_producers.choices import LIST_MAX
from export_producers.client import AnyRequest, EnqueueError
from export_producers.closing import Closing
from export_producers.dry_run import dry_run_of
from export_producers.explain import Facts, explanation
from export_producers.filters import EVERY_EXPORT, ExportFilter, facets_of_status
from export_producers.reasons import Explanation
from export_producers.records import (
    Page,
    Position,
    Start,
    decode_cursor,
    first_status,
    retried,
    retry_call,
    wrong_connection,
)
from export_producers.requesters import LIBRARY
from export_worker.contract.batch import BatchConflictError, checked_batch_name
from export_worker.contract.dry_run import DryRun, Preview
from export_worker.contract.facets import Facet
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, ErrorReport, Phase, Status, StoredObject
from export_worker.contract.trace import TraceContext
from export_worker.errors import ErrorCode, ExportNotFoundError, IdempotencyConflictError, InvalidRequestError


@dataclass(frozen=True, slots=True)
class Succeeds:
    """The export succeeds, with these files, each of `file_bytes` bytes."""

    file_names: Sequence[str] = ("export.csv",)
    file_bytes: int = 1024


@dataclass(frozen=True, slots=True)
class Fails:
    """The export fails in the step `step`."""

    code: ErrorCode | str = ErrorCode.PLATFORM_ERROR
    message: str = "scripted"
    step: Literal["submit", "poll", "transfer"] = "poll"
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Stays:
    """The export runs until it is cancelled or `end` is called."""


End = Succeeds | Fails | Stays
"""How an export ends."""


@dataclass(slots=True)
class _Record:
    request: ExportRequest
    status: Status
    end: End
    trace: TraceContext | None
    cancelled: bool = False
    timeline: list[dict[str, Any]] = field(default_factory=list)
    restarted: tuple[str, Status] | None = None


class InMemoryExportQueue(Closing):
    """See `ExportQueue`. An export advances by one phase with each status that is watched or waited for, not by time.

    Args:
        connections: Connection → platform; without it, a request may name any connection.
        then: How the next exports end, in the order in which they are accepted.
        otherwise: How all later exports end.
    """

    def __init__(
        self, *, connections: Mapping[str, str] | None = None, then: Iterable[End] = (), otherwise: End = Succeeds()
    ) -> None:
        self._connections = connections
        self._then = deque(then)
        self._otherwise = otherwise
        self._records: dict[str, _Record] = {}
        self._batches: dict[str, tuple[list[ExportRequest], list[Accepted]]] = {}
        self._now = datetime.now(UTC)

    async def close(self) -> None:
        """Does nothing: there are no connections."""

    # For tests

    def then(self, *ends: End) -> None:
        """Sets how the next exports end, in the order in which they are accepted."""
        self._then.extend(ends)

    @property
    def requests(self) -> list[ExportRequest]:
        """All accepted requests, oldest first."""
        return [record.request for record in self._records.values()]

    def trace(self, export_id: str) -> TraceContext | None:
        """Returns the trace context with which an export was enqueued."""
        return self._record(export_id).trace

    def end(self, export_id: str, end: End | None = None) -> Status:
        """Ends an export now: as given here, else as scripted. Returns its status."""
        record = self._record(export_id)
        record.end = end or record.end
        while not record.status.phase.terminal:
            before = record.status
            self._advance(record)
            if record.status == before:
                break
        return record.status

    # For services: the interface of `ExportQueue`

    async def known_connections(self) -> dict[str, str]:
        """See `ExportQueue.known_connections`."""
        return dict(self._connections or {})

    async def enqueue(self, request: AnyRequest, *, trace: TraceContext | None = None) -> Accepted:
        """See `ExportQueue.enqueue`."""
        checked = self._checked(request)
        first = self._existing(checked)
        if first is not None:
            return Accepted(export_id=first.status.export_id, phase=first.status.phase, deduplicated=True)
        status = first_status(checked, uuid4().hex, self._tick())
        document = checked.model_dump(mode="json", exclude_none=True)
        beside = {"request": document, "requested_by": LIBRARY, "trace_id": None if trace is None else trace.trace_id}
        status = status.model_copy(update=beside)
        record = _Record(checked, status, self._then.popleft() if self._then else self._otherwise, trace)
        self._records[status.export_id] = record
        _note(record, "accepted")
        return Accepted(export_id=status.export_id, phase=status.phase, deduplicated=False)

    async def enqueue_many(
        self, requests: Iterable[AnyRequest], *, batch: str | None = None, trace: TraceContext | None = None
    ) -> list[Accepted | EnqueueError]:
        """See `ExportQueue.enqueue_many`."""
        if batch is not None:
            return [*await self._enqueue_batch(checked_batch_name(batch), list(requests), trace)]
        results: list[Accepted | EnqueueError] = []
        for request in requests:
            try:
                results.append(await self.enqueue(request, trace=trace))
            except (InvalidRequestError, IdempotencyConflictError) as error:
                results.append(error)
        return results

    async def _enqueue_batch(
        self, name: str, requests: Sequence[AnyRequest], trace: TraceContext | None
    ) -> list[Accepted]:
        def check(request: AnyRequest) -> ExportRequest | InvalidRequestError:
            try:
                return self._checked(request)
            except InvalidRequestError as error:
                return error

        checked = checked_batch(requests, check)
        if name not in self._batches:
            self._batches[name] = checked, [await self.enqueue(each, trace=trace) for each in checked]
        first, accepted = self._batches[name]
        if first != checked:
            raise BatchConflictError(name, "was enqueued before with other requests; use a new name")
        return accepted

    async def dry_run(self, request: AnyRequest, platform: Preview | None = None) -> DryRun:
        """See `ExportQueue.dry_run`."""
        checked = self._checked(request)
        first = self._existing(checked)
        statuses = [record.status for record in reversed(self._records.values()) if not record.status.phase.terminal]
        matching = ExportFilter(connection=checked.connection, kind=checked.kind).matches
        page = Page([status for status in statuses if matching(status)], None)
        return dry_run_of(checked, None if first is None else first.status, [page], platform)

    async def status(self, export_id: str) -> Status:
        """See `ExportQueue.status`."""
        return self._record(export_id).status

    async def list_exports(self, phase: Phase | None = None, limit: int = 50) -> list[Status]:
        """See `ExportQueue.list_exports`."""
        return (await self.page(phase, limit)).statuses

    async def page(
        self,
        phase: Phase | None = None,
        limit: int = 50,
        cursor: str | None = None,
        *,
        where: ExportFilter = EVERY_EXPORT,
    ) -> Page:
        """See `ExportQueue.page`. No export waits for a slot or is slow: there is no platform."""
        where = where if phase is None else replace(where, phase=phase)
        limit = max(1, min(limit, LIST_MAX))
        after = None if cursor is None else decode_cursor(cursor).created_ms
        every = [record.status for record in reversed(self._records.values()) if where.matches(record.status)]
        every = every if where.state is None else []
        matching = [status for status in every if after is None or epoch_ms(status.created_at) < after]
        page = matching[:limit]
        more = len(matching) > limit
        cursor = Position(0, epoch_ms(page[-1].created_at), page[-1].export_id).cursor if more else None
        return Page(page, cursor, len(every))

    async def values_in_use(self, facet: Facet) -> list[str]:
        """See `ExportQueue.values_in_use`."""
        statuses = [record.status for record in self._records.values()]
        facets = [facets_of_status(status) for status in statuses]
        return sorted({found[facet] for found in facets if facet in found})

    async def timeline(self, export_id: str) -> list[dict[str, Any]]:
        """See `ExportQueue.timeline`."""
        record = self._records.get(export_id)
        return [] if record is None else list(record.timeline)

    async def watch(self, export_id: str, interval_s: float = 0.0) -> AsyncGenerator[Status, None]:
        """See `ExportQueue.watch`."""
        record = self._record(export_id)
        last: Status | None = None
        while True:
            if record.status != last:
                last = record.status
                yield last
            if last.phase.terminal:
                return
            self._advance(record)
            # An export that stays in its phase is read again and again. The pause prevents a busy loop.
            await asyncio.sleep(interval_s if record.status != last else max(interval_s, 0.01))

    async def wait(
        self, export_id: str, timeout_s: float | None = None, *, on_change: Callable[[Status], None] | None = None
    ) -> Status:
        """See `ExportQueue.wait`."""
        async with asyncio.timeout(timeout_s), aclosing(self.watch(export_id)) as statuses:
            async for status in statuses:
                if on_change is not None:
                    on_change(status)
                if status.phase.terminal:
                    return status
        raise ExportNotFoundError(export_id)

    async def cancel(self, export_id: str) -> Phase:
        """See `ExportQueue.cancel`."""
        record = self._record(export_id)
        record.cancelled = not record.status.phase.terminal
        return record.status.phase

    async def retry(self, export_id: str, start: Start | None = None, *, ended_at: datetime | None = None) -> Status:
        """See `ExportQueue.retry`. The export then ends as the next accepted export would."""
        record = self._record(export_id)
        call = None if ended_at is None else retry_call(start, ended_at)
        if record.restarted is not None and record.restarted[0] == call:
            return record.restarted[1]
        start, record.status = retried(record.status, start, self._tick(), ended_at)
        if call is not None:
            record.restarted = call, record.status
        record.end = self._then.popleft() if self._then else self._otherwise
        _note(record, f"retried from {start}")
        return record.status

    async def explain(self, export_id: str) -> str:
        """See `ExportQueue.explain`."""
        return (await self.explanation(export_id)).text()

    async def explanation(self, export_id: str) -> Explanation:
        """See `ExportQueue.explanation`."""
        record = self._record(export_id)
        return explanation(
            Facts(
                status=record.status,
                now=self._now,
                due_ms=epoch_ms(record.status.updated_at),
                claimed=False,
                cancel_requested=record.cancelled,
                parked=None,
                waiting=None,
                offered_to_others=False,
                slots=0,
                platform=None,
                kind=None,
            )
        )

    # The work of workers

    def _record(self, export_id: str) -> _Record:
        record = self._records.get(export_id)
        if record is None:
            raise ExportNotFoundError(export_id)
        return record

    def _checked(self, request: AnyRequest) -> ExportRequest:
        checked = request if isinstance(request, ExportRequest) else parse_request(request)
        if self._connections is not None:
            platform = self._connections.get(checked.connection)
            if platform != checked.platform:
                raise wrong_connection(checked, platform, self._connections)
        return checked

    def _existing(self, request: ExportRequest) -> _Record | None:
        """Returns the export that has the idempotency key of a request."""
        key = request.idempotency_key
        first = next(
            (record for record in self._records.values() if key and record.request.idempotency_key == key), None
        )
        if first is not None and first.request.fingerprint() != request.fingerprint():
            raise IdempotencyConflictError(first.status.export_id, first.request.differences(request))
        return first

    def _tick(self) -> datetime:
        """Advances the queue's clock by 1 ms, so that no two times are equal, and returns the new time."""
        self._now += timedelta(milliseconds=1)
        return self._now

    def _advance(self, record: _Record) -> None:
        now, change = self._tick(), _next(record)
        if not change:
            return
        ended = change["phase"].terminal
        times = {"updated_at": now, "due_at": None if ended else now, "finished_at": now if ended else None}
        record.status = record.status.model_copy(update=times | change)
        record.cancelled = record.cancelled and not ended
        _note(record, "scripted")


def _next(record: _Record) -> dict[str, Any]:
    """Returns the fields that change when the export advances by one phase; none if it stays."""
    status = record.status
    if record.cancelled:
        return {"phase": Phase.CANCELLED}
    match record.end:
        case Fails(step=step) as end if step == _STEP[status.phase]:
            return _failure(end)
        case Succeeds() as end if status.phase is Phase.TRANSFERRING:
            return _success(status, end)
        case Stays() if status.phase is not Phase.QUEUED:
            return {}
        case _:
            return _next_phase(status)


_STEP = {Phase.QUEUED: "submit", Phase.RUNNING: "poll", Phase.TRANSFERRING: "transfer"}


def _next_phase(status: Status) -> dict[str, Any]:
    if status.phase is not Phase.QUEUED:
        return {"phase": Phase.TRANSFERRING, "platform_stage": "FINISH"}
    counters = status.counters.model_copy(update={"submits": status.counters.submits + 1})
    operation_id = f"operation-{status.export_id[:8]}"
    return {"phase": Phase.RUNNING, "counters": counters, "operation_id": operation_id, "platform_stage": "RUNNING"}


def _failure(end: Fails) -> dict[str, Any]:
    error = ErrorReport(code=end.code, message=end.message, step=end.step, retryable=end.retryable)
    return {"phase": Phase.FAILED, "error": error}


def _success(status: Status, end: Succeeds) -> dict[str, Any]:
    prefix = f"{status.kind}/{status.export_id}"
    stored = [
        StoredObject(
            uri=f"s3://in-memory/{prefix}/{name}",
            bucket="in-memory",
            key=f"{prefix}/{name}",
            bytes=end.file_bytes,
            etag="0" * 32,
            checksum="CRC64NVME:AAAAAAAAAAA=",
            file_name=name,
        )
        for name in end.file_names
    ]
    return {"phase": Phase.SUCCEEDED, "objects": stored, "manifest": f"s3://in-memory/{prefix}/_manifest.json"}


def _note(record: _Record, note: str) -> None:
    at = isoformat(record.status.updated_at)
    record.timeline.append({"at": at, "phase": record.status.phase, "step": len(record.timeline), "note": note})

"""`ExportQueue`: how a service asks for exports and follows them."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4

from redis.exceptions import RedisError

from export_producers.explain import Facts, explanation
from export_producers.lua import script
from export_worker.connect import close_redis, commands, open_redis, redis_unreachable
from export_worker.contract.keys import ARQ_JOB_PREFIX, JOB_TTL_MS, Keys, job_payload
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Phase, Progress, Status
from export_worker.contract.validate import parse_request
from export_worker.errors import (
    ExportNotFoundError,
    FieldProblem,
    IdempotencyConflictError,
    InvalidRequestError,
)

Start = Literal["submit", "poll", "transfer"]

LIST_MAX = 1000
"""Statuses read in one call, so that a listing never outgrows memory."""

WATCH_INTERVAL_S = 0.2
"""How often a waiting producer looks: quick for people, cheap for Redis (one HMGET)."""


class ExportQueue:
    """Enqueues exports and follows them. Use as an async context manager, or call `close`.

    Args:
        redis_url: `redis://`, `rediss://` or `unix://`.
        namespace: As the workers have it.
        connections: Connection → platform, if the caller knows them. Without it the connections that workers have
            announced are what a request may name.

    Every method raises `ServiceUnreachableError` when Redis cannot be reached.
    """

    def __init__(
        self, redis_url: str, *, namespace: str = "exports", connections: Mapping[str, str] | None = None
    ) -> None:
        self._url = redis_url
        self._keys = Keys(namespace)
        self._connections = connections
        client = open_redis(redis_url)
        self._client = client
        self._redis = commands(client)
        self._enqueue, self._cancel, self._retry = (
            client.register_script(script(name)) for name in ("enqueue", "cancel", "retry")
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to Redis."""
        await close_redis(self._client)

    async def known_connections(self) -> dict[str, str]:
        """Connection → platform: those that the caller gave, else those that workers have announced."""
        if self._connections is not None:
            return dict(self._connections)
        with _reachable(self._url):
            announced = await self._redis.hgetall(self._keys.connections)
        return {name.decode(): platform.decode() for name, platform in announced.items()}

    async def enqueue(self, request: ExportRequest | str | bytes) -> Accepted:
        """Accept one export. Once this has returned, the export is not lost.

        Args:
            request: A request, or its JSON.

        Raises:
            InvalidRequestError: A field is wrong, or no worker knows the connection; nothing was enqueued.
            IdempotencyConflictError: The idempotency key stands for another request.
        """
        if not isinstance(request, ExportRequest):
            request = parse_request(request)
        self._check_connection(request)
        await self._check_sinks(request)
        export_id, now = uuid4().hex, datetime.now(UTC)
        with _reachable(self._url):
            answer = await self._enqueue(
                keys=self._enqueue_keys(request, export_id), args=self._enqueue_args(request, export_id, now)
            )
        verdict, said = (item.decode() for item in answer)
        if verdict == "conflict":
            raise IdempotencyConflictError(said)
        if verdict == "connection":
            known = await self.known_connections()
            raise InvalidRequestError([_wrong_connection(request, said or None, known)])
        if verdict == "duplicate":
            return Accepted(export_id=said, phase=(await self.status(said)).phase, deduplicated=True)
        return Accepted(export_id=export_id, phase=Phase.QUEUED, deduplicated=False)

    async def status(self, export_id: str) -> Status:
        """The status of one export.

        Raises:
            ExportNotFoundError: No such export.
        """
        with _reachable(self._url):
            status, progress = await self._redis.hmget(self._keys.export(export_id), "status", "progress")
        if status is None:
            raise ExportNotFoundError(export_id)
        return _status(status, progress)

    async def list_exports(self, phase: Phase | None = None, limit: int = 50) -> list[Status]:
        """The newest exports first, of one phase or of all; at most `limit` (1 to 1000)."""
        index = self._keys.created if phase is None else self._keys.phase(phase)
        with _reachable(self._url):
            ids = await self._redis.zrevrange(index, 0, min(limit, LIST_MAX) - 1)
            async with self._client.pipeline(transaction=False) as pipe:
                for item in ids:
                    pipe.hmget(self._keys.export(item.decode()), ["status", "progress"])
                found = await pipe.execute()
        return [_status(status, progress) for status, progress in found if status is not None]

    async def timeline(self, export_id: str) -> list[dict[str, Any]]:
        """Every transition of one export, oldest first: `at`, `phase`, `step`, `note`."""
        with _reachable(self._url):
            entries = await self._redis.lrange(self._keys.timeline(export_id), 0, -1)
        return [json.loads(entry) for entry in entries]

    async def watch(self, export_id: str, interval_s: float = WATCH_INTERVAL_S) -> AsyncGenerator[Status, None]:
        """The status now, then each change of it, the terminal one last.

        Raises:
            ExportNotFoundError: No such export.
        """
        seen: Status | None = None
        while True:
            status = await self.status(export_id)
            if status != seen:
                yield status
                seen = status
            if status.phase.terminal:
                return
            await asyncio.sleep(interval_s)

    async def wait(self, export_id: str, timeout_s: float | None = None) -> Status:
        """The status once the export has reached a terminal phase.

        Raises:
            ExportNotFoundError: No such export.
            TimeoutError: It is still open after `timeout_s` seconds. The export goes on.
        """
        async with asyncio.timeout(timeout_s):
            async for status in self.watch(export_id):
                if status.phase.terminal:
                    return status
        raise ExportNotFoundError(export_id)

    async def cancel(self, export_id: str) -> Phase:
        """Ask for an export's end. It ends as soon as whoever has it hears it, within seconds.

        Returns:
            The phase in which it was; a terminal one stays as it is.

        Raises:
            ExportNotFoundError: No such export.
        """
        keys = self._keys
        with _reachable(self._url):
            verdict, phase = await self._cancel(
                keys=[keys.export(export_id), keys.open, keys.queue("control"), keys.queue("transfer")],
                args=[export_id, epoch_ms(datetime.now(UTC)), keys.prefix],
            )
        if verdict == b"gone":
            raise ExportNotFoundError(export_id)
        return Phase(phase.decode())

    async def retry(self, export_id: str, start: Start | None = None) -> Status:
        """Set an ended export going again; its next end is announced by an event of its own.

        Args:
            start: submit, poll or transfer; by default the step that failed. What the record no longer has is done
                again: without an operation it begins with the submit, without files with the poll.

        Returns:
            The status now.

        Raises:
            ExportNotFoundError: No such export.
            InvalidRequestError: The export has not ended.
        """
        status = await self.status(export_id)
        if not status.phase.terminal:
            problem = FieldProblem("export_id", f"{export_id} is {status.phase}; only an ended export can be retried")
            raise InvalidRequestError([problem])
        start = start or _failed_step(status)
        phase = Phase.QUEUED if start == "submit" or status.operation_id is None else Phase.RUNNING
        now = datetime.now(UTC)
        again = status.model_copy(
            update={"phase": phase, "updated_at": now, "due_at": now, "finished_at": None, "error": None}
        )
        with _reachable(self._url):
            step, request = await self._redis.hmget(self._keys.export(export_id), "step", "request")
            if step is None or request is None:
                raise ExportNotFoundError(export_id)
            key = ExportRequest.model_validate_json(request).idempotency_key or ""
            done = await self._retry(
                keys=self._retry_keys(status, phase, key), args=self._retry_args(again, int(step), start, now)
            )
        # Somebody else was quicker: what stands there now is theirs.
        return again if done else await self.status(export_id)

    async def explain(self, export_id: str) -> str:
        """One sentence: why the export waits and until when, or how it ended.

        Raises:
            ExportNotFoundError: No such export.
        """
        status = await self.status(export_id)
        keys, connection = self._keys, status.connection
        queue = keys.queue("transfer" if status.phase is Phase.TRANSFERRING else "control")
        with _reachable(self._url):
            step, claims, released, cancel = await self._redis.hmget(
                keys.export(export_id), "step", "claims", "released", "cancel"
            )
            job_id = keys.job_id(export_id, int(step or 0))
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.zscore(queue, job_id)
                pipe.zrank(keys.parked(connection), job_id)
                pipe.zcard(keys.slots(connection))
                pipe.hmget(keys.breaker(connection), ["failures", "until"])
                due_ms, parked, slots, (failures, until_ms) = await pipe.execute()
        return explanation(
            Facts(
                status=status,
                now=datetime.now(UTC),
                due_ms=due_ms,
                held=claims is not None and released is None,
                cancelled=cancel is not None,
                parked=parked,
                slots=slots,
                failures=int(failures or 0),
                paused_until_ms=float(until_ms) if until_ms else None,
            )
        )

    def _retry_keys(self, status: Status, phase: Phase, idempotency_key: str) -> list[str]:
        keys = self._keys
        return [
            keys.export(status.export_id),
            keys.timeline(status.export_id),
            keys.open,
            keys.ended,
            keys.phase(status.phase),
            keys.phase(phase),
            keys.queue("control"),
            keys.dedupe(idempotency_key),
        ]

    def _retry_args(self, status: Status, step: int, start: Start, now: datetime) -> list[str | int]:
        now_ms = epoch_ms(now)
        return [
            status.export_id,
            step,
            status.model_dump_json(),
            status.phase,
            start,
            now_ms,
            epoch_ms(status.created_at),
            self._keys.job_id(status.export_id, step),
            job_payload(status.export_id, step, now_ms),
            JOB_TTL_MS,
            self._keys.wake("control"),
        ]

    def _check_connection(self, request: ExportRequest) -> None:
        if self._connections is None:
            return
        platform = self._connections.get(request.connection)
        if platform != request.platform:
            raise InvalidRequestError([_wrong_connection(request, platform, self._connections)])

    async def _check_sinks(self, request: ExportRequest) -> None:
        """Workers announce their sinks; as long as none has, whatever is named may still come."""
        if request.notify is None:
            return
        with _reachable(self._url):
            known = sorted(name.decode() for name in await self._redis.hgetall(self._keys.sinks))
        unknown = [name for name in request.notify if name not in known]
        if known and unknown:
            message = f"unknown sink {unknown[0]!r}; known: {', '.join(known)}"
            raise InvalidRequestError([FieldProblem("notify", message)])

    def _enqueue_keys(self, request: ExportRequest, export_id: str) -> list[str]:
        keys = self._keys
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

    def _enqueue_args(self, request: ExportRequest, export_id: str, now: datetime) -> list[str | int]:
        now_ms = epoch_ms(now)
        return [
            export_id,
            request.model_dump_json(exclude_none=True),
            _first_status(request, export_id, now).model_dump_json(),
            now_ms,
            self._keys.job_id(export_id, 0),
            job_payload(export_id, 0, now_ms),
            JOB_TTL_MS,
            json.dumps({"at": isoformat(now), "phase": Phase.QUEUED, "step": 0, "note": "accepted"}),
            request.fingerprint(),
            request.connection,
            request.platform,
            request.kind,
            self._keys.wake("control"),
        ]


def _failed_step(status: Status) -> Start:
    """Where a retry begins if nobody says: at the step that failed, and at the beginning after a success."""
    steps: dict[str, Start] = {"poll": "poll", "transfer": "transfer"}
    return "submit" if status.error is None else steps.get(status.error.step, "submit")


def _first_status(request: ExportRequest, export_id: str, now: datetime) -> Status:
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


def _status(status: bytes, progress: bytes | None) -> Status:
    told = Status.model_validate_json(status)
    if progress is None:
        return told
    return told.model_copy(update={"progress": Progress.model_validate_json(progress)})


def _wrong_connection(request: ExportRequest, platform: str | None, known: Mapping[str, str]) -> FieldProblem:
    names = ", ".join(f"{name} ({kind})" for name, kind in sorted(known.items())) or "none is configured"
    if platform is None:
        return FieldProblem("connection", f"unknown connection {request.connection!r}; known: {names}")
    return FieldProblem(
        "connection",
        f"{request.connection!r} is of platform {platform}, but {request.kind} needs {request.platform}; "
        f"known: {names}",
    )


@contextmanager
def _reachable(redis_url: str) -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise redis_unreachable(redis_url, error) from None

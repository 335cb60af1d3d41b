"""`ExportQueue`: how a service asks for exports and follows them."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from redis.exceptions import RedisError

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
        self._enqueue = client.register_script((files("export_producers") / "enqueue.lua").read_text(encoding="utf-8"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to Redis."""
        await close_redis(self._client)

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
        export_id, now = uuid4().hex, datetime.now(UTC)
        with _reachable(self._url):
            answer = await self._enqueue(
                keys=self._enqueue_keys(request, export_id), args=self._enqueue_args(request, export_id, now)
            )
        verdict, said = (item.decode() for item in answer)
        if verdict == "conflict":
            raise IdempotencyConflictError(said)
        if verdict == "connection":
            raise InvalidRequestError([await self._connection_problem(request, said)])
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

    def _check_connection(self, request: ExportRequest) -> None:
        if self._connections is None:
            return
        platform = self._connections.get(request.connection)
        if platform != request.platform:
            raise InvalidRequestError([_wrong_connection(request, platform, self._connections)])

    async def _connection_problem(self, request: ExportRequest, platform: str) -> FieldProblem:
        announced = await self._redis.hgetall(self._keys.connections)
        known = {name.decode(): kind.decode() for name, kind in announced.items()}
        return _wrong_connection(request, platform or None, known)

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

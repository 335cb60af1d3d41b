"""`ExportQueue`: how a service asks for exports and follows them."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from redis.exceptions import NoScriptError

from export_producers.explain import Facts, explanation
from export_producers.lua import script
from export_producers.records import (
    Offer,
    Page,
    Place,
    Restart,
    Start,
    place_of,
    read_status,
    retried,
    wrong_connection,
)
from export_worker.contract.model import epoch_ms
from export_worker.contract.parsing import parse_request
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Phase, Status
from export_worker.contract.trace import TraceContext
from export_worker.errors import ExportNotFoundError, IdempotencyConflictError, InvalidRequestError
from export_worker.redis.client import close_redis, commands, open_redis, translate_redis_errors
from export_worker.redis.clock import SharedClock, set_clock
from export_worker.redis.scripts import Script, decode_document, encode_arguments

AnyRequest = ExportRequest | str | bytes
"""A request, or its JSON."""
EnqueueError = InvalidRequestError | IdempotencyConflictError
"""Why a request was not accepted."""

BATCH_MAX = 1000
"""Requests in one round trip: some hundred milliseconds of Redis's time, within which it hears nobody else."""

LIST_MAX = 1000
"""Statuses read in one call, so that a listing never outgrows memory."""

CLOCK_S = 60.0
"""How long the clock is trusted before Redis is asked again: no host's clock strays by a millisecond in that."""

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
        self._clock, self._hear_again_s = SharedClock(), 0.0
        client = open_redis(redis_url)
        self._client = client
        self._redis = commands(client)
        self._enqueue, self._cancel, self._retry = (
            Script(client, script(name)) for name in ("enqueue", "cancel", "retry")
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
        async with translate_redis_errors(self._url):
            announced = await self._redis.hgetall(self._keys.connections)
        return {name.decode(): platform.decode() for name, platform in announced.items()}

    async def enqueue(self, request: AnyRequest, *, trace: TraceContext | None = None) -> Accepted:
        """Accept one export. Once this has returned, the export is not lost.

        Args:
            request: A request, or its JSON.
            trace: Of whoever asks; the worker's spans and the completion event go on with it.

        Raises:
            InvalidRequestError: A field is wrong, or no worker knows the connection; nothing was enqueued.
            IdempotencyConflictError: The idempotency key stands for another request.
        """
        (answer,) = await self._enqueue_all([request], trace)
        if isinstance(answer, Accepted):
            return answer
        raise answer

    async def enqueue_many(
        self, requests: Iterable[AnyRequest], *, trace: TraceContext | None = None
    ) -> list[Accepted | EnqueueError]:
        """Accept many exports, each for itself, in one round trip for every thousand.

        Returns:
            For each request, in order, what `enqueue` would have returned or raised.
        """
        given = list(requests)
        batches = [given[first : first + BATCH_MAX] for first in range(0, len(given), BATCH_MAX)]
        return [answer for batch in batches for answer in await self._enqueue_all(batch, trace)]

    async def _enqueue_all(
        self, requests: Sequence[AnyRequest], trace: TraceContext | None
    ) -> list[Accepted | EnqueueError]:
        checked = [self._checked(request) for request in requests]
        if not any(isinstance(each, ExportRequest) for each in checked):
            return [each for each in checked if isinstance(each, InvalidRequestError)]
        now = await self._now()
        offers = await self._with_known_sinks(
            [
                each if isinstance(each, InvalidRequestError) else Offer(each, uuid4().hex, now, trace)
                for each in checked
            ]
        )
        said = iter(await self._send([offer for offer in offers if isinstance(offer, Offer)]))
        return [await self._answer(offer, next(said)) if isinstance(offer, Offer) else offer for offer in offers]

    def _checked(self, request: AnyRequest) -> ExportRequest | InvalidRequestError:
        try:
            checked = request if isinstance(request, ExportRequest) else parse_request(request)
        except InvalidRequestError as error:
            return error
        if self._connections is not None:
            platform = self._connections.get(checked.connection)
            if platform != checked.platform:
                return wrong_connection(checked, platform, self._connections)
        return checked

    async def _now(self) -> datetime:
        """The time that workers have, too. Redis tells it now and then."""
        asked_s = time.monotonic()
        if asked_s >= self._hear_again_s:
            async with translate_redis_errors(self._url):
                await set_clock(self._clock, self._client)
            self._hear_again_s = asked_s + CLOCK_S
        return self._clock()

    async def _with_known_sinks(
        self, offers: Sequence[Offer | InvalidRequestError]
    ) -> Sequence[Offer | InvalidRequestError]:
        """Workers announce their sinks; as long as none has, whatever is named may still come."""
        if all(isinstance(offer, InvalidRequestError) or offer.request.notify is None for offer in offers):
            return offers
        async with translate_redis_errors(self._url):
            announced = await self._redis.hgetall(self._keys.sinks)
        known = sorted(name.decode() for name in announced)
        return [offer.naming(known) if isinstance(offer, Offer) else offer for offer in offers]

    async def _send(self, offers: Sequence[Offer]) -> list[dict[str, Any]]:
        """Returns the script's answer to each offer. A Redis that does not have the script yet gets it first."""
        calls = [(offer.keys(self._keys), offer.arguments(self._keys)) for offer in offers]
        async with translate_redis_errors(self._url):
            if len(calls) == 1:
                ((keys, arguments),) = calls
                return [await self._enqueue.document(keys, arguments)]
            try:
                return await self._pipelined(calls)
            except NoScriptError:
                # Nothing of it was done; and what was done would not be done twice, for the ids stay.
                await self._client.script_load(self._enqueue.source)
                return await self._pipelined(calls)

    async def _pipelined(self, calls: Sequence[tuple[list[str], dict[str, object]]]) -> list[dict[str, Any]]:
        async with self._client.pipeline(transaction=False) as pipe:
            for keys, arguments in calls:
                pipe.evalsha(self._enqueue.sha, len(keys), *keys, encode_arguments(arguments))
            return [decode_document(answer) for answer in await pipe.execute()]

    async def _answer(self, offer: Offer, answer: Mapping[str, Any]) -> Accepted | EnqueueError:
        verdict = answer["verdict"]
        if verdict == "conflict":
            return IdempotencyConflictError(answer["export_id"])
        if verdict == "wrong_connection":
            return wrong_connection(offer.request, answer.get("platform"), await self.known_connections())
        phase = Phase(answer["phase"])
        return Accepted(export_id=answer["export_id"], phase=phase, deduplicated=verdict == "duplicate")

    async def status(self, export_id: str) -> Status:
        """The status of one export.

        Raises:
            ExportNotFoundError: No such export.
        """
        async with translate_redis_errors(self._url):
            status, progress = await self._redis.hmget(self._keys.export(export_id), "status", "progress")
        if status is None:
            raise ExportNotFoundError(export_id)
        return read_status(status, progress)

    async def list_exports(self, phase: Phase | None = None, limit: int = 50) -> list[Status]:
        """The newest exports first, of one phase or of all; at most `limit` (1 to 1000)."""
        return (await self.page(phase, limit)).statuses

    async def page(self, phase: Phase | None = None, limit: int = 50, cursor: str | None = None) -> Page:
        """As `list_exports`, and on from where an earlier page ended; exports that come meanwhile move nothing.

        Raises:
            InvalidRequestError: The cursor is none of ours.
        """
        index = self._keys.created if phase is None else self._keys.phase(phase)
        limit = max(1, min(limit, LIST_MAX))
        async with translate_redis_errors(self._url):
            found = await self._after(index, limit + 1, None if cursor is None else place_of(cursor))
            async with self._client.pipeline(transaction=False) as pipe:
                for place in found[:limit]:
                    pipe.hmget(self._keys.export(place.export_id), ["status", "progress"])
                records = await pipe.execute()
        statuses = [read_status(status, progress) for status, progress in records if status is not None]
        return Page(statuses, found[limit - 1].cursor if len(found) > limit else None)

    async def _after(self, index: str, most: int, place: Place | None) -> list[Place]:
        """What stands in an index behind a place. Equal times stand in the order of their ids."""
        if place is None:
            return _places(await self._client.zrevrange(index, 0, most - 1, withscores=True))
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.zrevrangebyscore(index, place.created_ms, place.created_ms, withscores=True)
            pipe.zrevrangebyscore(index, f"({place.created_ms}", "-inf", start=0, num=most, withscores=True)
            same, older = await pipe.execute()
        return [*(other for other in _places(same) if other.export_id < place.export_id), *_places(older)][:most]

    async def timeline(self, export_id: str) -> list[dict[str, Any]]:
        """Every transition of one export, oldest first: `at`, `phase`, `step`, `note`."""
        async with translate_redis_errors(self._url):
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

    async def wait(
        self, export_id: str, timeout_s: float | None = None, *, on_change: Callable[[Status], None] | None = None
    ) -> Status:
        """The status once the export has reached a terminal phase.

        Args:
            on_change: Called with the status now, then with each change of it.

        Raises:
            ExportNotFoundError: No such export.
            TimeoutError: It is still open after `timeout_s` seconds. The export goes on.
        """
        async with asyncio.timeout(timeout_s), aclosing(self.watch(export_id)) as statuses:
            async for status in statuses:
                if on_change is not None:
                    on_change(status)
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
        async with translate_redis_errors(self._url):
            answer = await self._cancel.document(
                [keys.export(export_id), keys.open, keys.queue("control"), keys.queue("transfer")],
                {"export_id": export_id, "now_ms": epoch_ms(await self._now()), "prefix": keys.prefix},
            )
        if answer["verdict"] == "not_found":
            raise ExportNotFoundError(export_id)
        return Phase(answer["phase"])

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
        status, now = await self.status(export_id), await self._now()
        start, again = retried(status, start, now)
        async with translate_redis_errors(self._url):
            step, request = await self._redis.hmget(self._keys.export(export_id), "step", "request")
            if step is None or request is None:
                raise ExportNotFoundError(export_id)
            key = ExportRequest.model_validate_json(request).idempotency_key or ""
            restart = Restart(status, again, int(step), start, now)
            answer = await self._retry.word(restart.keys(self._keys, key), restart.arguments(self._keys))
        # Somebody else was quicker: what stands there now is theirs.
        return again if answer == "restarted" else await self.status(export_id)

    async def explain(self, export_id: str) -> str:
        """One sentence: why the export waits and until when, or how it ended.

        Raises:
            ExportNotFoundError: No such export.
        """
        status = await self.status(export_id)
        keys, connection = self._keys, status.connection
        role: Role = "transfer" if status.phase is Phase.TRANSFERRING else "control"
        async with translate_redis_errors(self._url):
            step, claims, released, cancel = await self._redis.hmget(
                keys.export(export_id), "step", "claims", "released", "cancel"
            )
            job_id = keys.job_id(export_id, int(step or 0))
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.zscore(keys.queue(role), job_id)
                pipe.zrank(keys.parked(connection), job_id)
                pipe.zrank(keys.waiting(connection), job_id)
                pipe.zscore(keys.aside(role), job_id)
                pipe.zcard(keys.slots(connection))
                pipe.hmget(keys.breaker(connection, role), ["failures", "until"])
                due_ms, parked, waiting, aside, slots, (failures, until_ms) = await pipe.execute()
        return explanation(
            Facts(
                status=status,
                now=await self._now(),
                due_ms=due_ms,
                held=claims is not None and released is None,
                cancelled=cancel is not None,
                parked=parked,
                waiting=waiting,
                aside=aside is not None,
                slots=slots,
                failures=int(failures or 0),
                paused_until_ms=float(until_ms) if until_ms else None,
            )
        )


def _places(scored: Iterable[tuple[bytes, float]]) -> list[Place]:
    return [Place(int(created_ms), export_id.decode()) for export_id, created_ms in scored]

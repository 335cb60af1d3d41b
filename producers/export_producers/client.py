"""`ExportQueue`: the queue through which a service requests exports and follows them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4

from export_producers.activity import ActivityLog
from export_producers.batches import Batches, BatchRequester
from export_producers.choices import LIST_MAX
from export_producers.closing import Closing
from export_producers.dry_run import dry_run_of
from export_producers.enqueuing import send_offers, with_checked_sinks
from export_producers.explain import explanation
from export_producers.facts import read_facts
from export_producers.filters import EVERY_EXPORT, OPEN_PHASES, ExportFilter
from export_producers.identities import MessageIdentity
from export_producers.lua import script
from export_producers.paging import Listing
from export_producers.reads.batched import BatchedRead
from export_producers.reads.joined import JoinedCalls
from export_producers.reads.reads import Reads
from export_producers.reasons import Explanation
from export_producers.records import (
    Offer,
    Page,
    Start,
    wrong_connection,
)
from export_producers.requesters import LIBRARY
from export_producers.restarting import Restarts
from export_producers.statuses import read_conflict, read_existing, read_statuses, read_timeline
from export_producers.storage import Storage
from export_worker.contract.dry_run import DryRun, Preview
from export_worker.contract.facets import Facet
from export_worker.contract.model import epoch_ms
from export_worker.contract.parsing import parse_request
from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Phase, Status
from export_worker.contract.trace import TraceContext
from export_worker.errors import ExportNotFoundError, IdempotencyConflictError, InvalidRequestError
from export_worker.redis.client import check_writes, close_redis, commands, open_redis, translate_redis_errors
from export_worker.redis.scripts import Script

AnyRequest = ExportRequest | str | bytes
"""A request, or a request as JSON text."""
EnqueueError = InvalidRequestError | IdempotencyConflictError
"""Why a request was not accepted."""

ENQUEUE_PIECE = 1000
"""Requests in one round trip. They take Redis some hundred milliseconds, in which it serves no other client."""

WATCH_INTERVAL_S = 0.2
"""Interval at which a waiting producer reads the status: fast enough for people, and cheap for Redis (one HMGET)."""


class ExportQueue(Closing):
    """Enqueues exports and follows them. Use it as an async context manager, or call `close` at the end.

    Args:
        redis_url: `redis://`, `rediss://` or `unix://`.
        namespace: The namespace of the workers. With a part in braces, Redis is a cluster.
        connections: Connection → platform, if the caller knows them. Otherwise a request may name the connections that
            workers have announced.
        requested_by: The name of the service that enqueues. Each name has an index, so it is no end user.

    Every method raises `ServiceUnreachableError` if Redis is unreachable or refuses a command.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        namespace: str = "exports",
        connections: Mapping[str, str] | None = None,
        requested_by: str = LIBRARY,
    ) -> None:
        self._url = redis_url
        self._keys = Keys(namespace)
        self._connections = connections
        self._requested_by = requested_by
        self._client = client = open_redis(redis_url, home=self._keys.home)
        self._redis = commands(client)
        self.storage = Storage(client, self._keys, redis_url)
        self._offering = JoinedCalls(self._send)
        self._statuses = BatchedRead(self._read_statuses)
        self._listing = Listing(self.storage)
        self.activity = ActivityLog(self.storage)
        self.reads = Reads(self.storage)
        self.batches = Batches(self, self._checked, self._send)
        self._restarts = Restarts(self.storage)
        self._enqueue, self._cancel = (Script(client, script(name)) for name in ("enqueue", "cancel"))

    async def close(self) -> None:
        """Closes the connections to Redis."""
        await close_redis(self._client)

    async def check(self) -> None:
        """Checks that Redis accepts writes: that an export could be enqueued now."""
        async with translate_redis_errors(self._url):
            await check_writes(self._client, self._keys)

    async def known_connections(self) -> dict[str, str]:
        """Returns connection → platform: the connections that the caller passed, else those that workers announced."""
        return await self.reads.connections() if self._connections is None else dict(self._connections)

    async def enqueue(
        self,
        request: AnyRequest,
        *,
        trace: TraceContext | None = None,
        message: MessageIdentity | None = None,
        requested_by: str | None = None,
        owner: str | None = None,
    ) -> Accepted:
        """Enqueues one export. Once this has returned, the export is not lost.

        Args:
            trace: The caller's trace context. The worker's spans and the completion event continue this trace.
            message: The message of a trigger that holds the request. The same message with the same request returns
                the first export, as for an idempotency key. Without effect if the request has such a key.
            requested_by: Who requests this export; by default the service that the queue was opened for.
            owner: Whose idempotency key the request has. Keys of different owners are different keys.

        Raises:
            InvalidRequestError: A field is invalid, or no worker has the connection. Nothing was enqueued.
            IdempotencyConflictError: The idempotency key belongs to another request. Nothing was enqueued.
        """
        offer = partial(
            Offer, trace=trace, message=message, owner=owner, requested_by=requested_by or self._requested_by
        )
        (result,) = await self._enqueue_all([request], offer)
        if isinstance(result, Accepted):
            return result
        raise result

    async def enqueue_many(
        self, requests: Iterable[AnyRequest], *, batch: str | None = None, trace: TraceContext | None = None
    ) -> list[Accepted | EnqueueError]:
        """Enqueues many exports independently of each other, with one round trip for each 1,000.

        Args:
            batch: The name of a batch of these exports, which all or none are accepted for. See `Batches.enqueue`.

        Returns:
            For each request, in order, what `enqueue` would have returned or raised.
        """
        every = list(requests)
        if batch is not None:
            return [*await self.batches.enqueue(batch, every, BatchRequester(self._requested_by, trace))]
        pieces = [every[first : first + ENQUEUE_PIECE] for first in range(0, len(every), ENQUEUE_PIECE)]
        offer = partial(Offer, trace=trace, requested_by=self._requested_by)
        return [result for piece in pieces for result in await self._enqueue_all(piece, offer)]

    async def _enqueue_all(
        self, requests: Sequence[AnyRequest], offer: Callable[[ExportRequest, str, datetime], Offer]
    ) -> list[Accepted | EnqueueError]:
        checked = [self._checked(request) for request in requests]
        if not any(isinstance(each, ExportRequest) for each in checked):
            return [each for each in checked if isinstance(each, InvalidRequestError)]
        now = await self.storage.now()
        offers = await self._with_checked_sinks(
            [each if isinstance(each, InvalidRequestError) else offer(each, uuid4().hex, now) for each in checked]
        )
        valid = [offer for offer in offers if isinstance(offer, Offer)]
        # Single requests of one moment share a round trip.
        answers = iter([await self._offering.answer(valid[0])] if len(valid) == 1 else await self._send(valid))
        return [await self._answer(offer, next(answers)) if isinstance(offer, Offer) else offer for offer in offers]

    async def _send(self, offers: Sequence[Offer]) -> list[dict[str, Any]]:
        async with translate_redis_errors(self._url):
            return await send_offers(self._keys, self._enqueue, offers)

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

    async def _with_checked_sinks(
        self, offers: Sequence[Offer | InvalidRequestError]
    ) -> Sequence[Offer | InvalidRequestError]:
        """Replaces offers that name an unknown sink by errors. Until workers have announced sinks, all are allowed."""
        if all(isinstance(offer, InvalidRequestError) or offer.request.notify is None for offer in offers):
            return offers
        async with translate_redis_errors(self._url):
            return await with_checked_sinks(self._client, self._keys, offers)

    async def _answer(self, offer: Offer, answer: Mapping[str, Any]) -> Accepted | EnqueueError:
        verdict = answer["verdict"]
        if verdict == "conflict":
            async with translate_redis_errors(self._url):
                return await read_conflict(self._client, self._keys, offer.request, answer["export_id"])
        if verdict == "wrong_connection":
            return wrong_connection(offer.request, answer.get("platform"), await self.known_connections())
        phase = Phase(answer["phase"])
        return Accepted(export_id=answer["export_id"], phase=phase, deduplicated=verdict == "duplicate")

    async def dry_run(
        self, request: AnyRequest, platform: Preview | None = None, *, owner: str | None = None
    ) -> DryRun:
        """Checks a request as `enqueue` does, and enqueues nothing.

        Args:
            platform: What the platform has of the export, if the caller has asked it.
            owner: As for `enqueue`.

        Raises:
            InvalidRequestError: A field is invalid, or no worker has the connection.
            IdempotencyConflictError: The idempotency key belongs to another request.
        """
        if isinstance(checked := self._checked(request), InvalidRequestError):
            raise checked
        known = await self.known_connections()
        if known and known.get(checked.connection) != checked.platform:
            raise wrong_connection(checked, known.get(checked.connection), known)
        (offer,) = await self._with_checked_sinks([Offer(checked, uuid4().hex, await self.storage.now(), owner=owner)])
        if isinstance(offer, InvalidRequestError):
            raise offer
        where = ExportFilter(connection=checked.connection, kind=checked.kind)
        pages = [await self.page(phase, LIST_MAX, where=where) for phase in OPEN_PHASES]
        async with translate_redis_errors(self._url):
            existing = await read_existing(self._client, self._keys, offer)
        return dry_run_of(checked, existing, pages, platform)

    async def status(self, export_id: str) -> Status:
        """Returns the status of one export.

        Raises:
            ExportNotFoundError: The export does not exist.
        """
        found = (await self._statuses.get([export_id]))[export_id]
        if found is None:
            raise ExportNotFoundError(export_id)
        return found

    async def _read_statuses(self, export_ids: Sequence[str]) -> list[Status | None]:
        async with translate_redis_errors(self._url):
            return await read_statuses(self._client, self._keys, export_ids)

    async def list_exports(self, phase: Phase | None = None, limit: int = 50) -> list[Status]:
        """Returns the newest exports, newest first, of one phase or of all: at most `limit` (1 to 1,000)."""
        return (await self.page(phase, limit)).statuses

    async def page(
        self,
        phase: Phase | None = None,
        limit: int = 50,
        cursor: str | None = None,
        *,
        where: ExportFilter = EVERY_EXPORT,
    ) -> Page:
        """Returns one page of a listing. Exports that are accepted later do not shift the next pages.

        A page reads 5,000 entries of an index at most. It can have fewer exports than `limit` and still have a cursor.
        A state in the filter needs one more round trip, and a time one more in a minute.

        Args:
            phase: Only exports in this phase, whatever phase `where` has.
            limit: Maximum size of the page (1 to 1,000).
            cursor: The cursor of the previous page; None for the first page.
            where: Only exports that match.

        Raises:
            InvalidRequestError: The cursor is invalid.
        """
        where = where if phase is None else replace(where, phase=phase)
        overview = None if where.state is None else await self.reads.overview()
        return await self._listing.page(where, max(1, min(limit, LIST_MAX)), cursor, overview)

    async def values_in_use(self, facet: Facet) -> list[str]:
        """Returns the connections, kinds, requesters or error codes of the stored exports, sorted."""
        async with translate_redis_errors(self._url):
            found = await self._redis.hkeys(self._keys.codes(facet))
        return sorted(value.decode() for value in found)

    async def timeline(self, export_id: str) -> list[dict[str, Any]]:
        """Returns every transition of one export, oldest first, with `at`, `phase`, `step` and `note`."""
        async with translate_redis_errors(self._url):
            return await read_timeline(self._client, self._keys, export_id)

    async def watch(self, export_id: str, interval_s: float = WATCH_INTERVAL_S) -> AsyncGenerator[Status, None]:
        """Yields the current status, then every changed status until the terminal one.

        Raises:
            ExportNotFoundError: The export does not exist.
        """
        last: Status | None = None
        while True:
            status = await self.status(export_id)
            if status != last:
                yield status
                last = status
            if status.phase.terminal:
                return
            await asyncio.sleep(interval_s)

    async def wait(
        self, export_id: str, timeout_s: float | None = None, *, on_change: Callable[[Status], None] | None = None
    ) -> Status:
        """Waits until the export has reached a terminal phase, and returns its status.

        Args:
            on_change: Called with the current status, then with every changed status.

        Raises:
            ExportNotFoundError: The export does not exist.
            TimeoutError: The export has not ended after `timeout_s` seconds. It continues.
        """
        async with asyncio.timeout(timeout_s), aclosing(self.watch(export_id)) as statuses:
            async for status in statuses:
                if on_change is not None:
                    on_change(status)
                if status.phase.terminal:
                    return status
        raise ExportNotFoundError(export_id)

    async def cancel(self, export_id: str) -> Phase:
        """Requests the cancellation of an export. A worker ends the export within seconds.

        Returns:
            The export's phase at this moment. An export in a terminal phase is not changed.

        Raises:
            ExportNotFoundError: The export does not exist.
        """
        keys = self._keys
        async with translate_redis_errors(self._url):
            answer = await self._cancel.document(
                [keys.export(export_id), keys.open, keys.queue("control"), keys.queue("transfer")],
                {"export_id": export_id, "now_ms": epoch_ms(await self.storage.now()), "prefix": keys.prefix},
            )
        if answer["verdict"] == "not_found":
            raise ExportNotFoundError(export_id)
        return Phase(answer["phase"])

    async def retry(self, export_id: str, start: Start | None = None, *, ended_at: datetime | None = None) -> Status:
        """Restarts an export that has ended. When it ends again, another completion event is sent.

        Args:
            start: The step to restart from; by default the step that failed. If the record has no operation any more,
                the export restarts from submit; if it has no files, from poll.
            ended_at: The `finished_at` that the caller has read: an export that has been restarted since is refused.
                If the same call is repeated within an hour, it gets the answer of the first one.

        Returns:
            The export's status after the restart.

        Raises:
            ExportNotFoundError: The export does not exist.
            InvalidRequestError: The export has not ended, or not at `ended_at`.
        """
        return await self._restarts.retry(export_id, start, ended_at)

    async def explain(self, export_id: str) -> str:
        """Explains in one line why the export waits and until when, or how it ended.

        Raises:
            ExportNotFoundError: The export does not exist.
        """
        return (await self.explanation(export_id)).text()

    async def explanation(self, export_id: str) -> Explanation:
        """Explains as `explain`, with a code, its arguments, and a text in each language.

        Needs at most four round trips, and for a transfer at most six.

        Raises:
            ExportNotFoundError: The export does not exist.
        """
        status, now = await self.status(export_id), await self.storage.now()
        async with translate_redis_errors(self._url):
            (facts,) = await read_facts(self._client, self._keys, [status], now)
            return explanation(facts)

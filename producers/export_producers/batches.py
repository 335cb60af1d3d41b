"""Batches: many exports that are enqueued, followed and cancelled as one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import uuid4

from pydantic_core import to_json

from export_producers.enqueuing import with_checked_sinks
from export_producers.identities import BatchPlace
from export_producers.lua import script
from export_producers.readable import UnreadableRecordError
from export_producers.records import Offer, wrong_connection
from export_producers.requesters import LIBRARY, shown_requester
from export_producers.statuses import read_statuses
from export_producers.storage import Storage
from export_worker.contract.batch import (
    BATCH_FIELDS,
    BATCH_MAX,
    Batch,
    BatchConflictError,
    BatchNotFoundError,
    StoredBatch,
    checked_batch_name,
    fingerprint_of,
)
from export_worker.contract.batch_keys import BatchKeys, export_id_in_batch
from export_worker.contract.model import epoch_ms
from export_worker.contract.parsing import PROBLEMS_MAX
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Phase, Status
from export_worker.contract.trace import TraceContext
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.redis.scripts import Call, Script

PIECE = 500
"""Exports that are enqueued, read or cancelled in one round trip: some 50 ms of Redis's time."""
LISTED_MAX = 100
"""Batches that are listed: the newest ones."""
WATCH_INTERVAL_S = 0.5
"""Interval at which a waiting caller reads the batch."""

_REASONS = {
    "batch_lost": "was removed from Redis while it was enqueued; enqueue it again",
    "batch_stopped": "was cancelled and accepts no further exports; use a new name",
    "batch_expired": "was enqueued long ago, and the records of some of its exports have expired; use a new name",
    "batch_gap": "was not accepted in its order; enqueue it again",
}


Check = Callable[[Any], ExportRequest | InvalidRequestError]
"""Parses and checks one request."""


@dataclass(frozen=True, slots=True)
class BatchRequester:
    """Who enqueues a batch.

    Args:
        trace: The trace context of all its exports.
    """

    name: str = LIBRARY
    trace: TraceContext | None = None


class Enqueuing(Protocol):
    """What a batch needs of the queue. `ExportQueue` has it."""

    @property
    def storage(self) -> Storage:
        """Where the exports are."""
        ...

    async def known_connections(self) -> dict[str, str]:
        """Returns connection → platform."""
        ...


class Batches:
    """The batches of one namespace.

    Args:
        check: Parses and checks one request.
        send: Sends offers to the script that enqueues them.
    """

    def __init__(
        self,
        queue: Enqueuing,
        check: Check,
        send: Callable[[Sequence[Offer]], Awaitable[list[dict[str, Any]]]],
    ) -> None:
        self._queue = queue
        self._storage = storage = queue.storage
        self._keys = BatchKeys(storage.keys)
        self._check, self._send = check, send
        self._open, self._stop, self._cancel = (
            Script(storage.client, script(name)) for name in ("open_batch", "stop_batch", "cancel")
        )

    async def enqueue(
        self, name: str, requests: Sequence[Any], by: BatchRequester = BatchRequester()
    ) -> list[Accepted]:
        """Enqueues a batch. If this did not return, call it again: it continues where it has stopped.

        Raises:
            InvalidRequestError: The name or a request is invalid. Nothing was enqueued.
            BatchConflictError: The name is that of other requests, or the batch was cancelled.
            ServiceUnreachableError: Redis cannot be reached. A part of the batch may be enqueued.
        """
        name, checked = checked_batch_name(name), checked_batch(requests, self._check)
        await self._check_places(checked)
        now = await self._storage.now()
        seed = await self._opened(name, checked, by, now)
        key = self._keys.batch(name)
        offers = [
            Offer(
                request,
                export_id_in_batch(seed, position),
                now,
                trace=by.trace,
                requested_by=by.name,
                place=BatchPlace(key, seed, position),
            )
            for position, request in enumerate(checked)
        ]
        accepted: list[Accepted] = []
        for first in range(0, len(offers), PIECE):
            piece = offers[first : first + PIECE]
            answers = await self._send(piece)
            accepted += [_accepted(name, offer, answer) for offer, answer in zip(piece, answers, strict=True)]
        return accepted

    async def _check_places(self, requests: Sequence[ExportRequest]) -> None:
        """Refuses requests with an unknown connection or sink. Later, a part of the batch would be enqueued."""
        known = await self._queue.known_connections()
        refused: dict[int, InvalidRequestError] = {
            position: wrong_connection(request, known.get(request.connection), known)
            for position, request in enumerate(requests)
            if known and known.get(request.connection) != request.platform
        }
        if not refused and any(request.notify is not None for request in requests):
            now = await self._storage.now()
            async with self._storage.calls():
                offers = await with_checked_sinks(
                    self._storage.client, self._storage.keys, [Offer(request, "", now) for request in requests]
                )
            refused = {at: offer for at, offer in enumerate(offers) if isinstance(offer, InvalidRequestError)}
        raise_problems(refused)

    async def _opened(self, name: str, requests: Sequence[ExportRequest], by: BatchRequester, now: datetime) -> str:
        """Creates the batch, unless it exists with the same requests. Returns its seed."""
        connections = sorted({request.connection for request in requests})
        arguments = {
            "name": name,
            "prefix": self._storage.keys.prefix,
            "seed": uuid4().hex,
            "total": len(requests),
            "fingerprint": fingerprint_of(requests),
            "created_ms": epoch_ms(now),
            "requested_by": shown_requester(by.name),
            "connections": to_json(connections).decode(),
        }
        async with self._storage.calls():
            answer = await self._open.document([self._keys.batch(name)], arguments)
        if answer["verdict"] == "conflict":
            raise BatchConflictError(name, "was enqueued before with other requests; use a new name")
        return str(answer["seed"])

    async def status(self, name: str) -> Batch:
        """Returns how far a batch is.

        Raises:
            BatchNotFoundError: There is no such batch.
        """
        return (await self._stored(name)).document(name)

    async def _stored(self, name: str) -> StoredBatch:
        async with self._storage.calls() as redis:
            values = await redis.hmget(self._key(name), *BATCH_FIELDS)
        found = _readable(name, values)
        if found is None:
            raise BatchNotFoundError(name)
        return found

    def _key(self, name: str) -> str:
        """Returns the key of a batch. A text that is no name of a batch is that of none."""
        try:
            return self._keys.batch(checked_batch_name(name))
        except InvalidRequestError:
            raise BatchNotFoundError(name) from None

    async def newest(self) -> list[Batch]:
        """Returns the newest batches, at most `LISTED_MAX`, the newest first. Needs two round trips."""
        async with self._storage.calls() as redis:
            names = [name.decode() for name in await redis.zrevrange(self._keys.all, 0, LISTED_MAX - 1)]
        if not names:
            return []
        async with self._storage.calls(), self._storage.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(self._keys.batch(name), list(BATCH_FIELDS))
            answers = await pipe.execute()
        expired = [name for name, values in zip(names, answers, strict=True) if not any(values)]
        if expired:
            async with self._storage.calls() as redis:
                await redis.zrem(self._keys.all, *expired)
        found: list[Batch] = []
        for name, values in zip(names, answers, strict=True):
            with suppress(UnreadableRecordError):  # one damaged batch must not hide all others
                batch = _readable(name, values)
                found += [] if batch is None else [batch.document(name)]
        return found

    async def exports(self, name: str, first: int = 0, limit: int = 50) -> list[Status | None]:
        """Returns the statuses of exports of a batch from a position on; None for one whose record has expired.

        Raises:
            BatchNotFoundError: There is no such batch.
        """
        ids = _ids(await self._stored(name))[first : first + min(limit, PIECE)]
        async with self._storage.calls():
            return await read_statuses(self._storage.client, self._storage.keys, ids)

    async def cancel(self, name: str) -> Batch:
        """Requests the cancellation of every open export of a batch. It accepts no further ones.

        If this did not return, call it again.

        Raises:
            BatchNotFoundError: There is no such batch.
        """
        keys, storage = self._storage.keys, self._storage
        key, now_ms = self._key(name), epoch_ms(await storage.now())
        arguments = {"name": name, "prefix": keys.prefix, "now_ms": now_ms}
        async with storage.calls():
            answer = await self._stop.word([key], arguments)
        if answer == "not_found":
            raise BatchNotFoundError(name)
        ids = _ids(await self._stored(name)) if answer == "stopped" else []
        queues = [keys.open, keys.queue("control"), keys.queue("transfer")]
        for first in range(0, len(ids), PIECE):
            calls: list[Call] = [
                ([keys.export(each), *queues], {"export_id": each, "now_ms": now_ms, "prefix": keys.prefix}, ())
                for each in ids[first : first + PIECE]
            ]
            async with storage.calls():
                await self._cancel.answers(calls)
        return await self.status(name)

    async def wait(
        self, name: str, timeout_s: float | None = None, *, on_change: Callable[[Batch], None] | None = None
    ) -> Batch:
        """Waits until a batch is completed and its manifest is written, and returns it.

        Raises:
            BatchNotFoundError: There is no such batch.
            TimeoutError: It is not completed after `timeout_s` seconds. It continues.
        """
        last: Batch | None = None
        async with asyncio.timeout(timeout_s):
            while True:
                batch = await self.status(name)
                if batch != last and on_change is not None:
                    on_change(batch)
                if batch.state == "completed" and batch.manifest is not None:
                    return batch
                last = batch
                await asyncio.sleep(WATCH_INTERVAL_S)


def checked_batch(requests: Sequence[Any], check: Check) -> list[ExportRequest]:
    """Returns the requests of a batch.

    Raises:
        InvalidRequestError: One is invalid, there are too many or none, or one has an idempotency key.
    """
    if not 1 <= len(requests) <= BATCH_MAX:
        raise InvalidRequestError([FieldProblem("requests", f"must be 1 to {BATCH_MAX} requests")])
    checked = [check(request) for request in requests]
    raise_problems({at: found for at, found in enumerate(checked) if isinstance(found, InvalidRequestError)})
    found = [request for request in checked if isinstance(request, ExportRequest)]
    message = "must be left out: the name of the batch is the key of all its requests"
    problem = InvalidRequestError([FieldProblem("idempotency_key", message)])
    raise_problems({at: problem for at, request in enumerate(found) if request.idempotency_key is not None})
    return found


def raise_problems(errors: Mapping[int, InvalidRequestError]) -> None:
    """Raises one error for all errors of requests of a batch, by their positions; if there is none, does nothing.

    Raises:
        InvalidRequestError: There is one.
    """
    problems = [
        FieldProblem(f"requests.{position}.{problem.field}", problem.message)
        for position, error in errors.items()
        for problem in error.problems
    ]
    if problems:
        raise InvalidRequestError(problems[:PROBLEMS_MAX])


def _readable(name: str, values: Sequence[bytes | None]) -> StoredBatch | None:
    """Returns a batch from the values of `BATCH_FIELDS`; None if it does not exist.

    Raises:
        UnreadableRecordError: It is damaged, or another version has written it.
    """
    try:
        return StoredBatch.read(values)
    except ValueError:
        raise UnreadableRecordError(f"batch {name}") from None


def _ids(batch: StoredBatch) -> list[str]:
    """Returns the ids of the accepted exports, in the order of the requests."""
    return [export_id_in_batch(batch.seed, position) for position in range(batch.accepted)]


def _accepted(name: str, offer: Offer, answer: Mapping[str, Any]) -> Accepted:
    verdict = answer["verdict"]
    if verdict == "wrong_connection":
        raise wrong_connection(offer.request, answer.get("platform"), {})
    if verdict != "accepted":
        raise BatchConflictError(name, _REASONS.get(verdict, _REASONS["batch_gap"]))
    return Accepted(export_id=answer["export_id"], phase=Phase(answer["phase"]), deduplicated=False)

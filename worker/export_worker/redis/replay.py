"""Delivers past events again: the same events, under the same ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from arq.connections import ArqRedis

from export_worker.contract.batch import BatchEvent
from export_worker.contract.event import Event
from export_worker.contract.model import Model, epoch_ms
from export_worker.contract.past_documents import stored_event
from export_worker.contract.redis_keys import Keys
from export_worker.redis.ended_log import EndedLog
from export_worker.redis.records import read_events, read_fields

EVENTS_PER_READ = 200
"""Events that are read in one round trip."""
OUTBOX_TTL_MS = 7 * 86_400_000
"""An outbox that no worker empties expires after this time."""


class _Addressed(Model):
    """The part of a request that names sinks. The kind of the export may be unknown to this process."""

    model_config = Model.model_config | {"extra": "ignore"}

    notify: list[str] | None = None


def _addressed(request: object) -> _Addressed:
    return _Addressed.model_validate_json(request) if isinstance(request, bytes) else _Addressed.model_validate(request)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One event, and the sinks that it is delivered to again."""

    event_id: str
    type: str
    subject: str
    time: datetime
    sinks: tuple[str, ...]


class Replay:
    """Puts kept events into the outboxes again.

    Args:
        sinks: Names of the configured sinks.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, sinks: Sequence[str]) -> None:
        self._redis = redis
        self._keys = keys
        self._sinks = tuple(sinks)
        self._log = EndedLog(redis, keys)

    async def since(self, moment: datetime, now: datetime, *, dry_run: bool = False) -> list[Replayed]:
        """Delivers again every event from a moment on, to the sinks that the event's request names.

        A damaged event is left out.

        Args:
            moment: The time of the first event to deliver.
            now: When to deliver.
            dry_run: Return the events, and deliver none.

        Returns:
            The events, the oldest first.
        """
        ids = [entry.event_id async for entry in self._log.since(epoch_ms(moment))]
        found: list[Replayed] = []
        for start in range(0, len(ids), EVENTS_PER_READ):
            chosen = await self._read(ids[start : start + EVENTS_PER_READ], skip_unreadable=True)
            if chosen and not dry_run:
                await self._enqueue(chosen, now)
            found += chosen
        return found

    async def deliver(self, event_id: str, now: datetime) -> Replayed | None:
        """Delivers one event now, to the sinks that its request names. Needs two round trips.

        Returns:
            The event; None if it is not kept, or none of these sinks gets it.
        """
        chosen = await self._read([event_id])
        if not chosen:
            return None
        await self._enqueue(chosen, now)
        return chosen[0]

    async def put(self, outboxes: Mapping[str, Sequence[str]], now: datetime) -> None:
        """Delivers events now. Earlier refusals do not count.

        Args:
            outboxes: Sink → the ids of events that are kept.
        """
        now_ms = epoch_ms(now)
        async with self._redis.pipeline(transaction=True) as pipe:
            for sink, ids in outboxes.items():
                if ids:
                    pipe.zadd(self._keys.outbox(sink), dict.fromkeys(ids, now_ms))
                    pipe.pexpire(self._keys.outbox(sink), OUTBOX_TTL_MS)
                    # The time until the delivery is given up starts again.
                    pipe.hdel(self._keys.refusals(sink), *ids)
                    pipe.hdel(self._keys.answers(sink), *ids)
            await pipe.execute()

    async def _read(self, ids: Sequence[str], *, skip_unreadable: bool = False) -> list[Replayed]:
        """Reads events, without those that have expired or that no configured sink gets. Raises ValueError."""
        events = []
        for event_id, stored in zip(ids, await read_events(self._redis, self._keys, ids), strict=True):
            try:
                if stored is not None:
                    events.append(stored_event(stored, event_id, self._keys.namespace))
            except ValueError:
                if not skip_unreadable:
                    raise
        requests = await self._requests(events)
        return [
            Replayed(event.id, event.type, event.subject, event.time, sinks)
            for event, request in zip(events, requests, strict=True)
            if (sinks := self._sinks_of(request))
        ]

    async def _requests(self, events: Sequence[Event | BatchEvent]) -> list[object]:
        """Returns the request of each event; of an event of an earlier version that has none, that of the export.

        An event of a batch has none: every sink gets it.
        """
        asked = [event.data.request if isinstance(event, Event) else None for event in events]
        without = [
            event.subject
            for event, known in zip(events, asked, strict=True)
            if known is None and isinstance(event, Event)
        ]
        records = await read_fields(self._redis, self._keys, without, ["request"])
        stored = {export_id: record.get("request") for export_id, record in zip(without, records, strict=True)}
        return [known or stored.get(event.subject) for event, known in zip(events, asked, strict=True)]

    def _sinks_of(self, request: object) -> tuple[str, ...]:
        notify = None if request is None else _addressed(request).notify
        return self._sinks if notify is None else tuple(name for name in self._sinks if name in notify)

    async def _enqueue(self, chosen: Sequence[Replayed], now: datetime) -> None:
        await self.put({sink: [item.event_id for item in chosen if sink in item.sinks] for sink in self._sinks}, now)

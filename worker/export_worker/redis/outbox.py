"""The outbox in Redis: for each sink, which events are to be delivered, and when.

The commit that ends an export puts its event here in the same atomic write, so phase and event cannot part. A delivery
that is taken comes back by itself after the visibility timeout: at least once, whoever dies. How often a sink did not
take an event stands here, too, so a worker that restarts goes on counting.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from arq.connections import ArqRedis

from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import commands
from export_worker.redis.lua import script

BATCH = 50
VISIBILITY_S = 60.0
"""Longer than a delivery may take; a dispatcher that dies delays its events by so much."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one sink.

    Args:
        event: The CloudEvent as JSON.
        failures: How often it was not taken so far.
        first_ms: When that was first, in milliseconds since the epoch.
    """

    event_id: str
    event: str
    failures: int = 0
    first_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Undelivered:
    """One event that was given up for one sink."""

    event_id: str
    at: str
    failures: int
    reason: str


class Outbox:
    """Reads and acknowledges deliveries.

    Args:
        retention_s: What was given up is listed for so long.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, retention_s: float = 7 * 86_400.0) -> None:
        self._client = redis
        self._redis = commands(redis)
        self._keys = keys
        self._retention_ms = int(retention_s * 1000)
        self._take = redis.register_script(script("take"))

    async def take(self, sink: str, now: datetime, most: int = BATCH) -> list[Delivery]:
        """Due deliveries of one sink; each comes back later unless it is acknowledged."""
        back_ms = epoch_ms(now + timedelta(seconds=VISIBILITY_S))
        taken = await self._take(
            keys=[self._keys.outbox(sink), self._keys.refusals(sink)],
            args=[epoch_ms(now), back_ms, most, self._keys.event("")],
        )
        return [_delivery(*(item.decode() for item in fields)) for fields in taken]

    async def acknowledge(self, sink: str, event_id: str) -> None:
        """The sink has it."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zrem(self._keys.outbox(sink), event_id)
            pipe.hdel(self._keys.refusals(sink), event_id)
            pipe.hdel(self._keys.undelivered(sink), event_id)
            await pipe.execute()

    async def postpone(self, sink: str, delivery: Delivery, now: datetime, wait_s: float) -> None:
        """The sink did not take it; try again after a while, and count."""
        first_ms = epoch_ms(now) if delivery.first_ms is None else delivery.first_ms
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zadd(self._keys.outbox(sink), {delivery.event_id: epoch_ms(now + timedelta(seconds=wait_s))})
            pipe.hset(self._keys.refusals(sink), delivery.event_id, f"{delivery.failures + 1}:{first_ms}")
            pipe.pexpire(self._keys.refusals(sink), self._retention_ms)
            await pipe.execute()

    async def give_up(self, sink: str, delivery: Delivery, now: datetime, reason: str) -> None:
        """Deliver it no more; it is listed until its retention has passed, and can be replayed."""
        note = {"at": isoformat(now), "failures": delivery.failures + 1, "reason": reason}
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zrem(self._keys.outbox(sink), delivery.event_id)
            pipe.hdel(self._keys.refusals(sink), delivery.event_id)
            pipe.hset(self._keys.undelivered(sink), delivery.event_id, json.dumps(note, ensure_ascii=False))
            pipe.pexpire(self._keys.undelivered(sink), self._retention_ms)
            await pipe.execute()

    async def undelivered(self, sink: str) -> list[Undelivered]:
        """What was given up, the oldest first."""
        notes = await self._redis.hgetall(self._keys.undelivered(sink))
        found = [Undelivered(event_id.decode(), **json.loads(note)) for event_id, note in notes.items()]
        return sorted(found, key=lambda item: (item.at, item.event_id))

    async def is_empty(self, sink: str) -> bool:
        """Nothing is left to deliver."""
        return not await self._redis.zcard(self._keys.outbox(sink))


def _delivery(event_id: str, event: str, refusals: str) -> Delivery:
    failures, _, first_ms = refusals.partition(":")
    return Delivery(event_id, event, int(failures or 0), int(first_ms) if first_ms else None)

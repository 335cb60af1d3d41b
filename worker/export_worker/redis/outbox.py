"""The outbox in Redis: for each sink, which events are to be delivered, and when.

The commit that ends an export puts its event here in the same atomic write, so that there is no phase without its
event. A delivery that is taken and not acknowledged is due again after the visibility timeout, so every event is
delivered at least once. The number of refusals is kept here, too, so that a restarted worker continues to count.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from arq.connections import ArqRedis

from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import commands
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script

DELIVERIES_MAX = 50
"""Deliveries that one call takes, unless the caller says otherwise."""
VISIBILITY_S = 60.0
"""Longer than a delivery may take. A dispatcher that dies delays its events by this time."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one sink.

    Args:
        event: The CloudEvent as JSON.
        failures: How often the sink has refused it.
        first_ms: When the sink first refused it, in milliseconds since the epoch.
    """

    event_id: str
    event: str
    failures: int = 0
    first_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Undelivered:
    """One event that a sink will not get, because its delivery was given up."""

    event_id: str
    at: str
    failures: int
    reason: str


class Outbox:
    """Takes deliveries, and records how they ended.

    Args:
        retention_s: For this time undelivered events are listed.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, retention_s: float = 7 * 86_400.0) -> None:
        self._client = redis
        self._redis = commands(redis)
        self._keys = keys
        self._retention_ms = int(retention_s * 1000)
        self._take = Script(redis, script("take_deliveries"))

    async def take(self, sink: str, now: datetime, most: int = DELIVERIES_MAX) -> list[Delivery]:
        """Takes due deliveries of one sink. Each is due again later unless it is acknowledged."""
        answer = await self._take.document(
            [self._keys.outbox(sink), self._keys.refusals(sink)],
            {
                "now_ms": epoch_ms(now),
                "visible_again_ms": epoch_ms(now + timedelta(seconds=VISIBILITY_S)),
                "max": most,
                "event_prefix": self._keys.event(""),
            },
        )
        return [_delivery(**item) for item in answer.get("deliveries", ())]

    async def acknowledge(self, sink: str, event_id: str) -> None:
        """Removes a delivery that the sink has accepted."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zrem(self._keys.outbox(sink), event_id)
            pipe.hdel(self._keys.refusals(sink), event_id)
            pipe.hdel(self._keys.undelivered(sink), event_id)
            await pipe.execute()

    async def postpone(self, sink: str, delivery: Delivery, now: datetime, wait_s: float) -> None:
        """Counts a refusal, and schedules the delivery to be retried after `wait_s` seconds."""
        first_ms = epoch_ms(now) if delivery.first_ms is None else delivery.first_ms
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zadd(self._keys.outbox(sink), {delivery.event_id: epoch_ms(now + timedelta(seconds=wait_s))})
            pipe.hset(self._keys.refusals(sink), delivery.event_id, f"{delivery.failures + 1}:{first_ms}")
            pipe.pexpire(self._keys.refusals(sink), self._retention_ms)
            await pipe.execute()

    async def give_up(self, sink: str, delivery: Delivery, now: datetime, reason: str) -> None:
        """Removes a delivery, and lists it as undelivered. It can be replayed until its retention has passed."""
        note = {"at": isoformat(now), "failures": delivery.failures + 1, "reason": reason}
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zrem(self._keys.outbox(sink), delivery.event_id)
            pipe.hdel(self._keys.refusals(sink), delivery.event_id)
            pipe.hset(self._keys.undelivered(sink), delivery.event_id, json.dumps(note, ensure_ascii=False))
            pipe.pexpire(self._keys.undelivered(sink), self._retention_ms)
            await pipe.execute()

    async def undelivered(self, sink: str) -> list[Undelivered]:
        """Returns the events whose delivery was given up, the oldest first."""
        notes = await self._redis.hgetall(self._keys.undelivered(sink))
        found = [Undelivered(event_id.decode(), **json.loads(note)) for event_id, note in notes.items()]
        return sorted(found, key=lambda item: (item.at, item.event_id))

    async def is_empty(self, sink: str) -> bool:
        """Returns whether nothing is left to deliver."""
        return not await self._redis.zcard(self._keys.outbox(sink))


def _delivery(event_id: str, event: str, refusals: str = "") -> Delivery:
    failures, _, first_ms = refusals.partition(":")
    return Delivery(event_id, event, int(failures or 0), int(first_ms) if first_ms else None)

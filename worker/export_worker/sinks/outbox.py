"""The outbox in Redis: for each sink, which events are to be delivered, and when.

The commit that ends an export puts its event here in the same atomic write, so phase and event cannot part. A delivery
that is taken comes back by itself after the visibility timeout: at least once, whoever dies.
"""

from datetime import datetime, timedelta

from arq.connections import ArqRedis

from export_worker.connect import commands
from export_worker.contract.keys import Keys
from export_worker.contract.model import epoch_ms
from export_worker.lua import script

BATCH = 50
VISIBILITY_S = 30.0
"""Longer than a delivery may take; a dispatcher that dies delays its events by so much."""


class Outbox:
    """Reads and acknowledges deliveries."""

    def __init__(self, redis: ArqRedis, keys: Keys) -> None:
        self._redis = commands(redis)
        self._keys = keys
        self._take = redis.register_script(script("take"))

    async def take(self, sink: str, now: datetime) -> list[tuple[str, str]]:
        """Due deliveries of one sink as (event id, JSON); each comes back later unless it is acknowledged."""
        back_ms = epoch_ms(now + timedelta(seconds=VISIBILITY_S))
        taken = await self._take(keys=[self._keys.outbox(sink)], args=[epoch_ms(now), back_ms, BATCH])
        events = [
            (event_id, await self._redis.get(self._keys.event(event_id))) for event_id in map(bytes.decode, taken)
        ]
        for event_id, event in events:
            if event is None:
                # Its retention has passed while the sink was down: nothing is left to deliver.
                await self.acknowledge(sink, event_id)
        return [(event_id, event.decode()) for event_id, event in events if event is not None]

    async def acknowledge(self, sink: str, event_id: str) -> None:
        """The sink has it."""
        await self._redis.zrem(self._keys.outbox(sink), event_id)

    async def postpone(self, sink: str, event_id: str, until: datetime) -> None:
        """The sink did not take it; try again then."""
        await self._redis.zadd(self._keys.outbox(sink), {event_id: epoch_ms(until)})

    async def is_empty(self, sink: str) -> bool:
        """Nothing is left to deliver."""
        return not await self._redis.zcard(self._keys.outbox(sink))

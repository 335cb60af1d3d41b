"""Delivers again what was announced before: the same events, under the same ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from arq.connections import ArqRedis

from export_worker.contract.event import Event
from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import ExportRequest

BATCH = 200
"""Events read in one round trip."""
RETENTION_LEFT_MS = 7 * 86_400_000
"""An outbox that no worker empties is forgotten after so long."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One event, and the sinks that it goes to again."""

    event_id: str
    type: str
    subject: str
    time: datetime
    sinks: tuple[str, ...]


class Replay:
    """Puts kept events into outboxes once more.

    Args:
        sinks: Names of the configured sinks.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, sinks: Sequence[str]) -> None:
        self._redis = redis
        self._keys = keys
        self._sinks = tuple(sinks)

    async def since(self, moment: datetime, now: datetime, *, dry_run: bool = False) -> list[Replayed]:
        """Deliver every event that came about since then again, to the sinks that its request meant.

        Args:
            moment: The first moment that counts.
            now: When to deliver.
            dry_run: Only tell.

        Returns:
            The events, the oldest first.
        """
        ids = await self._redis.zrangebyscore(self._keys.events, epoch_ms(moment), "+inf")
        found: list[Replayed] = []
        for start in range(0, len(ids), BATCH):
            chosen = await self._chosen([item.decode() for item in ids[start : start + BATCH]])
            if chosen and not dry_run:
                await self._put(chosen, epoch_ms(now))
            found += chosen
        return found

    async def _chosen(self, ids: Sequence[str]) -> list[Replayed]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for event_id in ids:
                pipe.get(self._keys.event(event_id))
                pipe.hget(self._keys.export(event_id.partition(".")[0]), "request")
            answers = await pipe.execute()
        pairs = zip(answers[::2], answers[1::2], strict=True)
        events = [(Event.model_validate_json(event), request) for event, request in pairs if event is not None]
        return [
            Replayed(event.id, event.type, event.subject, event.time, sinks)
            for event, request in events
            if (sinks := self._meant(request))
        ]

    def _meant(self, request: bytes | None) -> tuple[str, ...]:
        notify = ExportRequest.model_validate_json(request).notify if request is not None else None
        return self._sinks if notify is None else tuple(name for name in self._sinks if name in notify)

    async def _put(self, chosen: Sequence[Replayed], now_ms: int) -> None:
        outboxes: dict[str, Mapping[str, float]] = {
            sink: {item.event_id: now_ms for item in chosen if sink in item.sinks} for sink in self._sinks
        }
        async with self._redis.pipeline(transaction=True) as pipe:
            for sink, entries in outboxes.items():
                if entries:
                    pipe.zadd(self._keys.outbox(sink), dict(entries))
                    pipe.pexpire(self._keys.outbox(sink), RETENTION_LEFT_MS)
                    # A new beginning: patience counts from the next refusal.
                    pipe.hdel(self._keys.refusals(sink), *entries)
            await pipe.execute()

"""Brings every event to every sink. Each sink has its own loop, so one that is down delays no other."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial

import structlog

from export_worker.backoff import Backoff
from export_worker.instrumentation import SILENT, EventDelivered, EventRefused, Instrument
from export_worker.sinks.base import Sink, SinkError
from export_worker.sinks.outbox import Outbox

IDLE_S = 0.25
"""Between looks into an empty outbox; events of this process's own exports are announced and do not wait."""

RETRY = Backoff(first_s=1.0, max_s=300.0)

_log = structlog.get_logger(__name__)


class Fanout:
    """Delivers from the outbox.

    Args:
        outbox: Which events are due.
        sinks: By name.
        clock: The time, with a zone.
        draw: Random numbers from 0 to 1, for jitter.
        instrument: Hears of deliveries.
    """

    def __init__(
        self,
        outbox: Outbox,
        sinks: Mapping[str, Sink],
        clock: Callable[[], datetime],
        draw: Callable[[], float],
        instrument: Instrument = SILENT,
    ) -> None:
        self._instrument = instrument
        self._outbox = outbox
        self._sinks = sinks
        self._clock = clock
        self._draw = draw
        self._failures: Counter[tuple[str, str]] = Counter()

    def loops(self) -> list[Callable[[], Awaitable[None]]]:
        """For each sink what is to be done again and again: deliver what is due, or wait a moment."""
        return [partial(self._turn, name) for name in self._sinks]

    async def flush(self) -> None:
        """Deliver what is due now, once; for the moment before a worker leaves."""
        for name in self._sinks:
            while await self._deliver_due(name):
                pass

    async def is_empty(self) -> bool:
        """Every event has been delivered to every sink."""
        return all([await self._outbox.is_empty(name) for name in self._sinks])

    async def _turn(self, name: str) -> None:
        if not await self._deliver_due(name):
            await asyncio.sleep(IDLE_S)

    async def _deliver_due(self, name: str) -> int:
        taken = await self._outbox.take(name, self._clock())
        for event_id, event in taken:
            await self._deliver(name, event_id, event)
        return len(taken)

    async def _deliver(self, name: str, event_id: str, event: str) -> None:
        try:
            await self._sinks[name].deliver(event_id, event)
        except SinkError as error:
            failures = self._failures[name, event_id]
            self._failures[name, event_id] += 1
            self._instrument.on(EventRefused(name))
            wait_s = RETRY.wait_s(failures, self._draw())
            _log.warning("event.refused", sink=name, event_id=event_id, error=str(error), wait_s=round(wait_s, 1))
            await self._outbox.postpone(name, event_id, self._clock() + timedelta(seconds=wait_s))
            return
        self._failures.pop((name, event_id), None)
        await self._outbox.acknowledge(name, event_id)
        self._instrument.on(EventDelivered(name, self._age_s(event)))
        _log.info("event.delivered", sink=name, event_id=event_id)

    def _age_s(self, event: str) -> float:
        ended_at = datetime.fromisoformat(json.loads(event)["time"])
        return max(0.0, (self._clock() - ended_at).total_seconds())

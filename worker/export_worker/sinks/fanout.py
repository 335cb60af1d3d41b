"""Brings every event to every sink. Each sink has its own loop, so one that is down delays no other."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog
from redis.exceptions import RedisError

from export_worker.contract.model import epoch_ms
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.outbox import VISIBILITY_S, Delivery, Outbox
from export_worker.sinks.base import SinkError, SinkGoneError, SinkRefusedError, SinkRoute
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, EventDelivered, EventRefused, Instrument

IDLE_S = 0.25
"""Between looks into an empty outbox; events of this process's own exports are announced and do not wait."""
DELIVERY_S = VISIBILITY_S - 15.0
"""No delivery may take longer: it would come back while it is still on its way."""
FLUSH_S = 8.0
"""What deliveries get when the worker leaves; whatever does not end in time comes back elsewhere."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Again:
    """Deliver it once more, after so many seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Deliver it no more."""


def after_failure(route: SinkRoute, delivery: Delivery, error: SinkError, now_ms: int, draw: float) -> Again | GiveUp:
    """What follows from a delivery that failed.

    Args:
        now_ms: Milliseconds since the epoch.
        draw: A random number from 0 to 1.
    """
    refused_s = 0.0 if delivery.first_ms is None else (now_ms - delivery.first_ms) / 1000
    if isinstance(error, SinkRefusedError | SinkGoneError) or refused_s >= route.give_up_after_s:
        return GiveUp()
    wait_s = route.retry.wait_s(delivery.failures, draw)
    # What the other side asks for holds, but does not reach beyond the last try.
    asked_s = min(error.retry_after_s or 0.0, max(0.0, route.give_up_after_s - refused_s))
    return Again(asked_s + wait_s)


class Fanout:
    """Delivers from the outbox.

    Args:
        outbox: Which events are due.
        routes: Sinks by name.
        clock: The time, with a zone.
        draw: Random numbers from 0 to 1, for jitter.
        instrument: Hears of deliveries.
    """

    def __init__(
        self,
        outbox: Outbox,
        sinks: Mapping[str, SinkRoute],
        clock: Callable[[], datetime],
        draw: Callable[[], float],
        instrument: Instrument = NULL_INSTRUMENT,
    ) -> None:
        self._outbox = outbox
        self._lanes = {
            name: _Lane(name, route, outbox, clock=clock, draw=draw, instrument=instrument)
            for name, route in sinks.items()
        }

    def loops(self) -> list[Callable[[], Awaitable[None]]]:
        """For each sink what is to be done again and again: deliver what is due, or wait a moment."""
        return [lane.turn for lane in self._lanes.values()]

    async def flush(self) -> None:
        """Deliver what is due now, once, and let what is on its way arrive; for the moment before a worker leaves."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await asyncio.gather(*(lane.flush() for lane in self._lanes.values()))
        await asyncio.gather(*(lane.stop() for lane in self._lanes.values()))

    async def is_empty(self) -> bool:
        """Every event has been delivered to every sink."""
        return all([await self._outbox.is_empty(name) for name in self._lanes])


class _Lane:
    """The deliveries of one sink."""

    def __init__(
        self,
        name: str,
        route: SinkRoute,
        outbox: Outbox,
        *,
        clock: Callable[[], datetime],
        draw: Callable[[], float],
        instrument: Instrument,
    ) -> None:
        self._name = name
        self._route = route
        self._outbox = outbox
        self._clock = clock
        self._draw = draw
        self._instrument = instrument
        self._running: set[asyncio.Task[None]] = set()
        self._gone: str | None = None

    async def turn(self) -> None:
        """Begin what is due, as far as there is room; then wait for room, or a moment."""
        if await self._begin_due():
            return
        if len(self._running) < self._route.at_once:
            await asyncio.sleep(IDLE_S)
        else:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def flush(self) -> None:
        while await self._begin_due() or self._running:
            if self._running:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        await cancel_and_wait(*self._running)

    async def _begin_due(self) -> int:
        free = self._route.at_once - len(self._running)
        if free <= 0:
            return 0
        taken = await self._outbox.take(self._name, self._clock(), free)
        for delivery in taken:
            task = asyncio.create_task(self._deliver(delivery))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(taken)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            error = await self._failure(delivery)
            if error is not None:
                await self._failed(delivery, error)
                return
            await self._outbox.acknowledge(self._name, delivery.event_id)
            self._instrument.on(EventDelivered(self._name, self._age_s(delivery.event)))
            _log.info("event.delivered", sink=self._name, event_id=delivery.event_id)
        except (RedisError, OSError) as error:
            # Nothing was noted, so nothing is lost: the delivery comes back.
            _log.warning("event.not_noted", sink=self._name, event_id=delivery.event_id, error=str(error))

    async def _failure(self, delivery: Delivery) -> SinkError | None:
        """Hand the event over; what went wrong, if something did."""
        if self._gone is not None:
            return SinkGoneError(self._gone)
        try:
            async with asyncio.timeout(DELIVERY_S):
                await self._route.sink.deliver(delivery.event_id, delivery.event)
        except SinkError as error:
            return error
        except TimeoutError:
            return SinkError(f"not taken within {DELIVERY_S:g} s")
        except Exception as error:  # noqa: BLE001 - a defect must not end the loop of all the other events
            _log.exception("event.crashed", sink=self._name, event_id=delivery.event_id)
            return SinkError(f"failed unexpectedly ({type(error).__name__})")
        return None

    async def _failed(self, delivery: Delivery, error: SinkError) -> None:
        now, reason = self._clock(), str(error)
        self._instrument.on(EventRefused(self._name))
        if isinstance(error, SinkGoneError) and self._gone is None:
            self._gone = reason
            _log.error("sink.gone", sink=self._name, error=reason)
        known = {"sink": self._name, "event_id": delivery.event_id, "failures": delivery.failures + 1}
        match after_failure(self._route, delivery, error, epoch_ms(now), self._draw()):
            case Again(wait_s):
                _log.warning("event.refused", **known, error=reason, wait_s=round(wait_s, 1))
                await self._outbox.postpone(self._name, delivery, now, wait_s)
            case GiveUp():
                if not isinstance(error, SinkGoneError):
                    _log.error("event.given_up", **known, error=reason)
                await self._outbox.give_up(self._name, delivery, now, reason)

    def _age_s(self, event: str) -> float:
        ended_at = datetime.fromisoformat(json.loads(event)["time"])
        return max(0.0, (self._clock() - ended_at).total_seconds())

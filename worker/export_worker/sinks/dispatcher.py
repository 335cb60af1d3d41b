"""Delivers every event to every sink. Each sink has a separate loop, so a sink that is down delays no other."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog
from redis.exceptions import RedisError

from export_worker.contract.model import epoch_ms
from export_worker.contract.printable import encodable
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.outbox import Delivery, Outbox, Taken
from export_worker.sinks.base import EventTooLargeError, SinkDisabledError, SinkError, SinkRefusedError, SinkRoute
from export_worker.sinks.large_events import without_objects
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, EventDelivered, EventRefused, Instrument

OUTBOX_POLL_S = 0.25
"""Wait between reads of an empty outbox: the longest delay of an event that another worker has added. One that this
worker has added is read at once."""
DELIVERY_TIMEOUT_S = 45.0
"""A receiver that has not answered after this time has probably lost the request. Its slot is for another event."""
FLUSH_TIMEOUT_S = 8.0
"""For the last deliveries of a worker that stops. Another worker retries those that do not end in time."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeliverAgain:
    """Decision: deliver the event again after this wait."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Decision: do not deliver the event again."""


def after_failure(
    route: SinkRoute, delivery: Delivery, error: SinkError, now_ms: int, draw: float
) -> DeliverAgain | GiveUp:
    """Decides what follows from a failed delivery.

    Args:
        now_ms: Milliseconds since the epoch.
        draw: A random number from 0 to 1, for jitter.
    """
    refused_s = 0.0 if delivery.first_ms is None else (now_ms - delivery.first_ms) / 1000
    if isinstance(error, SinkRefusedError | SinkDisabledError) or refused_s >= route.give_up_after_s:
        return GiveUp()
    wait_s = route.retry.wait_s(delivery.failures, draw)
    # A wait that the receiver asks for is kept, but it cannot delay the last attempt.
    asked_s = min(error.retry_after_s or 0.0, max(0.0, route.give_up_after_s - refused_s))
    return DeliverAgain(asked_s + wait_s)


class EventDispatcher:
    """Delivers events from the outbox.

    Args:
        outbox: Holds the events that are due.
        sinks: Sinks by name.
        clock: Returns the current time with its time zone.
        draw: Returns random numbers from 0 to 1, for jitter.
        instrument: Receives details about deliveries.
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
        self._dispatchers = {
            name: _SinkDispatcher(name, route, outbox, clock=clock, draw=draw, instrument=instrument)
            for name, route in sinks.items()
        }

    def loops(self) -> list[Callable[[], Awaitable[None]]]:
        """Returns one function for each sink, to be called in a loop: it starts due deliveries, or waits."""
        return [each.run_once for each in self._dispatchers.values()]

    def wake(self) -> None:
        """Reads the outboxes at once: an export has ended here."""
        for each in self._dispatchers.values():
            each.wake.set()

    async def flush(self) -> None:
        """Delivers what is due now, and waits for running deliveries. Called before a worker stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await asyncio.gather(*(each.flush() for each in self._dispatchers.values()))
        await asyncio.gather(*(each.stop() for each in self._dispatchers.values()))

    async def is_empty(self) -> bool:
        """Returns whether every event has been delivered to every sink."""
        return all([await self._outbox.is_empty(name) for name in self._dispatchers])


class _SinkDispatcher:
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
        self._disabled_reason: str | None = None
        self.wake = asyncio.Event()

    async def run_once(self) -> None:
        """Starts due deliveries up to the limit. If there are none, waits until one ends or until the next read."""
        self.wake.clear()
        free = self._route.at_once - len(self._running)
        if free > 0 and await self._start_due(free) == free:
            return
        if len(self._running) < self._route.at_once:
            with suppress(TimeoutError):
                async with asyncio.timeout(OUTBOX_POLL_S):
                    await self.wake.wait()
        else:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def flush(self) -> None:
        while await self._start_due(self._route.at_once - len(self._running)) or self._running:
            if self._running:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        await cancel_and_wait(*self._running)

    async def _start_due(self, free: int) -> int:
        if free <= 0:
            return 0
        due = await self._outbox.take(self._name, self._clock(), free)
        for delivery in due:
            task = asyncio.create_task(self._deliver(delivery))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(due)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            error = await self._try_within_lease(delivery)
            if error is not None:
                await self._record_failure(delivery, error)
                return
            taken = Taken(self._clock(), self._age_s(delivery.event))
            await self._outbox.acknowledge(self._name, delivery.event_id, taken)
            self._instrument.on(EventDelivered(self._name, taken.age_s))
            _log.info("event.delivered", sink=self._name, event_id=delivery.event_id)
        except (RedisError, OSError) as error:
            # Redis has no record of this delivery, so the outbox offers it again: no event is lost.
            _log.warning("event.not_recorded", sink=self._name, event_id=delivery.event_id, error=str(error))

    async def _try_within_lease(self, delivery: Delivery) -> SinkError | None:
        """Delivers the event, and renews the lease meanwhile. Returns the error if the delivery failed."""
        renewing = asyncio.create_task(self._renew_until_cancelled(delivery))
        try:
            return await self._try_to_deliver(delivery)
        finally:
            await cancel_and_wait(renewing)

    async def _renew_until_cancelled(self, delivery: Delivery) -> None:
        while True:
            await asyncio.sleep(self._outbox.lease_s / 3)
            try:
                await self._outbox.renew(self._name, delivery.event_id, self._clock())
            except (RedisError, OSError) as error:
                # If the lease ends, another worker delivers the event as well.
                _log.debug("event.lease_not_renewed", sink=self._name, event_id=delivery.event_id, error=str(error))

    async def _try_to_deliver(self, delivery: Delivery) -> SinkError | None:
        """Delivers the event, and returns the error if the delivery failed."""
        if self._disabled_reason is not None:
            return SinkDisabledError(self._disabled_reason)
        if not delivery.event:
            return SinkRefusedError("the stored event cannot be read: it is damaged, or of a newer version")
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_S):
                await self._deliver_whole_or_smaller(delivery)
        except SinkError as error:
            return error
        except TimeoutError:
            return SinkError(f"did not take the event within {DELIVERY_TIMEOUT_S:g} s")
        except Exception as error:  # noqa: BLE001 - a defect in a sink must not end the loop that delivers all other events
            _log.exception("event.crashed", sink=self._name, event_id=delivery.event_id)
            return SinkError(f"failed unexpectedly ({type(error).__name__})")
        return None

    async def _deliver_whole_or_smaller(self, delivery: Delivery) -> None:
        """Delivers the event; without its objects if the sink does not take the whole event."""
        try:
            await self._route.sink.deliver(delivery.event_id, delivery.event)
        except EventTooLargeError as error:
            smaller = without_objects(delivery.event)
            if smaller is None:
                raise
            known = {"sink": self._name, "event_id": delivery.event_id}
            _log.info("event.objects_omitted", **known, error=str(error))
            await self._route.sink.deliver(delivery.event_id, smaller)

    async def _record_failure(self, delivery: Delivery, error: SinkError) -> None:
        now, reason = self._clock(), encodable(self._route.redactor.text(str(error)))
        self._instrument.on(EventRefused(self._name))
        if isinstance(error, SinkDisabledError) and self._disabled_reason is None:
            self._disabled_reason = reason
            _log.error("sink.disabled", sink=self._name, error=reason)
        known = {"sink": self._name, "event_id": delivery.event_id, "failures": delivery.failures + 1}
        match after_failure(self._route, delivery, error, epoch_ms(now), self._draw()):
            case DeliverAgain(wait_s):
                _log.warning("event.refused", **known, error=reason, wait_s=round(wait_s, 1))
                await self._outbox.postpone(self._name, delivery, now, wait_s, reason)
            case GiveUp():
                if not isinstance(error, SinkDisabledError):
                    _log.error("event.given_up", **known, error=reason)
                await self._outbox.give_up(self._name, delivery, now, reason)

    def _age_s(self, event: str) -> float:
        ended_at = datetime.fromisoformat(json.loads(event)["time"])
        return max(0.0, (self._clock() - ended_at).total_seconds())

"""Delivers every event to every sink. Each sink has a separate loop, so a sink that is down delays no other."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import structlog
from redis.exceptions import RedisError

from export_worker.contract.model import epoch_ms
from export_worker.contract.printable import encodable
from export_worker.lifecycle.export import Export, event_id_of
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.outbox import Delivery, Outbox, Taken, Taking
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

    @contextmanager
    def reserved(self, export: Export) -> Iterator["ReservedDeliveries"]:
        """Keeps a place for the event of an export that is about to end, in each of its sinks that has room.

        Only for its first event: a later one waits in the outbox while an earlier one is there.
        """
        names, notify = tuple(self._dispatchers), export.request.notify
        if export.generation > 1:
            names = ()
        elif notify is not None:
            names = tuple(name for name in names if name in notify)
        sinks = {name: each for name in names if (each := self._dispatchers[name]).has_room}
        for each in sinks.values():
            each.reserved += 1
        try:
            yield ReservedDeliveries(event_id_of(export), sinks, self._dispatchers.values(), self._outbox)
        finally:
            for each in sinks.values():
                each.reserved -= 1

    async def flush(self) -> None:
        """Delivers what is due now, and waits for running deliveries. Called before a worker stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await asyncio.gather(*(each.flush() for each in self._dispatchers.values()))
        await asyncio.gather(*(each.stop() for each in self._dispatchers.values()))

    async def is_empty(self) -> bool:
        """Returns whether every event has been delivered to every sink."""
        return all([await self._outbox.is_empty(name) for name in self._dispatchers])


@dataclass(frozen=True, slots=True)
class ReservedDeliveries:
    """Places for the deliveries of one event, while the commit of its export is on its way.

    Args:
        sinks: The sinks that have a place for it.
        others: All sinks of the worker.
    """

    event_id: str
    sinks: Mapping[str, "_SinkDispatcher"]
    others: Collection["_SinkDispatcher"]
    outbox: Outbox

    @property
    def taking(self) -> Taking | None:
        """What the commit is to take for this worker."""
        return Taking(tuple(self.sinks), self.outbox.lease_s) if self.sinks else None

    def deliver(self, event: bytes | None) -> None:
        """Starts the deliveries that the commit has taken. The outboxes of other sinks are read at once.

        Args:
            event: The stored event; None if the commit has taken nothing.
        """
        taken = self.sinks.values() if event is not None else ()
        if event is not None:
            delivery = self.outbox.delivery(self.event_id, event)
            for each in taken:
                each.start(delivery)
        for each in self.others:
            if each not in taken:
                each.wake.set()


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
        self.reserved = 0
        self.wake = asyncio.Event()

    @property
    def _free(self) -> int:
        return self._route.at_once - len(self._running) - self.reserved

    @property
    def has_room(self) -> bool:
        """Whether the sink can take one more event at once."""
        return self._free > 0

    async def run_once(self) -> None:
        """Starts due deliveries up to the limit. If there are none, waits until one ends or until the next read."""
        self.wake.clear()
        free = self._free
        if free > 0 and await self._start_due(free) == free:
            return
        if self.has_room or not self._running:
            with suppress(TimeoutError):
                async with asyncio.timeout(OUTBOX_POLL_S):
                    await self.wake.wait()
        else:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def flush(self) -> None:
        while await self._start_due(self._free) or self._running:
            if self._running:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        await cancel_and_wait(*self._running)

    async def _start_due(self, free: int) -> int:
        if free <= 0:
            return 0
        due = await self._outbox.take(self._name, self._clock(), free)
        for delivery in due:
            self.start(delivery)
        return len(due)

    def start(self, delivery: Delivery) -> None:
        """Starts a delivery that this worker has taken."""
        task = asyncio.create_task(self._deliver(delivery))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

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

"""Fires schedules: every worker with the role `control` does, and Redis decides each time once.

The worker keeps the schedules in a heap by the time at which they are due, and sleeps until the first one is. It calls
Redis once for each time, and once more `CONFIRM_S` later: a fail-over of Redis may have lost the first call, and the
second one then fires the time again, with the same export id.
"""

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from export_worker.schedules.firings import Due, Schedule, due
from export_worker.telemetry.instrumentation import Instrument, ScheduleDecided

CONFIRM_S = 30.0
"""A replica of Redis that is further behind is not promoted by any operator on purpose."""
SLEEP_MAX_S = 60.0
"""The longest sleep: the clock that all workers share may be corrected meanwhile."""
ANNOUNCE_S = 300.0
"""Between announcements, which show that a worker has the schedules."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Fired:
    """How Redis has decided one time.

    Args:
        verdict: See `fire.lua`.
        export_id: The export that was enqueued, or that is still open.
        problem: Why the request was refused.
    """

    verdict: str
    export_id: str | None = None
    problem: str | None = None


class Firing(Protocol):
    """The schedules in Redis. Each method raises the errors of redis-py."""

    async def announce(self, after: Mapping[str, datetime], due_at: Mapping[str, datetime]) -> Mapping[str, datetime]:
        """Stores the definitions. Returns the time until which the times of each schedule are decided.

        Args:
            after: The same as this worker knows it, for schedules that Redis does not have.
            due_at: When each schedule is due next.
        """

    async def fire(self, name: str, decided: Due, next_due: datetime) -> Fired:
        """Fires one time, unless it has been decided before."""


@dataclass(frozen=True, slots=True, order=True)
class _Visit:
    """An entry of the heap. A confirmation is before the next time of the same moment."""

    at: datetime
    fires: bool
    name: str
    confirmed: Due | None = None


class Scheduler:
    """Fires the schedules of one configuration. `run_once` is called again and again.

    Args:
        now: Returns the time that all workers share.
    """

    def __init__(
        self, schedules: Sequence[Schedule], firing: Firing, now: Callable[[], datetime], instrument: Instrument
    ) -> None:
        self._schedules = {schedule.name: schedule for schedule in schedules}
        self._firing = firing
        self._now = now
        self._instrument = instrument
        self._after: dict[str, datetime] = {}
        self._next: dict[str, datetime] = {}
        self._heap: list[_Visit] = []
        self._announce_at: datetime | None = None

    async def run_once(self) -> None:
        """Fires what is due, and sleeps until something is due again.

        Raises:
            RedisError: Redis is unreachable or refuses a command. Nothing that is due is lost: it is due again.
        """
        if self._announce_at is None or self._announce_at <= self._now():
            await self._announce()
        while self._heap and self._heap[0].at <= self._now():
            visit = self._heap[0]
            following = await self._visited(visit)
            # Only now: a visit that has failed is repeated.
            heapq.heappop(self._heap)
            for each in following:
                heapq.heappush(self._heap, each)
        await asyncio.sleep(self._sleep_s())

    def _sleep_s(self) -> float:
        first = min(filter(None, (self._heap[0].at if self._heap else None, self._announce_at)))
        return min(SLEEP_MAX_S, max(0.001, (first - self._now()).total_seconds()))

    async def _announce(self) -> None:
        now = self._now()
        known = {name: self._after.get(name, now) for name in self._schedules}
        if not self._next:
            for name in known:
                self._next[name] = self._due_after(name, now)
                await asyncio.sleep(0)  # a thousand expressions take a while
        stored = await self._firing.announce(known, self._next)
        if not self._after:
            self._after = dict(stored)
            self._heap = [
                _Visit(now if after < now else self._next[name], True, name) for name, after in stored.items()
            ]
            heapq.heapify(self._heap)
        self._announce_at = now + timedelta(seconds=ANNOUNCE_S)

    def _due_after(self, name: str, moment: datetime) -> datetime:
        schedule = self._schedules[name]
        return schedule.due_at(schedule.cron.next_after(moment))

    async def _visited(self, visit: _Visit) -> list[_Visit]:
        """Does one visit, and returns those that follow from it."""
        await asyncio.sleep(0)  # other tasks run between the visits of many schedules
        name = visit.name
        if visit.confirmed is not None:
            await self._fire(name, visit.confirmed, is_confirmation=True)
            return []
        found = due(self._schedules[name], self._after[name], self._now())
        next_due = self._next[name] = self._due_after(name, found.time if found else self._after[name])
        following = _Visit(next_due, True, name)
        if found is None:
            return [following]
        await self._fire(name, found)
        self._after[name] = found.time
        confirm_at = min(self._now() + timedelta(seconds=CONFIRM_S), next_due)
        return [following, _Visit(confirm_at, False, name, found)]

    async def _fire(self, name: str, decided: Due, *, is_confirmation: bool = False) -> None:
        fired = await self._firing.fire(name, decided, self._next[name])
        if fired.verdict == "unknown":
            # Redis has lost the schedule. It gets it with the times that this worker has not fired.
            before = decided.time - timedelta(milliseconds=1)
            await self._firing.announce(self._after | {name: before}, self._next)
            fired = await self._firing.fire(name, decided, self._next[name])
        if fired.verdict in {"done", "paused", "unknown"}:
            return
        self._instrument.on(ScheduleDecided(name, fired.verdict))
        details = {"schedule": name, "time": decided.time.isoformat(), "export_id": fired.export_id}
        if is_confirmation:
            _log.warning("schedule.decided_again", outcome=fired.verdict, **details)
        elif fired.verdict == "fired":
            _log.info("schedule.fired", **details)
        else:
            _log.warning(f"schedule.{fired.verdict}", problem=fired.problem, **details)

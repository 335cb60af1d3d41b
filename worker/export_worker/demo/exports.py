"""Enqueues the demo's exports, watches them until they end, and collects their events."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp

from export_producers.client import ExportQueue
from export_worker.contract.event import Event
from export_worker.contract.status import Phase, Status
from export_worker.demo.requests import FLAKY, GOOD, demo_requests
from export_worker.redis.client import close_redis, open_redis

STATUS_POLL_S = 0.1
"""The interval at which statuses and events are read."""
EVENTS_TIMEOUT_S = 15.0
"""An event normally arrives within a second of the export's end. After the death of the
worker that delivers it, the next delivery would take longer than this timeout."""
STREAM = "exports:events"

ShowStatuses = Callable[[Sequence[Status]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The final statuses of the demo's exports, in the order in which they were enqueued, and their events."""

    statuses: Sequence[Status]
    events: Sequence[Event]

    @property
    def complete(self) -> bool:
        """Whether every export has succeeded and has its event."""
        announced = {event.subject for event in self.events if event.type == "export.succeeded"}
        return all(status.phase is Phase.SUCCEEDED and status.export_id in announced for status in self.statuses)


async def run_exports(
    redis_url: str,
    platform_url: str,
    count: int,
    show: ShowStatuses,
    timeout_s: float,
) -> Outcome:
    """Runs two rounds with each export of the demo: in the second the platforms fail each kind of call at least once.

    Args:
        redis_url: The Redis of the workers.
        platform_url: The simulator.
        count: The number of exports in the first round. Each of `EXPORTS` runs at least once.
        show: Called with all statuses each time they were read.
        timeout_s: The timeout of each round. An export that has not ended by then counts as failed.
    """
    ended: list[Status] = []
    async with ExportQueue(redis_url) as queue:
        for round_name, number in ((GOOD, count), (FLAKY, 0)):
            await _set_flaky(platform_url, flaky=round_name == FLAKY)
            accepted = [await queue.enqueue(request) for request in demo_requests(number, round_name)]
            ids = [answer.export_id for answer in accepted]
            ended += await _watch(queue, ids, partial(_show_after, show, tuple(ended)), timeout_s)
    await _set_flaky(platform_url, flaky=False)
    return Outcome(ended, await _events(redis_url, {status.export_id for status in ended if status.phase.terminal}))


def _show_after(show: ShowStatuses, before: Sequence[Status], statuses: Sequence[Status]) -> None:
    """Shows the statuses of a round below those of the round before."""
    show([*before, *statuses])


async def _watch(queue: ExportQueue, ids: Sequence[str], show: ShowStatuses, timeout_s: float) -> list[Status]:
    """Shows the statuses until all exports have ended or the timeout is reached, and returns the last ones."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    latest: dict[str, Status] = {}
    opened = list(ids)
    while True:
        latest |= {export_id: await queue.status(export_id) for export_id in opened}
        statuses = [latest[export_id] for export_id in ids]
        show(statuses)
        opened = [status.export_id for status in statuses if not status.phase.terminal]
        if not opened or asyncio.get_running_loop().time() > deadline:
            return statuses
        await asyncio.sleep(STATUS_POLL_S)


async def _set_flaky(platform_url: str, *, flaky: bool) -> None:
    """Switches the simulator's preset of faults on or off."""
    async with (
        aiohttp.ClientSession() as session,
        session.patch(f"{platform_url}/_sim/scenario", json={"flaky": flaky}) as answer,
    ):
        answer.raise_for_status()


async def _events(redis_url: str, export_ids: set[str]) -> list[Event]:
    """Returns the events of these exports, oldest first. After a timeout it returns those that have arrived."""
    redis = open_redis(redis_url)
    try:
        deadline = asyncio.get_running_loop().time() + EVENTS_TIMEOUT_S
        while True:
            entries = await redis.xrange(STREAM)
            events = [Event.model_validate_json(fields[b"event"]) for _, fields in entries]
            found = [event for event in events if event.subject in export_ids]
            if {event.subject for event in found} == export_ids or asyncio.get_running_loop().time() > deadline:
                return found
            await asyncio.sleep(STATUS_POLL_S)
    finally:
        await close_redis(redis)

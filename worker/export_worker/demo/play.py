"""Enqueues the demo's exports, follows them to their end, and collects their events."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp

from export_producers.client import ExportQueue
from export_worker.contract.event import Event
from export_worker.contract.status import Phase, Status
from export_worker.demo.requests import demo_requests
from export_worker.redis.client import close_redis, open_redis

LOOK_S = 0.1
EVENTS_TIMEOUT_S = 15.0
"""An event follows its export within a second; a dispatcher that died gives its deliveries back after longer."""
STREAM = "exports:events"

Show = Callable[[Sequence[Status]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the demo's exports, in the order in which they were enqueued."""

    statuses: Sequence[Status]
    events: Sequence[Event]

    @property
    def complete(self) -> bool:
        """Every export succeeded and was announced."""
        announced = {event.subject for event in self.events if event.type == "export.succeeded"}
        return all(status.phase is Phase.SUCCEEDED and status.export_id in announced for status in self.statuses)


async def play(
    redis_url: str,
    platform_url: str,
    count: int,
    show: Show,
    timeout_s: float,
) -> Outcome:
    """Run every kind of export twice: while all goes well, and while each call of the platform fails once.

    Args:
        count: Exports in the good round, if that is more than one of each kind.
        show: Called with all statuses whenever they have been looked at.
        timeout_s: Of each round; what is still open then counts as failed.
    """
    ended: list[Status] = []
    async with ExportQueue(redis_url) as queue:
        for weather, requests in (("good", demo_requests(count, "good")), ("flaky", demo_requests(0, "flaky"))):
            await _tell(platform_url, flaky=weather == "flaky")
            accepted = [await queue.enqueue(request) for request in requests]
            ids = [answer.export_id for answer in accepted]
            ended += await _follow(queue, ids, partial(_show_after, show, tuple(ended)), timeout_s)
    await _tell(platform_url, flaky=False)
    return Outcome(ended, await _events(redis_url, {status.export_id for status in ended if status.phase.terminal}))


def _show_after(show: Show, before: Sequence[Status], statuses: Sequence[Status]) -> None:
    """Show a round below the one before."""
    show([*before, *statuses])


async def _follow(queue: ExportQueue, ids: Sequence[str], show: Show, timeout_s: float) -> list[Status]:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        statuses = [await queue.status(export_id) for export_id in ids]
        show(statuses)
        if all(status.phase.terminal for status in statuses) or asyncio.get_running_loop().time() > deadline:
            return statuses
        await asyncio.sleep(LOOK_S)


async def _tell(platform_url: str, *, flaky: bool) -> None:
    """Tell the simulator how the weather is."""
    async with (
        aiohttp.ClientSession() as session,
        session.patch(f"{platform_url}/_sim/scenario", json={"flaky": flaky}) as answer,
    ):
        answer.raise_for_status()


async def _events(redis_url: str, export_ids: set[str]) -> list[Event]:
    """The events of these exports, oldest first; those that came until the time was up."""
    redis = open_redis(redis_url)
    try:
        deadline = asyncio.get_running_loop().time() + EVENTS_TIMEOUT_S
        while True:
            entries = await redis.xrange(STREAM)
            events = [Event.model_validate_json(fields[b"event"]) for _, fields in entries]
            found = [event for event in events if event.subject in export_ids]
            if {event.subject for event in found} == export_ids or asyncio.get_running_loop().time() > deadline:
                return found
            await asyncio.sleep(LOOK_S)
    finally:
        await close_redis(redis)

"""Sinks that a test scripts, and dispatchers that deliver events to them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from export_worker.lifecycle import transitions
from export_worker.lifecycle.backoff import Backoff
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.outbox import Outbox
from export_worker.sinks.base import Sink, SinkError, SinkRoute
from export_worker.sinks.dispatcher import EventDispatcher
from support.redis_site import REFUSED, QueueSite

GIVE_UP_S = 3600.0
RETRY = Backoff(10.0, 100.0)


@dataclass
class ScriptedSink:
    """A sink that follows a script: it raises an error, or waits until the test releases it."""

    error: SinkError | None = None
    hangs_on: Callable[[str], bool] = lambda _: False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    tried: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    async def deliver(self, event_id: str, event: str) -> None:
        """Follows the script."""
        assert event_id in event
        self.tried.append(event_id)
        if self.hangs_on(event_id):
            await self.released.wait()
        if self.error is not None:
            raise self.error
        self.taken.append(event_id)

    async def close(self) -> None:
        """Has nothing to close."""


@dataclass(frozen=True)
class GivenUp:
    """An event that a sink will not get, and the note that its worker has written."""

    event_id: str
    at: str
    failures: int
    reason: str


async def given_up(site: QueueSite, sink: str) -> list[GivenUp]:
    """Returns the events whose delivery was given up, the oldest first."""
    notes = await site.redis.hgetall(site.keys.undelivered(sink))
    found = [GivenUp(event_id.decode(), **json.loads(note)) for event_id, note in notes.items()]
    return sorted(found, key=lambda event: (event.at, event.event_id))


def outbox_of(site: QueueSite) -> Outbox:
    """Returns the outbox of the namespace."""
    return Outbox(site.redis, site.keys)


def dispatcher_of(site: QueueSite, draw: float = 1.0, at_once: int = 4, **sinks: Sink) -> EventDispatcher:
    """Returns the dispatcher of a worker. Its time is the time of the site."""
    routes = {name: SinkRoute(sink, at_once, RETRY, GIVE_UP_S) for name, sink in sinks.items()}
    return EventDispatcher(outbox_of(site), routes, lambda: site.now, lambda: draw)


@asynccontextmanager
async def running(dispatcher: EventDispatcher) -> AsyncIterator[None]:
    """Runs a dispatcher during the block."""

    async def loop(action: Callable[[], object]) -> None:
        while True:
            await action()  # type: ignore[misc]  # an awaitable each time

    tasks = [asyncio.create_task(loop(action)) for action in dispatcher.loops()]
    yield
    await asyncio.gather(*map(cancel_and_wait, tasks))
    await dispatcher.flush()


async def until(happened: Callable[[], bool]) -> None:
    """Waits until something has happened."""
    async with asyncio.timeout(30):
        while not happened():
            await asyncio.sleep(0.01)


async def ended_export(site: QueueSite) -> str:
    """Ends one export as failed, and returns the id of its event."""
    return f"{await site.ended(REFUSED)}.1"


async def ended_again(site: QueueSite, event_id: str) -> str:
    """Retries the export of an event, ends it again, and returns the id of the next event. Nothing else may be due."""
    export_id, _, generation = event_id.partition(".")
    await site.queue.retry(export_id)
    site.catch_up()
    claimed = await site.one()
    await site.commit(claimed, transitions.restart(claimed.export, claimed.retry, site.moment()))
    await site.fail(await site.one(), REFUSED)
    return f"{export_id}.{int(generation) + 1}"

"""From the outbox to the sinks: nothing waits for what hangs, and counts outlive whoever counted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from export_worker.lifecycle.backoff import Backoff
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.outbox import Delivery, Outbox
from export_worker.redis.replay import Replay
from export_worker.sinks.base import SinkError, SinkGoneError, SinkRefusedError, SinkRoute
from export_worker.sinks.fanout import Again, Fanout, GiveUp, after_failure
from support.redis_site import REFUSED, SINKS, QueueSite

GIVE_UP_S = 3600.0
RETRY = Backoff(10.0, 100.0)


@dataclass
class Played:
    """A sink that does as it is told: raises, or waits until it may go on."""

    error: SinkError | None = None
    hangs_on: Callable[[str], bool] = lambda _: False
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    tried: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    async def deliver(self, event_id: str, event: str) -> None:
        assert event_id in event
        self.tried.append(event_id)
        if self.hangs_on(event_id):
            await self.may_go_on.wait()
        if self.error is not None:
            raise self.error
        self.taken.append(event_id)

    async def close(self) -> None:
        pass


def outbox_of(site: QueueSite) -> Outbox:
    return Outbox(site.redis, site.keys)


def fanout_of(site: QueueSite, draw: float = 1.0, at_once: int = 4, **sinks: Played) -> Fanout:
    routes = {name: SinkRoute(sink, at_once, RETRY, GIVE_UP_S) for name, sink in sinks.items()}
    return Fanout(outbox_of(site), routes, lambda: site.now, lambda: draw)


@asynccontextmanager
async def running(fanout: Fanout) -> AsyncIterator[None]:
    async def loop(claimed: Callable[[], object]) -> None:
        while True:
            await claimed()  # type: ignore[misc]  # an awaitable each time

    tasks = [asyncio.create_task(loop(claimed)) for claimed in fanout.loops()]
    yield
    await asyncio.gather(*map(cancel_and_wait, tasks))
    await fanout.flush()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():
            await asyncio.sleep(0.01)


async def end_of(site: QueueSite) -> str:
    """An export that has failed; its event's id."""
    return f"{await site.ended(REFUSED)}.1"


async def test_each_sink_gets_each_event_once(queue_site: QueueSite) -> None:
    ids = [await end_of(queue_site) for _ in range(5)]
    hook, stream = Played(), Played()
    async with running(fanout_of(queue_site, hook=hook, stream=stream)):
        await until(lambda: len(hook.taken) == len(stream.taken) == 5)
    assert sorted(hook.tried) == sorted(stream.tried) == sorted(ids)
    assert "refusals" not in {name.partition(":")[0] for name in await queue_site.left()}


async def test_one_delivery_that_hangs_holds_up_neither_its_sink_nor_the_other(queue_site: QueueSite) -> None:
    slow_id = await end_of(queue_site)
    for _ in range(9):
        await end_of(queue_site)
    hook, stream = Played(hangs_on=lambda event_id: event_id == slow_id), Played()
    async with running(fanout_of(queue_site, hook=hook, stream=stream)):
        await until(lambda: (len(hook.taken), len(stream.taken)) == (9, 10))
        hook.may_go_on.set()
        await until(lambda: len(hook.taken) == 10)
    assert len(hook.tried) == 10


async def test_no_more_deliveries_than_allowed_are_on_their_way(queue_site: QueueSite) -> None:
    for _ in range(6):
        await end_of(queue_site)
    hook = Played(hangs_on=lambda _: True)
    async with running(fanout_of(queue_site, at_once=3, hook=hook)):
        await until(lambda: len(hook.tried) == 3)
        await asyncio.sleep(0.5)
        assert len(hook.tried) == 3
        hook.may_go_on.set()
        await until(lambda: len(hook.taken) == 6)


async def test_a_new_worker_goes_on_counting(queue_site: QueueSite) -> None:
    event_id = await end_of(queue_site)
    waits = []
    for failures in range(4):
        hook = Played(SinkError("HTTP 500"))
        await fanout_of(queue_site, hook=hook).flush()
        assert hook.tried == [event_id]
        delivery_due = await queue_site.redis.zscore(queue_site.keys.outbox("hook"), event_id)
        waits.append((delivery_due - queue_site.now_ms) / 1000)
        kept = await queue_site.redis.hget(queue_site.keys.refusals("hook"), event_id)
        assert kept.decode().startswith(f"{failures + 1}:")
        queue_site.later(waits[-1])
    assert waits == [10, 20, 40, 80]
    hook = Played()
    await fanout_of(queue_site, hook=hook).flush()
    assert hook.taken == [event_id]
    assert not await queue_site.redis.exists(queue_site.keys.refusals("hook"))


async def test_what_is_refused_for_too_long_is_given_up_kept_and_replayed(queue_site: QueueSite) -> None:
    event_id = await end_of(queue_site)
    outbox, began = outbox_of(queue_site), queue_site.now
    while not await outbox.is_empty("hook"):
        await fanout_of(queue_site, hook=Played(SinkError("HTTP 500"))).flush()
        queue_site.later(100)
        assert queue_site.now < began + timedelta(seconds=2 * GIVE_UP_S)
    assert queue_site.now >= began + timedelta(seconds=GIVE_UP_S)
    (given_up,) = await outbox.undelivered("hook")
    assert (given_up.event_id, given_up.reason) == (event_id, "HTTP 500")
    assert given_up.failures > 30

    replay = Replay(queue_site.redis, queue_site.keys, ["hook"])
    (again,) = await replay.since(began - timedelta(days=1), queue_site.now)
    assert (again.event_id, again.type, again.sinks) == (event_id, "export.failed", ("hook",))
    hook = Played()
    await fanout_of(queue_site, hook=hook).flush()
    assert hook.taken == [event_id]
    assert await outbox.undelivered("hook") == []


async def test_an_event_that_is_refused_for_good_is_given_up_at_once(queue_site: QueueSite) -> None:
    event_id = await end_of(queue_site)
    hook = Played(SinkRefusedError("too long"))
    await fanout_of(queue_site, hook=hook).flush()
    assert [item.event_id for item in await outbox_of(queue_site).undelivered("hook")] == [event_id]
    assert not await outbox_of(queue_site).is_empty("stream")


async def test_a_place_that_is_gone_is_asked_once(queue_site: QueueSite) -> None:
    first = await end_of(queue_site)
    hook = Played(SinkGoneError("HTTP 410"))
    fanout = fanout_of(queue_site, hook=hook)
    await fanout.flush()
    second = await end_of(queue_site)
    await fanout.flush()
    assert hook.tried == [first]
    assert [item.event_id for item in await outbox_of(queue_site).undelivered("hook")] == [first, second]


async def test_a_defect_of_a_sink_is_a_failure_like_any_other(queue_site: QueueSite) -> None:
    class Broken(Played):
        async def deliver(self, event_id: str, event: str) -> None:
            await super().deliver(event_id, event)
            raise ZeroDivisionError

    await end_of(queue_site)
    await fanout_of(queue_site, hook=Broken()).flush()
    assert not await outbox_of(queue_site).is_empty("hook")
    assert await queue_site.redis.hlen(queue_site.keys.refusals("hook")) == 1


async def test_a_request_may_name_its_sinks(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue(notify=["hook"])
    await queue_site.submit(await queue_site.one())
    await queue_site.fail(await queue_site.one(), REFUSED)
    assert await queue_site.members(queue_site.keys.outbox("hook")) == [f"{export_id}.1"]
    assert await queue_site.members(queue_site.keys.outbox("stream")) == []
    replay = Replay(queue_site.redis, queue_site.keys, SINKS)
    (again,) = await replay.since(queue_site.now - timedelta(days=1), queue_site.now, dry_run=True)
    assert again.sinks == ("hook",)
    assert await queue_site.members(queue_site.keys.outbox("stream")) == []


async def test_only_what_came_about_since_then_is_replayed(queue_site: QueueSite) -> None:
    await end_of(queue_site)
    queue_site.later(60)
    moment = queue_site.now
    second = await end_of(queue_site)
    replay = Replay(queue_site.redis, queue_site.keys, SINKS)
    assert [item.event_id for item in await replay.since(moment, queue_site.now)] == [second]


@given(
    failures=st.integers(0, 200),
    refused_s=st.none() | st.floats(0, 2 * GIVE_UP_S),
    asked_s=st.none() | st.floats(0, 1e9),
    draw=st.floats(0, 1),
)
def test_a_wait_is_bounded_obeys_and_ends(
    failures: int, refused_s: float | None, asked_s: float | None, draw: float
) -> None:
    now_ms = 10**12
    first_ms = None if refused_s is None else now_ms - int(refused_s * 1000)
    route, delivery = SinkRoute(Played(), 1, RETRY, GIVE_UP_S), Delivery("e.1", "{}", failures, first_ms)
    decided = after_failure(route, delivery, SinkError("x", retry_after_s=asked_s), now_ms, draw)
    if refused_s is not None and int(refused_s * 1000) >= GIVE_UP_S * 1000:
        assert decided == GiveUp()
        return
    assert isinstance(decided, Again)
    left_s = GIVE_UP_S - (refused_s or 0.0)
    assert decided.wait_s <= left_s + RETRY.max_s + 0.01
    assert decided.wait_s + 0.01 >= min(asked_s or 0.0, left_s)
    for final in (SinkRefusedError("x"), SinkGoneError("x")):
        assert after_failure(route, delivery, final, now_ms, draw) == GiveUp()

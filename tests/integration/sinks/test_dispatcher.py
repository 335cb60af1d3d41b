"""The event dispatcher: deliveries that hang delay no others, and counts of failures survive a restart."""

import asyncio
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from export_worker.credentials import Redactor
from export_worker.redis.outbox import ANSWER_MAX_CHARS, Delivery
from export_worker.redis.replay import Replay
from export_worker.sinks.base import SinkDisabledError, SinkError, SinkRefusedError, SinkRoute
from export_worker.sinks.dispatcher import DeliverAgain, EventDispatcher, GiveUp, after_failure
from support.earlier_records import remove_event
from support.event_sinks import (
    GIVE_UP_S,
    RETRY,
    ScriptedSink,
    dispatcher_of,
    ended_export,
    given_up,
    outbox_of,
    running,
    until,
)
from support.redis_site import REFUSED, SINKS, QueueSite


async def test_dispatcher_delivers_each_event_once_to_each_sink(queue_site: QueueSite) -> None:
    ids = [await ended_export(queue_site) for _ in range(5)]
    hook, stream = ScriptedSink(), ScriptedSink()
    async with running(dispatcher_of(queue_site, hook=hook, stream=stream)):
        await until(lambda: len(hook.taken) == len(stream.taken) == 5)
    assert sorted(hook.tried) == sorted(stream.tried) == sorted(ids)
    assert "refusals" not in {name.partition(":")[0] for name in await queue_site.left()}


async def test_delivery_that_hangs_delays_no_other_delivery(queue_site: QueueSite) -> None:
    slow_id = await ended_export(queue_site)
    for _ in range(9):
        await ended_export(queue_site)
    hook, stream = ScriptedSink(hangs_on=lambda event_id: event_id == slow_id), ScriptedSink()
    async with running(dispatcher_of(queue_site, hook=hook, stream=stream)):
        await until(lambda: (len(hook.taken), len(stream.taken)) == (9, 10))
        hook.released.set()
        await until(lambda: len(hook.taken) == 10)
    assert len(hook.tried) == 10


async def test_dispatcher_keeps_limit_of_concurrent_deliveries(queue_site: QueueSite) -> None:
    for _ in range(6):
        await ended_export(queue_site)
    hook = ScriptedSink(hangs_on=lambda _: True)
    async with running(dispatcher_of(queue_site, at_once=3, hook=hook)):
        await until(lambda: len(hook.tried) == 3)
        await asyncio.sleep(0.5)
        assert len(hook.tried) == 3
        hook.released.set()
        await until(lambda: len(hook.taken) == 6)


async def test_reason_of_an_event_that_is_given_up_has_no_secret(queue_site: QueueSite) -> None:
    await ended_export(queue_site)
    redactor = Redactor()
    redactor.add("canary-token-of-a-sink")
    sink = ScriptedSink(SinkRefusedError("sns refused publish: No canary%2Dtoken%2Dof%2Da%2Dsink"))
    route = SinkRoute(sink, 1, RETRY, GIVE_UP_S, redactor)
    dispatcher = EventDispatcher(outbox_of(queue_site), {"hook": route}, lambda: queue_site.now, lambda: 1.0)
    await dispatcher.flush()
    (event,) = await given_up(queue_site, "hook")
    assert event.reason == "sns refused publish: No ***"


async def test_new_dispatcher_continues_count_of_failures(queue_site: QueueSite) -> None:
    event_id = await ended_export(queue_site)
    waits = []
    for failures in range(4):
        hook = ScriptedSink(SinkError("HTTP 500"))
        await dispatcher_of(queue_site, hook=hook).flush()
        assert hook.tried == [event_id]
        delivery_due = await queue_site.redis.zscore(queue_site.keys.outbox("hook"), event_id)
        waits.append((delivery_due - queue_site.now_ms) / 1000)
        kept = await queue_site.redis.hget(queue_site.keys.refusals("hook"), event_id)
        assert kept.decode().startswith(f"{failures + 1}:")
        assert await queue_site.redis.hget(queue_site.keys.answers("hook"), event_id) == b"HTTP 500"
        queue_site.later(waits[-1])
    assert waits == [10, 20, 40, 80]
    hook = ScriptedSink()
    await dispatcher_of(queue_site, hook=hook).flush()
    assert hook.taken == [event_id]
    assert not await queue_site.redis.exists(queue_site.keys.refusals("hook"))
    assert not await queue_site.redis.exists(queue_site.keys.answers("hook"))


async def test_answer_of_an_event_that_has_expired_is_removed(queue_site: QueueSite) -> None:
    event_id = await ended_export(queue_site)
    await dispatcher_of(queue_site, hook=ScriptedSink(SinkError("x" * 5000))).flush()
    assert await queue_site.redis.hstrlen(queue_site.keys.answers("hook"), event_id) == ANSWER_MAX_CHARS
    await remove_event(queue_site, event_id)
    queue_site.later(3600)
    await dispatcher_of(queue_site, hook=ScriptedSink()).flush()
    assert not await queue_site.redis.exists(queue_site.keys.answers("hook"))


async def test_event_refused_for_too_long_is_given_up_listed_and_replayed(queue_site: QueueSite) -> None:
    event_id = await ended_export(queue_site)
    outbox, started_at = outbox_of(queue_site), queue_site.now
    while not await outbox.is_empty("hook"):
        await dispatcher_of(queue_site, hook=ScriptedSink(SinkError("HTTP 500"))).flush()
        queue_site.later(100)
        assert queue_site.now < started_at + timedelta(seconds=2 * GIVE_UP_S)
    assert queue_site.now >= started_at + timedelta(seconds=GIVE_UP_S)
    (event,) = await given_up(queue_site, "hook")
    assert (event.event_id, event.reason) == (event_id, "HTTP 500")
    assert event.failures > 30

    replay = Replay(queue_site.redis, queue_site.keys, ["hook"])
    (replayed,) = await replay.since(started_at - timedelta(days=1), queue_site.now)
    assert (replayed.event_id, replayed.type, replayed.sinks) == (event_id, "export.failed", ("hook",))
    hook = ScriptedSink()
    await dispatcher_of(queue_site, hook=hook).flush()
    assert hook.taken == [event_id]
    assert await given_up(queue_site, "hook") == []


async def test_event_that_sink_will_never_take_is_given_up_at_once(queue_site: QueueSite) -> None:
    event_id = await ended_export(queue_site)
    hook = ScriptedSink(SinkRefusedError("too long"))
    await dispatcher_of(queue_site, hook=hook).flush()
    assert [item.event_id for item in await given_up(queue_site, "hook")] == [event_id]
    assert not await outbox_of(queue_site).is_empty("stream")


async def test_disabled_sink_is_called_once(queue_site: QueueSite) -> None:
    first = await ended_export(queue_site)
    hook = ScriptedSink(SinkDisabledError("HTTP 410"))
    dispatcher = dispatcher_of(queue_site, hook=hook)
    await dispatcher.flush()
    second = await ended_export(queue_site)
    await dispatcher.flush()
    assert hook.tried == [first]
    assert [item.event_id for item in await given_up(queue_site, "hook")] == [first, second]


async def test_unexpected_error_of_sink_counts_as_refusal(queue_site: QueueSite) -> None:
    class Broken(ScriptedSink):
        async def deliver(self, event_id: str, event: str) -> None:
            await super().deliver(event_id, event)
            raise ZeroDivisionError

    await ended_export(queue_site)
    await dispatcher_of(queue_site, hook=Broken()).flush()
    assert not await outbox_of(queue_site).is_empty("hook")
    assert await queue_site.redis.hlen(queue_site.keys.refusals("hook")) == 1


async def test_request_that_names_sinks_is_announced_only_to_them(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue(notify=["hook"])
    await queue_site.submit(await queue_site.one())
    await queue_site.fail(await queue_site.one(), REFUSED)
    assert await queue_site.members(queue_site.keys.outbox("hook")) == [f"{export_id}.1"]
    assert await queue_site.members(queue_site.keys.outbox("stream")) == []
    replay = Replay(queue_site.redis, queue_site.keys, SINKS)
    (replayed,) = await replay.since(queue_site.now - timedelta(days=1), queue_site.now, dry_run=True)
    assert replayed.sinks == ("hook",)
    assert await queue_site.members(queue_site.keys.outbox("stream")) == []


async def test_replay_skips_events_before_the_moment(queue_site: QueueSite) -> None:
    await ended_export(queue_site)
    queue_site.later(60)
    moment = queue_site.now
    second = await ended_export(queue_site)
    replay = Replay(queue_site.redis, queue_site.keys, SINKS)
    assert [item.event_id for item in await replay.since(moment, queue_site.now)] == [second]


@given(
    failures=st.integers(0, 200),
    refused_s=st.none() | st.floats(0, 2 * GIVE_UP_S),
    asked_s=st.none() | st.floats(0, 1e9),
    draw=st.floats(0, 1),
)
def test_wait_after_failure_respects_retry_after_and_stays_bounded(
    failures: int, refused_s: float | None, asked_s: float | None, draw: float
) -> None:
    now_ms = 10**12
    first_ms = None if refused_s is None else now_ms - int(refused_s * 1000)
    route, delivery = SinkRoute(ScriptedSink(), 1, RETRY, GIVE_UP_S), Delivery("e.1", "{}", failures, first_ms)
    decided = after_failure(route, delivery, SinkError("x", retry_after_s=asked_s), now_ms, draw)
    if refused_s is not None and int(refused_s * 1000) >= GIVE_UP_S * 1000:
        assert decided == GiveUp()
        return
    assert isinstance(decided, DeliverAgain)
    left_s = GIVE_UP_S - (refused_s or 0.0)
    assert decided.wait_s <= left_s + RETRY.max_s + 0.01
    assert decided.wait_s + 0.01 >= min(asked_s or 0.0, left_s)
    for final in (SinkRefusedError("x"), SinkDisabledError("x")):
        assert after_failure(route, delivery, final, now_ms, draw) == GiveUp()

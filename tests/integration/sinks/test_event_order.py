"""The order of the events of one export, and the leases of deliveries."""

import asyncio
from datetime import UTC, datetime

from export_worker.lifecycle import endings
from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.export import event_id_of
from export_worker.redis.claims import NO_SIGNAL
from export_worker.redis.outbox import DELIVERY_LEASE_S, Outbox, Taking
from export_worker.redis.replay import Replay
from export_worker.sinks.base import SinkError, SinkRefusedError, SinkRoute
from export_worker.sinks.dispatcher import EventDispatcher
from support.event_sinks import (
    GIVE_UP_S,
    ScriptedSink,
    dispatcher_of,
    ended_again,
    ended_export,
    outbox_of,
    running,
    until,
)
from support.redis_site import SINKS, QueueSite


async def taken(site: QueueSite, sink: str = "hook") -> list[str]:
    """Takes due deliveries as a worker does that is then killed, and returns their events."""
    return [delivery.event_id for delivery in await outbox_of(site).take(sink, site.now)]


async def test_later_event_waits_while_the_worker_that_took_the_earlier_one_is_dead(queue_site: QueueSite) -> None:
    first = await ended_export(queue_site)
    assert await taken(queue_site) == [first]
    second = await ended_again(queue_site, first)
    queue_site.later(DELIVERY_LEASE_S - 1)
    assert await taken(queue_site) == []
    queue_site.later(2)
    hook = ScriptedSink()
    dispatcher = dispatcher_of(queue_site, hook=hook)
    await dispatcher.flush()
    assert hook.taken == [first]
    queue_site.later(1)
    await dispatcher.flush()
    assert hook.taken == [first, second]


async def end_and_deliver(site: QueueSite, dispatcher: EventDispatcher) -> str:
    """Ends an export as a worker does that delivers its event itself, and returns the id of the event."""
    await site.enqueue()
    claimed = await site.one()
    decision = endings.after_cancel(claimed.export, site.moment())
    with dispatcher.reserved(decision.export) as reserved:
        event = await site.store.commit(claimed, decision, site.now, NO_SIGNAL, reserved.taking)
        reserved.deliver(event if isinstance(event, bytes) else None)
    return event_id_of(decision.export)


async def test_commit_takes_the_event_for_the_sinks_of_its_worker_that_have_room(queue_site: QueueSite) -> None:
    hook, stream = ScriptedSink(), ScriptedSink(hangs_on=lambda _: True)
    dispatcher = dispatcher_of(queue_site, at_once=1, hook=hook, stream=stream)
    first = await end_and_deliver(queue_site, dispatcher)
    assert await taken(queue_site, "stream") == []  # the worker has taken it, and would lose its lease by dying
    await until(lambda: stream.tried == [first] and hook.taken == [first])
    second = await end_and_deliver(queue_site, dispatcher)
    assert await taken(queue_site, "hook") == []
    assert await taken(queue_site, "stream") == [second]
    stream.released.set()
    await dispatcher.flush()
    assert (hook.taken, stream.taken) == ([first, second], [first])
    queue_site.later(DELIVERY_LEASE_S + 1)
    await dispatcher.flush()
    assert stream.taken == [first, second]
    assert [await outbox_of(queue_site).is_empty(sink) for sink in SINKS] == [True, True]


async def test_event_that_a_commit_has_taken_is_due_again_when_its_worker_dies(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    claimed = await queue_site.one()
    decision = endings.after_cancel(claimed.export, queue_site.moment())
    taking = Taking(("hook",))
    event = await queue_site.store.commit(claimed, decision, queue_site.now, NO_SIGNAL, taking)
    first, outbox = event_id_of(decision.export), outbox_of(queue_site)
    assert isinstance(event, bytes)
    assert await queue_site.store.commit(claimed, decision, queue_site.now, NO_SIGNAL, taking) is None  # is repeated
    assert await outbox.take("hook", queue_site.now) == []
    queue_site.later(DELIVERY_LEASE_S)
    assert await outbox.take("hook", queue_site.now) == [outbox.delivery(first, event)]


async def test_later_event_of_an_export_is_not_taken_by_its_commit(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    claimed = await queue_site.one()
    again = claimed.export.model_copy(update={"generation": 2})
    with dispatcher_of(queue_site, hook=ScriptedSink()).reserved(again) as reserved:
        assert reserved.taking is None


async def test_later_event_waits_while_the_sink_refuses_the_earlier_one(queue_site: QueueSite) -> None:
    first = await ended_export(queue_site)
    hook = ScriptedSink(SinkError("HTTP 500"))
    dispatcher = dispatcher_of(queue_site, hook=hook)
    await dispatcher.flush()
    second = await ended_again(queue_site, first)
    other = await ended_export(queue_site)
    hook.error = None
    while hook.taken != [other, first, second]:
        assert queue_site.now.timestamp() < datetime.now(UTC).timestamp() + 60
        await dispatcher.flush()
        queue_site.later(1)
    assert await outbox_of(queue_site).is_empty("hook")


async def test_later_event_follows_when_the_earlier_one_is_given_up(queue_site: QueueSite) -> None:
    first = await ended_export(queue_site)
    second = await ended_again(queue_site, first)
    hook = ScriptedSink(SinkRefusedError("too long"))
    dispatcher = dispatcher_of(queue_site, hook=hook)
    await dispatcher.flush()
    assert hook.tried == [first]
    queue_site.later(1)
    await dispatcher.flush()
    assert hook.tried == [first, second]


async def test_later_event_follows_when_the_earlier_one_has_expired(queue_site: QueueSite) -> None:
    first = await ended_export(queue_site)
    second = await ended_again(queue_site, first)
    await queue_site.redis.delete(queue_site.keys.event(first))
    assert await taken(queue_site) in ([], [second])
    queue_site.later(1)
    assert await taken(queue_site) in ([], [second])
    assert await queue_site.members(queue_site.keys.outbox("hook")) == [second]


async def test_order_holds_over_several_retries_and_in_a_replay(queue_site: QueueSite) -> None:
    ids = [await ended_export(queue_site)]
    for _ in range(11):
        ids.append(await ended_again(queue_site, ids[-1]))
    hook = ScriptedSink()
    dispatcher = dispatcher_of(queue_site, hook=hook)
    replayed = False
    while len(hook.taken) < 2 * len(ids):
        if len(hook.taken) == len(ids) and not replayed:
            replayed = True
            replay = Replay(queue_site.redis, queue_site.keys, ["hook"])
            await replay.since(datetime.fromtimestamp(0, UTC), queue_site.now)
        await dispatcher.flush()
        queue_site.later(1)
    assert hook.taken == ids * 2


async def test_events_that_wait_for_earlier_ones_hide_no_other_event(queue_site: QueueSite) -> None:
    last = await ended_export(queue_site)
    assert await taken(queue_site) == [last]
    for _ in range(10):
        last = await ended_again(queue_site, last)
    other = await ended_export(queue_site)
    deliveries = await outbox_of(queue_site).take("hook", queue_site.now, 1)
    assert [delivery.event_id for delivery in deliveries] == [other]


async def test_sinks_do_not_wait_for_each_other(queue_site: QueueSite) -> None:
    first = await ended_export(queue_site)
    assert await taken(queue_site, "hook") == [first]
    second = await ended_again(queue_site, first)
    stream = ScriptedSink()
    dispatcher = dispatcher_of(queue_site, stream=stream)
    await dispatcher.flush()
    queue_site.later(1)
    await dispatcher.flush()
    assert stream.taken == [first, second]


def live_dispatcher(site: QueueSite, sink: ScriptedSink, lease_s: float) -> EventDispatcher:
    """Returns a dispatcher whose time passes."""
    outbox = Outbox(site.redis, site.keys, lease_s=lease_s)
    routes = {"hook": SinkRoute(sink, 4, Backoff(10.0, 100.0), GIVE_UP_S)}
    return EventDispatcher(outbox, routes, lambda: datetime.now(UTC), lambda: 1.0)


async def test_delivery_that_runs_longer_than_its_lease_is_not_started_again(queue_site: QueueSite) -> None:
    event_id = await ended_export(queue_site)
    slow, other = ScriptedSink(hangs_on=lambda _: True), ScriptedSink()
    async with running(live_dispatcher(queue_site, slow, lease_s=1.5)):
        await until(lambda: slow.tried == [event_id])
        async with running(live_dispatcher(queue_site, other, lease_s=1.5)):
            await asyncio.sleep(4)
        slow.released.set()
        await until(lambda: slow.taken == [event_id])
    assert other.tried == []
    assert await outbox_of(queue_site).is_empty("hook")


async def test_delivery_of_a_dead_worker_starts_again_when_its_lease_ends(queue_site: QueueSite) -> None:
    event_id = await ended_export(queue_site)
    outbox, other = Outbox(queue_site.redis, queue_site.keys, lease_s=1.0), ScriptedSink()
    assert [delivery.event_id for delivery in await outbox.take("hook", datetime.now(UTC))] == [event_id]
    async with running(live_dispatcher(queue_site, other, lease_s=1.0)):
        await until(lambda: other.taken == [event_id])


async def test_late_refusal_of_a_slow_worker_does_not_restore_a_delivered_event(queue_site: QueueSite) -> None:
    event_id = await ended_export(queue_site)
    outbox = outbox_of(queue_site)
    (slow,) = await outbox.take("hook", queue_site.now)
    queue_site.later(DELIVERY_LEASE_S + 1)
    assert await taken(queue_site) == [event_id]
    await outbox.acknowledge("hook", event_id)
    await outbox.postpone("hook", slow, queue_site.now, 5.0)
    assert await outbox.is_empty("hook")

"""Packed records beside other versions, damage, a shorter retention, and workers that stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from export_producers.filters import ExportFilter
from export_worker.lifecycle import transitions
from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.observations import Submitted
from export_worker.redis.claims import NO_SIGNAL
from export_worker.redis.kept_steps import Keep
from export_worker.redis.outbox import Outbox
from export_worker.redis.replay import Replay
from export_worker.sinks.base import SinkRoute
from export_worker.sinks.dispatcher import EventDispatcher
from export_worker.worker.leases import Leases
from support.redis_site import POLICY, QueueSite, request_of

CUT_BYTES = 40


@asynccontextmanager
async def damaged_record(site: QueueSite) -> AsyncIterator[str]:
    """Yields the id of an export whose packed record lacks its end during the block."""
    export_id = await site.ended()
    key = site.keys.past(export_id)
    packed = await site.redis.get(key)
    assert packed is not None
    await site.redis.set(key, packed[:-CUT_BYTES], keepttl=True)
    yield export_id
    # The search for secrets reads all records that are left.
    await site.redis.delete(key)


class AcceptingSink:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.received: list[str] = []

    async def deliver(self, event_id: str, event: str) -> None:
        """Accepts an event."""
        assert event
        self.received.append(event_id)


async def test_worker_of_an_earlier_version_does_not_find_events_of_packed_records(queue_site: QueueSite) -> None:
    # It finds no event under `event:ID`, takes it for expired and removes it.
    export_id = await queue_site.ended()
    assert await queue_site.redis.exists(queue_site.keys.earlier_outbox("hook")) == 0
    outbox = Outbox(queue_site.redis, queue_site.keys)
    assert [each.event_id for each in await outbox.take("hook", queue_site.now)] == [f"{export_id}.1"]


async def test_events_of_workers_of_an_earlier_version_are_delivered(queue_site: QueueSite) -> None:
    event_id, keys = "0" * 32 + ".1", queue_site.keys
    await queue_site.redis.set(keys.event(event_id), '{"id": "x"}')
    held_until = (queue_site.now + timedelta(seconds=5)).timestamp() * 1000
    await queue_site.redis.zadd(keys.earlier_outbox("hook"), {event_id: held_until})
    outbox = Outbox(queue_site.redis, keys)
    assert await outbox.take("hook", queue_site.now) == []
    queue_site.later(6)
    assert [each.event for each in await outbox.take("hook", queue_site.now)] == ['{"id": "x"}']


async def test_unreadable_event_is_given_up_and_no_other_waits_for_it(queue_site: QueueSite) -> None:
    sink = AcceptingSink()
    route = SinkRoute(sink=sink, at_once=4, retry=Backoff(1.0, 2.0), give_up_after_s=3600.0)  # type: ignore[arg-type]
    outbox = Outbox(queue_site.redis, queue_site.keys)
    dispatcher = EventDispatcher(outbox, {"hook": route}, lambda: queue_site.now, lambda: 0.5)
    async with damaged_record(queue_site) as damaged:
        good = await queue_site.ended()
        for _ in range(3):
            queue_site.later(30)
            await dispatcher.flush()
    assert sink.received == [f"{good}.1"]
    assert await queue_site.redis.hkeys(queue_site.keys.undelivered("hook")) == [f"{damaged}.1".encode()]


async def test_replay_leaves_out_a_damaged_record(queue_site: QueueSite) -> None:
    since = queue_site.now
    async with damaged_record(queue_site):
        good = await queue_site.ended()
        found = await Replay(queue_site.redis, queue_site.keys, ["hook"]).since(since, queue_site.now)
    assert [each.event_id for each in found] == [f"{good}.1"]


async def test_retried_export_that_the_sweep_has_forgotten_is_listed_again(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    queue_site.timings = replace(queue_site.timings, retention_s=60.0)
    queue_site.later(120)
    await queue_site.sweep()
    assert await queue_site.queue.list_exports() == []
    await queue_site.queue.retry(export_id)
    assert [each.export_id for each in await queue_site.queue.list_exports()] == [export_id]


async def test_export_that_got_the_code_of_all_others_is_found(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    codes = int(await queue_site.redis.hget(queue_site.keys.numbers, "codes") or 0)
    await queue_site.redis.hset(queue_site.keys.numbers, "codes", str(10**6))
    without_a_code = await queue_site.queue.enqueue(request_of(), requested_by="billing")
    await queue_site.redis.hset(queue_site.keys.numbers, "codes", str(codes))
    with_a_code = await queue_site.queue.enqueue(request_of(), requested_by="billing")
    page = await queue_site.queue.page(where=ExportFilter(requested_by="billing"))
    assert {each.export_id for each in page.statuses} == {without_a_code.export_id, with_a_code.export_id}


@pytest.mark.parametrize("is_kept", [False, True])
async def test_step_is_released_when_its_worker_stops_while_a_commit_is_sent(
    queue_site: QueueSite, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    store, sent = queue_site.store, asyncio.Event()
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    seen = Submitted("op1", "CREATED", done=True)
    decision = transitions.after_submit(claimed.export, seen, queue_site.moment(), POLICY)
    commit = store.commit

    async def answer_is_late(*arguments: object) -> object:
        answer = await commit(*arguments)  # type: ignore[arg-type]
        sent.set()
        await asyncio.Event().wait()
        return answer

    monkeypatch.setattr(store, "commit", answer_is_late)
    leases = Leases(store, lambda: queue_site.now, 15.0)

    async def step() -> None:
        async with leases.holding(claimed) as held:
            keep = Keep.now(is_last_slot=False) if is_kept else None
            await leases.commit(held, decision, NO_SIGNAL, keep)

    task = asyncio.create_task(step())
    await sent.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    queue_site.later(1)
    assert await queue_site.ids() == [export_id]

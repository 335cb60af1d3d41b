"""Beyond one step: enqueuing, cancelling, setting going again, and what the sweep brings back and forgets."""

import asyncio
from typing import Any

import pytest

from export_producers.records import Offer, Restart
from export_worker.contract.queue_jobs import ARQ_JOB_PREFIX
from export_worker.contract.status import Phase
from export_worker.errors import (
    ExportNotFoundError,
    IdempotencyConflictError,
    InvalidRequestError,
    PlatformThrottledError,
)
from export_worker.lifecycle import endings, transitions
from export_worker.lifecycle.export import Transferring
from export_worker.redis.claims import ClaimedStep, ConnectionLimits, PlatformSignal, Timings
from export_worker.redis.outbox import VISIBILITY_S, Outbox
from export_worker.redis.sweeper import Sweeper
from support.redis_site import POLICY, REFUSED, SINKS, STORED, QueueSite, notices, request_of

# Enqueuing


async def test_an_accepted_export_stands_everywhere_and_gives_notice(queue_site: QueueSite) -> None:
    async with notices(queue_site) as heard:
        export_id = await queue_site.enqueue()
    keys = queue_site.keys
    assert len(heard) == 1
    for index in (keys.open, keys.created, keys.phase(Phase.QUEUED)):
        assert await queue_site.members(index) == [export_id]
    assert await queue_site.redis.pttl(keys.export(export_id)) == -1
    assert 86_000_000 < await queue_site.redis.pttl(ARQ_JOB_PREFIX + keys.job_id(export_id, 0)) <= 86_400_000
    assert await queue_site.notes(export_id) == ["accepted"]


async def test_a_call_that_is_made_again_is_accepted_once(queue_site: QueueSite) -> None:
    queue, offer = queue_site.queue, Offer(request_of(idempotency_key="k"), "e1", queue_site.now)
    keys, args = offer.keys(queue_site.keys), offer.arguments(queue_site.keys)
    assert await queue._enqueue(keys=keys, args=args) == [b"accepted", b"e1", b"queued"]
    queue_site.catch_up()
    await queue_site.submit(await queue_site.one())
    before = await queue_site.everything()
    assert await queue._enqueue(keys=keys, args=args) == [b"accepted", b"e1", b"running"]
    assert await queue_site.everything() == before


async def test_the_same_key_is_accepted_once_and_another_body_refused(queue_site: QueueSite) -> None:
    first = await queue_site.queue.enqueue(request_of(idempotency_key="k"))
    before = await queue_site.everything()
    again = await asyncio.gather(*(queue_site.queue.enqueue(request_of(idempotency_key="k")) for _ in range(5)))
    assert {answer.export_id for answer in again} == {first.export_id}
    assert (first.deduplicated, {answer.deduplicated for answer in again}) == (False, {True})
    with pytest.raises(IdempotencyConflictError, match=first.export_id):
        await queue_site.queue.enqueue(request_of("other", idempotency_key="k"))
    assert await queue_site.everything() == before


async def test_only_an_announced_connection_is_accepted(queue_site: QueueSite) -> None:
    await queue_site.redis.hset(queue_site.keys.connections, mapping={"gio": "growingio", "sa": "sensorsdata"})
    with pytest.raises(InvalidRequestError, match="unknown connection 'other'; known: gio"):
        await queue_site.queue.enqueue(request_of("other", idempotency_key="k"))
    with pytest.raises(InvalidRequestError, match="'sa' is of platform sensorsdata"):
        await queue_site.queue.enqueue(request_of("sa"))
    assert await queue_site.left() == {"connections"}
    await queue_site.queue.enqueue(request_of(idempotency_key="k"))


# Cancelling


async def test_a_waiting_export_is_due_at_once_for_its_end(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    await queue_site.pend(await queue_site.one(), draw=1.0)
    async with notices(queue_site) as heard:
        await queue_site.cancel(export_id)
    assert len(heard) == 1
    due_ms = await queue_site.due_ms(export_id, 2)
    assert due_ms == await queue_site.redis.zscore(queue_site.keys.open, export_id)
    claimed = await queue_site.one()
    assert claimed.cancel
    await queue_site.commit(claimed, endings.after_cancel(claimed.export, queue_site.moment()))
    assert (await queue_site.queue.status(export_id)).phase is Phase.CANCELLED
    assert "cancel" not in await queue_site.record(export_id)


async def test_a_waiting_transfer_is_due_at_once_in_its_own_queue(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    await queue_site.redis.delete(queue_site.keys.queue("transfer"))
    async with notices(queue_site, "transfer") as heard:
        await queue_site.cancel(export_id)
    assert len(heard) == 1
    assert await queue_site.claim() == []
    assert (await queue_site.one("transfer")).cancel


async def test_a_held_step_is_left_to_whoever_holds_it(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    due_ms = await queue_site.due_ms(export_id, 0)
    async with notices(queue_site) as heard:
        await queue_site.cancel(export_id)
    assert heard == []
    assert await queue_site.due_ms(export_id, 0) == due_ms
    assert await queue_site.store.renew(claimed, queue_site.now) == "cancel"


async def test_a_cancel_that_comes_too_late_for_a_step_is_heard_by_the_next_at_once(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    claimed = await queue_site.one()
    await queue_site.cancel(export_id)
    async with notices(queue_site) as heard:
        await queue_site.pend(claimed, draw=1.0)
    assert len(heard) == 1
    assert (await queue_site.one()).cancel


async def test_a_cancel_that_the_platform_did_not_take_is_tried_again_in_its_time(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    await queue_site.cancel(export_id)
    claimed = await queue_site.one()
    decision = endings.after_failure(claimed.export, PlatformThrottledError("429"), queue_site.moment(draw=1.0), POLICY)
    await queue_site.commit(claimed, decision)
    assert await queue_site.claim() == []
    queue_site.later(1)
    assert (await queue_site.one()).cancel


@pytest.mark.parametrize("error", [None, REFUSED])
async def test_an_ended_export_is_not_cancelled(queue_site: QueueSite, error: object) -> None:
    export_id = await queue_site.ended(REFUSED if error else None)
    before = await queue_site.everything()
    assert (await queue_site.queue.cancel(export_id)).terminal
    assert await queue_site.everything() == before


async def test_an_unknown_export_is_neither_cancelled_nor_retried(queue_site: QueueSite) -> None:
    with pytest.raises(ExportNotFoundError):
        await queue_site.queue.cancel("nobody")
    with pytest.raises(ExportNotFoundError):
        await queue_site.queue.retry("nobody")
    assert await queue_site.left() == set()


# Setting going again


async def test_a_retried_export_expires_no_more_and_has_another_event(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue(idempotency_key="k")
    await queue_site.submit(await queue_site.one())
    await queue_site.fail(await queue_site.one(), REFUSED)
    keys = queue_site.keys
    kept = (keys.export(export_id), keys.timeline(export_id), keys.dedupe("k"))
    assert all([await queue_site.redis.pttl(key) > 0 for key in kept])

    async with notices(queue_site) as heard:
        status = await queue_site.queue.retry(export_id)
    queue_site.catch_up()
    assert len(heard) == 1
    assert (status.phase, status.error, status.finished_at) == (Phase.RUNNING, None, None)
    assert [await queue_site.redis.pttl(key) for key in kept] == [-1, -1, -1]
    assert await queue_site.members(keys.ended) == []
    assert await queue_site.members(keys.open) == [export_id]
    assert await queue_site.redis.pttl(ARQ_JOB_PREFIX + keys.job_id(export_id, 2)) > 86_000_000
    claimed = await queue_site.one()
    assert (claimed.retry, claimed.export.phase) == ("poll", Phase.FAILED)
    await queue_site.commit(claimed, transitions.restart(claimed.export, claimed.retry, queue_site.moment()))
    claimed = await queue_site.one()
    assert (claimed.retry, claimed.export.phase, claimed.export.generation) == ("", Phase.RUNNING, 2)
    await queue_site.fail(claimed, REFUSED)
    assert sorted(await queue_site.members(keys.outbox("stream"))) == [f"{export_id}.1", f"{export_id}.2"]


@pytest.mark.parametrize("start", ["submit", "poll", "transfer"])
async def test_a_retried_export_stands_in_one_phase_alone(queue_site: QueueSite, start: Any) -> None:
    export_id = await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    claimed = await queue_site.store.checkpoint(claimed, queue_site.file_stored(claimed), queue_site.now)
    await queue_site.fail(claimed, REFUSED)

    async def phases() -> list[Phase]:
        return [phase for phase in Phase if export_id in await queue_site.members(queue_site.keys.phase(phase))]

    assert await phases() == [Phase.FAILED]
    told = await queue_site.queue.retry(export_id, start)
    queue_site.catch_up()
    assert await phases() == [told.phase]
    claimed = await queue_site.one()
    await queue_site.commit(claimed, transitions.restart(claimed.export, claimed.retry, queue_site.moment()))
    now = (await queue_site.queue.status(export_id)).phase
    assert now is {"submit": Phase.QUEUED, "poll": Phase.RUNNING, "transfer": Phase.TRANSFERRING}[start]
    assert await phases() == [now]
    claimed = await queue_site.one("transfer" if start == "transfer" else "control")
    if isinstance(claimed.export.state, Transferring):
        assert claimed.export.state.stored == [STORED]
    await queue_site.commit(claimed, endings.after_cancel(claimed.export, queue_site.moment()))
    assert await phases() == [Phase.CANCELLED]


async def test_two_who_retry_set_it_going_once(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    await asyncio.gather(*(queue_site.queue.retry(export_id) for _ in range(3)), return_exceptions=True)
    queue_site.catch_up()
    assert len(await queue_site.claim()) == 1
    with pytest.raises(InvalidRequestError, match="only an ended export"):
        await queue_site.queue.retry(export_id)


async def test_a_retry_that_comes_second_tells_what_the_first_made_of_it(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    queue = queue_site.queue
    seen = await queue.status(export_id)
    await queue.retry(export_id, "submit")
    before = await queue_site.everything()
    # As one that has read the status just before.
    for step in (2, 1):
        late = Restart(seen, seen.model_copy(update={"phase": Phase.RUNNING}), step, "poll", queue_site.now)
        done = await queue._retry(keys=late.keys(queue_site.keys, ""), args=late.arguments(queue_site.keys))
        assert done == 0
    assert await queue_site.everything() == before


# The sweep


@pytest.mark.parametrize("role", ["control", "transfer"])
async def test_a_lost_queue_entry_comes_back(queue_site: QueueSite, role: Any) -> None:
    export_id = await (queue_site.running() if role == "control" else queue_site.transferring())
    step = int((await queue_site.record(export_id))["step"])
    job = ARQ_JOB_PREFIX + queue_site.keys.job_id(export_id, step)
    await queue_site.redis.delete(queue_site.keys.queue(role), job)
    queue_site.later(4.9)
    assert await queue_site.sweep() == []
    queue_site.later(0.2)
    async with notices(queue_site, role) as heard:
        assert await queue_site.sweep() == [export_id]
    assert len(heard) == 1
    assert (await queue_site.notes(export_id))[-1] == "taken up again: its queue entry was lost"
    assert await queue_site.redis.pttl(job) > 86_000_000
    assert await queue_site.sweep() == []
    assert (await queue_site.one(role)).export.export_id == export_id


async def test_a_lost_parked_entry_comes_back_and_one_that_is_there_looks_again_in_silence(
    queue_site: QueueSite,
) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    await queue_site.enqueue()
    held = await queue_site.one()
    lost, there = await queue_site.enqueue(), await queue_site.enqueue()
    assert await queue_site.claim() == []
    await queue_site.redis.zrem(queue_site.keys.parked("gio"), queue_site.keys.job_id(lost, 0))
    queue_site.later(66)
    await queue_site.store.renew(held, queue_site.now)
    assert await queue_site.sweep() == [lost]
    assert len(await queue_site.notes(lost)) == 2
    assert await queue_site.notes(there) == ["accepted"]
    assert len(await queue_site.members(queue_site.keys.queue("control"))) == 3
    assert await queue_site.claim() == []
    assert len(await queue_site.members(queue_site.keys.parked("gio"))) == 2


async def test_a_slot_that_was_freed_without_a_word_is_found(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    await queue_site.enqueue()
    await queue_site.one()
    waiting = await queue_site.enqueue()
    assert await queue_site.claim() == []
    await queue_site.redis.delete(queue_site.keys.slots("gio"), queue_site.keys.queue("control"))
    queue_site.later(66)
    await queue_site.sweep()
    assert await queue_site.ids(1) == [waiting]


async def test_what_is_held_or_late_for_want_of_workers_is_left_in_its_place(queue_site: QueueSite) -> None:
    held, late = await queue_site.enqueue(), await queue_site.enqueue()
    (claimed,) = await queue_site.claim(1)
    queue_site.later(14)
    await queue_site.store.renew(claimed, queue_site.now)
    due_ms = await queue_site.due_ms(late, 0)
    assert await queue_site.sweep() == []
    assert await queue_site.due_ms(late, 0) == due_ms
    assert await queue_site.due_ms(held, 0) == queue_site.now_ms + 15_000
    assert await queue_site.notes(late) == ["accepted"]
    # Not looked at again before a lease would have ended.
    assert await queue_site.redis.zscore(queue_site.keys.open, late) == queue_site.now_ms + 15_000


async def test_a_step_that_has_been_taken_meanwhile_is_not_brought_back(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    before = await queue_site.everything()
    sweeper, keys = Sweeper(queue_site.redis, queue_site.keys, "w1", queue_site.timings), queue_site.keys
    names = [keys.export(export_id), keys.open, keys.timeline(export_id), keys.queue("control"), keys.parked("gio")]
    arguments: list[str | int] = [
        export_id,
        0,
        queue_site.now_ms,
        keys.job_id(export_id, 0),
        "{}",
        1000,
        "{}",
        0,
        keys.wake("control"),
    ]
    assert await sweeper._revive_script(keys=names, args=arguments) == 0
    assert await queue_site.everything() == before


async def test_an_export_without_a_record_is_given_up(queue_site: QueueSite) -> None:
    await queue_site.redis.zadd(queue_site.keys.open, {"nobody": 0})
    assert await queue_site.sweep() == []
    assert await queue_site.members(queue_site.keys.open) == []


async def test_one_worker_at_a_time_sweeps(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(grace_s=0.3)
    for _ in range(5):
        await queue_site.enqueue()
    await queue_site.redis.delete(queue_site.keys.queue("control"))
    queue_site.later(1)
    sweepers = [Sweeper(queue_site.redis, queue_site.keys, f"w{number}", queue_site.timings) for number in range(4)]
    found = await asyncio.gather(*(sweeper.sweep(queue_site.now) for sweeper in sweepers))
    assert sorted(map(len, found)) == [0, 0, 0, 5]
    while await queue_site.redis.exists(queue_site.keys.sweep):
        await asyncio.sleep(0.02)


async def go_on(site: QueueSite, claimed: ClaimedStep) -> None:
    """Take the step, and let everything be learned from it that can be."""
    match claimed.export.phase:
        case Phase.QUEUED:
            await site.submit(claimed, PlatformSignal("down", pause_s=0.2))
        case Phase.RUNNING:
            await site.ready(claimed, PlatformSignal("up", duration_s=1.0))
        case _:
            await site.succeed(claimed)


async def test_after_the_retention_only_what_workers_say_of_themselves_is_left(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(grace_s=0.05, retention_s=0.5, breaker_max_s=0.1, breaker_threshold=1)
    queue_site.limits = {"gio": ConnectionLimits(1, 1000.0)}
    await queue_site.redis.hset(queue_site.keys.connections, "gio", "growingio")
    for number in range(3):
        await queue_site.enqueue(idempotency_key=f"k{number}")
    seen: set[str] = set()
    while len(await queue_site.members(queue_site.keys.ended)) < 3:
        queue_site.later(0.5)
        for claimed in [*await queue_site.claim(), *await queue_site.claim(role="transfer")]:
            await go_on(queue_site, claimed)
        seen |= {name.partition(":")[0] for name in await queue_site.left()}
    assert seen >= {"slots", "parked", "breaker", "rate", "durations", "dedupe", "event", "outbox", "timeline", "phase"}

    outbox = Outbox(queue_site.redis, queue_site.keys)
    for sink in SINKS:
        for event_id in await queue_site.members(queue_site.keys.outbox(sink)):
            await outbox.acknowledge(sink, event_id)
    queue_site.later(1)
    async with asyncio.timeout(20):
        while await queue_site.left() != {"connections", "contact"}:
            await queue_site.sweep()
            await asyncio.sleep(0.1)


async def test_what_is_open_or_was_set_going_again_is_not_forgotten(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(retention_s=0.2)
    again = await queue_site.ended()
    await queue_site.queue.retry(again)
    waiting = await queue_site.enqueue()
    queue_site.later(10)
    await asyncio.sleep(0.3)
    await queue_site.sweep()
    assert set(await queue_site.members(queue_site.keys.created)) == {again, waiting}
    assert (await queue_site.queue.status(again)).phase is Phase.RUNNING
    assert len(await queue_site.queue.list_exports()) == 2


# The outbox


async def test_a_delivery_comes_back_until_it_is_acknowledged(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    outbox, sink = Outbox(queue_site.redis, queue_site.keys), "stream"
    (delivery,) = await outbox.take(sink, queue_site.now)
    event_id = delivery.event_id
    assert (event_id, '"type":"export.failed"' in delivery.event) == (f"{export_id}.1", True)
    assert await outbox.take(sink, queue_site.now) == []
    queue_site.later(VISIBILITY_S)
    assert len(await outbox.take(sink, queue_site.now)) == 1
    await outbox.acknowledge(sink, event_id)
    assert await outbox.is_empty(sink)
    assert not await outbox.is_empty("hook")


async def test_an_event_that_has_expired_is_delivered_no_more(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    await queue_site.redis.delete(queue_site.keys.event(f"{export_id}.1"))
    outbox = Outbox(queue_site.redis, queue_site.keys)
    assert await outbox.take("stream", queue_site.now) == []
    assert await outbox.is_empty("stream")

"""Operations on whole exports: enqueue, cancel, retry, the sweep and the outbox."""

import asyncio
from typing import Any

import pytest

from export_producers.records import Offer, Restart
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
from export_worker.redis.outbox import DELIVERY_LEASE_S, Outbox
from export_worker.redis.sweeper import Sweeper
from support.earlier_records import remove_event
from support.index_rows import EMPTY_INDEXES, facets_in_index, places
from support.redis_site import POLICY, REFUSED, SINKS, STORED, QueueSite, notices, request_of

# Enqueuing


async def test_enqueue_writes_record_indexes_and_entry_and_wakes_workers(queue_site: QueueSite) -> None:
    async with notices(queue_site) as received:
        export_id = await queue_site.enqueue()
    keys = queue_site.keys
    assert len(received) == 1
    assert await queue_site.members(keys.open) == [export_id]
    facets = {"connection:gio", "kind:growingio.tag_users", "requested_by:library", "phase:queued"}
    assert await facets_in_index(queue_site.redis, keys, export_id) == facets
    assert await queue_site.redis.pttl(keys.export(export_id)) == -1
    assert await queue_site.members(keys.queue("control")) == [keys.job_id(export_id, 0)]
    assert await queue_site.notes(export_id) == ["accepted"]


async def test_repeated_enqueue_call_accepts_the_export_once(queue_site: QueueSite) -> None:
    queue, offer = queue_site.queue, Offer(request_of(idempotency_key="k"), "e1", queue_site.now)
    keys, arguments = offer.keys(queue_site.keys), offer.arguments(queue_site.keys)
    accepted = {"verdict": "accepted", "export_id": "e1", "phase": "queued"}
    assert await queue._enqueue.document(keys, arguments) == accepted
    queue_site.catch_up()
    await queue_site.submit(await queue_site.one())
    before = await queue_site.everything()
    assert await queue._enqueue.document(keys, arguments) == accepted | {"phase": "running"}
    assert await queue_site.everything() == before


async def test_enqueue_with_same_key_returns_the_first_export_and_refuses_another_body(queue_site: QueueSite) -> None:
    first = await queue_site.queue.enqueue(request_of(idempotency_key="k"))
    before = await queue_site.everything()
    again = await asyncio.gather(*(queue_site.queue.enqueue(request_of(idempotency_key="k")) for _ in range(5)))
    assert {answer.export_id for answer in again} == {first.export_id}
    assert (first.deduplicated, {answer.deduplicated for answer in again}) == (False, {True})
    with pytest.raises(IdempotencyConflictError, match=first.export_id):
        await queue_site.queue.enqueue(request_of("other", idempotency_key="k"))
    assert await queue_site.everything() == before


async def test_enqueue_refuses_a_connection_that_no_worker_has_announced(queue_site: QueueSite) -> None:
    await queue_site.redis.hset(queue_site.keys.connections, mapping={"gio": "growingio", "sa": "sensorsdata"})
    with pytest.raises(InvalidRequestError, match="unknown connection 'other'; known: gio"):
        await queue_site.queue.enqueue(request_of("other", idempotency_key="k"))
    with pytest.raises(InvalidRequestError, match="'sa' is of platform sensorsdata"):
        await queue_site.queue.enqueue(request_of("sa"))
    assert await queue_site.left() == {"connections"}
    await queue_site.queue.enqueue(request_of(idempotency_key="k"))


# Cancelling


async def test_cancel_makes_a_waiting_export_due_at_once(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    await queue_site.pend(await queue_site.one(), draw=1.0)
    async with notices(queue_site) as received:
        await queue_site.cancel(export_id)
    assert len(received) == 1
    due_ms = await queue_site.due_ms(export_id, 2)
    assert due_ms == await queue_site.redis.zscore(queue_site.keys.open, export_id)
    claimed = await queue_site.one()
    assert claimed.cancel
    await queue_site.commit(claimed, endings.after_cancel(claimed.export, queue_site.moment()))
    assert (await queue_site.queue.status(export_id)).phase is Phase.CANCELLED
    assert "cancel" not in await queue_site.record(export_id)


async def test_cancel_makes_a_waiting_transfer_due_at_once_for_transfer_workers(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    await queue_site.redis.delete(queue_site.keys.queue("transfer"))
    async with notices(queue_site, "transfer") as received:
        await queue_site.cancel(export_id)
    assert len(received) == 1
    assert await queue_site.claim() == []
    assert (await queue_site.one("transfer")).cancel


async def test_cancel_leaves_a_held_step_to_its_worker(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    due_ms = await queue_site.due_ms(export_id, 0)
    async with notices(queue_site) as received:
        await queue_site.cancel(export_id)
    assert received == []
    assert await queue_site.due_ms(export_id, 0) == due_ms
    assert await queue_site.renew(claimed) == "cancel_requested"


async def test_cancel_during_a_step_makes_the_next_step_due_at_once(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    claimed = await queue_site.one()
    await queue_site.cancel(export_id)
    async with notices(queue_site) as received:
        await queue_site.pend(claimed, draw=1.0)
    assert len(received) == 1
    assert (await queue_site.one()).cancel


async def test_cancel_that_the_platform_throttles_is_retried_after_the_backoff(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    await queue_site.cancel(export_id)
    claimed = await queue_site.one()
    decision = endings.after_failure(claimed.export, PlatformThrottledError("429"), queue_site.moment(draw=1.0), POLICY)
    await queue_site.commit(claimed, decision)
    assert await queue_site.claim() == []
    queue_site.later(1)
    assert (await queue_site.one()).cancel


@pytest.mark.parametrize("error", [None, REFUSED])
async def test_cancel_of_an_ended_export_changes_nothing(queue_site: QueueSite, error: object) -> None:
    export_id = await queue_site.ended(REFUSED if error else None)
    before = await queue_site.everything()
    assert (await queue_site.queue.cancel(export_id)).terminal
    assert await queue_site.everything() == before


async def test_cancel_and_retry_of_an_unknown_export_are_refused(queue_site: QueueSite) -> None:
    with pytest.raises(ExportNotFoundError):
        await queue_site.queue.cancel("unknown")
    with pytest.raises(ExportNotFoundError):
        await queue_site.queue.retry("unknown")
    assert await queue_site.left() == set()


# Retrying


async def test_retried_export_does_not_expire_and_gets_a_new_event(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue(idempotency_key="k")
    await queue_site.submit(await queue_site.one())
    await queue_site.fail(await queue_site.one(), REFUSED)
    keys = queue_site.keys
    kept = (keys.export(export_id), keys.timeline(export_id), keys.dedupe("k"))
    assert all([await queue_site.redis.pttl(key) > 0 for key in (keys.past(export_id), keys.dedupe("k"))])

    async with notices(queue_site) as received:
        status = await queue_site.queue.retry(export_id)
    queue_site.catch_up()
    assert len(received) == 1
    assert (status.phase, status.error, status.finished_at) == (Phase.RUNNING, None, None)
    assert [await queue_site.redis.pttl(key) for key in kept] == [-1, -1, -1]
    assert await queue_site.members(keys.open) == [export_id]
    assert await queue_site.members(keys.queue("control")) == [keys.job_id(export_id, 2)]
    claimed = await queue_site.one()
    assert (claimed.retry, claimed.export.phase) == ("poll", Phase.FAILED)
    await queue_site.commit(claimed, transitions.restart(claimed.export, claimed.retry, queue_site.moment()))
    claimed = await queue_site.one()
    assert (claimed.retry, claimed.export.phase, claimed.export.generation) == ("", Phase.RUNNING, 2)
    await queue_site.fail(claimed, REFUSED)
    assert sorted(await queue_site.members(keys.outbox("stream"))) == [f"{export_id}.1", f"{export_id}.2"]


@pytest.mark.parametrize("start", ["submit", "poll", "transfer"])
async def test_retried_export_is_in_the_index_of_one_phase_only(queue_site: QueueSite, start: Any) -> None:
    export_id = await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    claimed = await queue_site.store.checkpoint(claimed, queue_site.file_stored(claimed), queue_site.now)
    await queue_site.fail(claimed, REFUSED)

    async def phases() -> list[Phase]:
        facets = await facets_in_index(queue_site.redis, queue_site.keys, export_id)
        return [phase for phase in Phase if f"phase:{phase}" in facets]

    assert await phases() == [Phase.FAILED]
    status = await queue_site.queue.retry(export_id, start)
    queue_site.catch_up()
    assert await phases() == [status.phase]
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


async def test_concurrent_retries_restart_the_export_once(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    await asyncio.gather(*(queue_site.queue.retry(export_id) for _ in range(3)), return_exceptions=True)
    queue_site.catch_up()
    assert len(await queue_site.claim()) == 1
    with pytest.raises(InvalidRequestError, match="only an ended export"):
        await queue_site.queue.retry(export_id)


async def test_retry_with_an_outdated_step_changes_nothing(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    queue = queue_site.queue
    seen = await queue.status(export_id)
    await queue.retry(export_id, "submit")
    before = await queue_site.everything()
    # A second retry, which read the status before the first retry wrote: once with the new step, once with the old.
    for step in (2, 1):
        late = Restart(seen, seen.model_copy(update={"phase": Phase.RUNNING}), step, "poll", queue_site.now)
        assert (
            await queue._restarts._script.word(late.keys(queue_site.keys, ""), late.arguments(queue_site.keys))
            == "changed"
        )
    assert await queue_site.everything() == before


# The sweep


@pytest.mark.parametrize("role", ["control", "transfer"])
async def test_sweep_enqueues_an_export_whose_queue_entry_is_lost(queue_site: QueueSite, role: Any) -> None:
    export_id = await (queue_site.running() if role == "control" else queue_site.transferring())
    step = int((await queue_site.record(export_id))["step"])
    job = queue_site.keys.job_id(export_id, step)
    await queue_site.redis.delete(queue_site.keys.queue(role))
    queue_site.later(4.9)
    assert await queue_site.sweep() == []
    queue_site.later(0.2)
    async with notices(queue_site, role) as received:
        assert await queue_site.sweep() == [export_id]
    assert len(received) == 1
    assert (await queue_site.notes(export_id))[-1] == "enqueued again: its queue entry was lost"
    assert await queue_site.members(queue_site.keys.queue(role)) == [job]
    assert await queue_site.sweep() == []
    assert (await queue_site.one(role)).export.export_id == export_id


async def test_sweep_notes_a_lost_parked_entry_and_requeues_other_parked_entries_without_a_note(
    queue_site: QueueSite,
) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    await queue_site.enqueue()
    held = await queue_site.one()
    lost, there = await queue_site.enqueue(), await queue_site.enqueue()
    assert await queue_site.claim() == []
    await queue_site.redis.zrem(queue_site.keys.parked("gio"), queue_site.keys.job_id(lost, 0))
    queue_site.later(66)
    await queue_site.renew(held)
    assert await queue_site.sweep() == [lost]
    assert len(await queue_site.notes(lost)) == 2
    assert await queue_site.notes(there) == ["accepted"]
    assert len(await queue_site.members(queue_site.keys.queue("control"))) == 3
    assert await queue_site.claim() == []
    assert len(await queue_site.members(queue_site.keys.parked("gio"))) == 2


async def test_sweep_finds_a_slot_that_became_free_without_notice(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    await queue_site.enqueue()
    await queue_site.one()
    waiting = await queue_site.enqueue()
    assert await queue_site.claim() == []
    await queue_site.redis.delete(queue_site.keys.slots("gio"), queue_site.keys.queue("control"))
    queue_site.later(66)
    await queue_site.sweep()
    assert await queue_site.ids(1) == [waiting]


async def test_sweep_leaves_held_and_late_entries_in_the_queue(queue_site: QueueSite) -> None:
    held, late = await queue_site.enqueue(), await queue_site.enqueue()
    (claimed,) = await queue_site.claim(1)
    queue_site.later(14)
    await queue_site.renew(claimed)
    due_ms = await queue_site.due_ms(late, 0)
    assert await queue_site.sweep() == []
    assert await queue_site.due_ms(late, 0) == due_ms
    assert await queue_site.due_ms(held, 0) == queue_site.now_ms + 15_000
    assert await queue_site.notes(late) == ["accepted"]
    # The sweep examines the late export again only after the duration of a lease.
    assert await queue_site.redis.zscore(queue_site.keys.open, late) == queue_site.now_ms + 15_000


async def test_sweep_removes_an_export_without_a_record_from_the_index(queue_site: QueueSite) -> None:
    await queue_site.redis.zadd(queue_site.keys.open, {"unknown": 0})
    assert await queue_site.sweep() == []
    assert await queue_site.members(queue_site.keys.open) == []


async def test_only_one_worker_at_a_time_sweeps(queue_site: QueueSite) -> None:
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


async def commit_next_phase(site: QueueSite, claimed: ClaimedStep) -> None:
    """Commits the step with the next phase, and with a signal that writes every key of the connection."""
    match claimed.export.phase:
        case Phase.QUEUED:
            await site.submit(claimed, PlatformSignal(check="down", pause_s=0.2))
        case Phase.RUNNING:
            await site.ready(claimed, PlatformSignal("up", duration_s=1.0))
        case _:
            await site.succeed(claimed)


async def without_statistics(site: QueueSite) -> set[str]:
    """Returns the keys that are left, without the statistics and the last changes, which expire by themselves."""
    return {name for name in await site.left() if name.partition(":")[0] not in {"hour", "recent", "changes"}}


async def test_no_key_of_an_export_remains_after_the_retention(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(grace_s=0.05, retention_s=0.5, breaker_max_s=0.1, breaker_threshold=1)
    queue_site.limits = {"gio": ConnectionLimits(1, 1000.0)}
    await queue_site.redis.hset(queue_site.keys.connections, "gio", "growingio")
    for number in range(3):
        await queue_site.enqueue(idempotency_key=f"k{number}")
    seen: set[str] = set()
    while (await places(queue_site.redis, queue_site.keys)).get("gio:succeeded") != 3:
        queue_site.later(0.5)
        for claimed in [*await queue_site.claim(), *await queue_site.claim(role="transfer")]:
            await commit_next_phase(queue_site, claimed)
        seen |= {name.partition(":")[0] for name in await queue_site.left()}
    assert seen >= {
        "slots",
        "parked",
        "breaker",
        "rate",
        "durations",
        "dedupe",
        "past",
        "to-deliver",
        "timeline",
        "marks",
    }

    outbox = Outbox(queue_site.redis, queue_site.keys)
    for sink in SINKS:
        for event_id in await queue_site.members(queue_site.keys.outbox(sink)):
            await outbox.acknowledge(sink, event_id)
    queue_site.later(1)
    async with asyncio.timeout(20):
        while await without_statistics(queue_site) != {"clock", "connections", "contact", *EMPTY_INDEXES}:
            await queue_site.sweep()
            await asyncio.sleep(0.1)


async def test_sweep_keeps_open_and_restarted_exports_in_the_indexes(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(retention_s=0.2)
    again = await queue_site.ended()
    await queue_site.queue.retry(again)
    waiting = await queue_site.enqueue()
    queue_site.later(10)
    await asyncio.sleep(0.3)
    await queue_site.sweep()
    assert await places(queue_site.redis, queue_site.keys) == {"gio:running": 1, "gio:queued": 1}
    assert {status.export_id for status in await queue_site.queue.list_exports()} == {again, waiting}
    assert (await queue_site.queue.status(again)).phase is Phase.RUNNING
    assert len(await queue_site.queue.list_exports()) == 2


# The outbox


async def test_delivery_is_due_again_until_it_is_acknowledged(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    outbox, sink = Outbox(queue_site.redis, queue_site.keys), "stream"
    (delivery,) = await outbox.take(sink, queue_site.now)
    event_id = delivery.event_id
    assert (event_id, '"type":"export.failed"' in delivery.event) == (f"{export_id}.1", True)
    assert await outbox.take(sink, queue_site.now) == []
    queue_site.later(DELIVERY_LEASE_S)
    assert len(await outbox.take(sink, queue_site.now)) == 1
    await outbox.acknowledge(sink, event_id)
    assert await outbox.is_empty(sink)
    assert not await outbox.is_empty("hook")


async def test_expired_event_is_removed_from_the_outbox(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    await remove_event(queue_site, f"{export_id}.1")
    outbox = Outbox(queue_site.redis, queue_site.keys)
    assert await outbox.take("stream", queue_site.now) == []
    assert await outbox.is_empty("stream")

"""The limits of a connection: slots and rate."""

from itertools import pairwise

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import ResultMissingError
from export_worker.lifecycle import endings, transitions
from export_worker.redis.claims import ConnectionLimits, PlatformSignal, Timings
from support.redis_site import MANY, POLICY, REFUSED, UNAVAILABLE, QueueSite, ids_of, notices

BREAKER = Timings(lease_s=15.0, breaker_first_s=5.0, breaker_max_s=60.0, breaker_threshold=3)

# Slots


async def test_exports_on_the_platform_never_exceed_the_slots_and_the_longest_waiting_is_next(
    queue_site: QueueSite,
) -> None:
    queue_site.limits = {"gio": ConnectionLimits(2, 1e6)}
    enqueued = [await queue_site.enqueue() for _ in range(6)]
    running = await queue_site.claim()
    order = ids_of(running)
    assert await queue_site.members(queue_site.keys.parked("gio")) == [
        queue_site.keys.job_id(export_id, 0) for export_id in enqueued[2:]
    ]
    while running:
        assert len(running) <= 2
        assert sorted(await queue_site.members(queue_site.keys.slots("gio"))) == sorted(ids_of(running))
        await queue_site.submit(running[0])
        await queue_site.ready(await queue_site.one())
        freed, *running = running
        assert freed.export.export_id not in await queue_site.members(queue_site.keys.slots("gio"))
        # The commit alone has enqueued the next parked export, and only that one.
        more = await queue_site.claim()
        order += ids_of(more)
        running += more
    assert order == enqueued


async def test_parked_export_is_explained_and_wakes_workers_when_a_slot_is_free(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    first, second = await queue_site.enqueue(), await queue_site.enqueue()
    claimed = await queue_site.one()
    # The sweep then tests whether a slot became free without notice.
    assert await queue_site.redis.zscore(queue_site.keys.open, second) == queue_site.now_ms + 60_000
    assert await queue_site.queue.explain(second) == (
        "Waiting for a free slot of connection gio (max_in_flight). Exports ahead of it: 0. "
        "Exports running on the platform: 1."
    )
    await queue_site.submit(claimed)
    poll = await queue_site.one()
    assert poll.export.export_id == first
    async with notices(queue_site) as received:
        await queue_site.fail(poll, REFUSED)
    assert len(received) == 1
    assert await queue_site.ids() == [second]


async def test_free_slot_wakes_no_worker_if_no_export_is_parked(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    await queue_site.running()
    poll = await queue_site.one()
    async with notices(queue_site) as received:
        await queue_site.ready(poll)
    assert received == []


async def test_failed_submit_frees_its_slot(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    first, second = await queue_site.enqueue(), await queue_site.enqueue()
    claimed = await queue_site.one()
    assert claimed.export.export_id == first
    decision = endings.after_failure(claimed.export, UNAVAILABLE, queue_site.moment(draw=1.0), POLICY)
    await queue_site.commit(claimed, decision)
    claimed = await queue_site.one()
    assert claimed.export.export_id == second
    assert await queue_site.members(queue_site.keys.slots("gio")) == [second]
    await queue_site.fail(claimed, REFUSED)
    assert await queue_site.members(queue_site.keys.slots("gio")) == []


async def test_export_keeps_its_slot_over_polls_releases_and_expired_leases(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    first = await queue_site.enqueue()
    await queue_site.store.release(await queue_site.one(), queue_site.now)
    await queue_site.one()
    queue_site.later(15)
    await queue_site.submit(await queue_site.one())
    await queue_site.pend(await queue_site.one())
    second = await queue_site.enqueue()
    claimed = await queue_site.one()
    assert claimed.export.export_id == first
    await queue_site.fail(claimed)
    assert await queue_site.ids() == [first]
    assert await queue_site.members(queue_site.keys.parked("gio")) == [queue_site.keys.job_id(second, 0)]


async def test_parked_export_keeps_its_position_after_a_try_without_a_slot(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    await queue_site.enqueue()
    held = await queue_site.one()
    waiting = [await queue_site.enqueue() for _ in range(3)]
    assert await queue_site.claim() == []
    row = await queue_site.members(queue_site.keys.parked("gio"))
    assert row == [queue_site.keys.job_id(export_id, 0) for export_id in waiting]
    # The sweep enqueues the parked exports; there is still no slot.
    queue_site.later(120)
    await queue_site.renew(held)
    await queue_site.sweep()
    assert await queue_site.members(queue_site.keys.parked("gio")) == []
    assert await queue_site.claim() == []
    assert await queue_site.members(queue_site.keys.parked("gio")) == row
    await queue_site.fail(held, REFUSED)
    # A newer export does not overtake it.
    await queue_site.enqueue()
    assert await queue_site.ids() == waiting[:1]


async def test_cancelled_export_bypasses_all_limits(queue_site: QueueSite) -> None:
    queue_site.timings, queue_site.limits = BREAKER, {"gio": ConnectionLimits(1, 0.001)}
    await queue_site.enqueue()
    await queue_site.one()
    waiting = await queue_site.enqueue()
    assert await queue_site.claim() == []
    await queue_site.redis.hset(queue_site.keys.breaker("gio"), "until", queue_site.now_ms + 60_000)
    await queue_site.cancel(waiting)
    assert await queue_site.members(queue_site.keys.parked("gio")) == []
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.cancel, claimed.probe) == (waiting, True, False)


async def test_restarted_export_bypasses_all_limits_and_is_no_probe(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()
    queue_site.timings, queue_site.limits = BREAKER, {"gio": ConnectionLimits(0, 0.001)}
    await queue_site.redis.hset(queue_site.keys.breaker("gio"), "until", queue_site.now_ms - 1)
    await queue_site.queue.retry(export_id, "submit")
    queue_site.catch_up()
    claimed = await queue_site.one()
    assert (claimed.retry, claimed.probe) == ("submit", False)
    await queue_site.commit(claimed, transitions.restart(claimed.export, claimed.retry, queue_site.moment()))
    # The submit calls the platform, so it waits for a slot.
    assert await queue_site.claim() == []
    assert await queue_site.members(queue_site.keys.parked("gio")) == [queue_site.keys.job_id(export_id, 3)]


async def test_transfer_ignores_the_limits_of_the_platform(queue_site: QueueSite) -> None:
    await queue_site.transferring()
    queue_site.limits = {"gio": ConnectionLimits(0, 0.001)}
    await queue_site.redis.hset(queue_site.keys.breaker("gio"), "until", queue_site.now_ms + 60_000)
    assert (await queue_site.one("transfer")).export.phase is Phase.TRANSFERRING


# Rate


@pytest.mark.parametrize("per_second", [0.5, 5.0, 40.0])
async def test_claims_follow_the_rate_of_the_connection(queue_site: QueueSite, per_second: float) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1000, per_second)}
    count = int(per_second * 4) + 4
    for _ in range(count):
        await queue_site.enqueue()
    started = queue_site.now
    taken_at_s: list[float] = []
    while len(taken_at_s) < count:
        result = await queue_site.claimed(7)
        elapsed_s = (queue_site.now - started).total_seconds()
        for claimed in result.steps:
            taken_at_s.append(elapsed_s)
            await queue_site.commit(claimed, endings.after_cancel(claimed.export, queue_site.moment()))
        assert result.next_due_ms is not None or len(taken_at_s) == count
        wait_ms = 0 if result.next_due_ms is None else result.next_due_ms - queue_site.now_ms
        # A score has milliseconds.
        queue_site.later(max(wait_ms, 1) / 1000)
    for number, at_s in enumerate(taken_at_s):
        # A burst of one second's calls is allowed, and one more.
        assert number + 1 <= per_second * (at_s + 1) + 1
        assert at_s <= max(0.0, (number - int(per_second)) / per_second) + 0.001 * (number + 2)


async def test_pause_that_the_platform_asks_for_holds_every_export(queue_site: QueueSite) -> None:
    await queue_site.running()
    poll = await queue_site.one()
    await queue_site.fail(poll, REFUSED, PlatformSignal("up", pause_s=30))
    export_id = await queue_site.enqueue()
    assert await queue_site.claim() == []
    assert await queue_site.due_ms(export_id, 0) == pytest.approx(queue_site.now_ms + 30_000, abs=2000)
    queue_site.later(30)
    assert await queue_site.ids() == [export_id]


async def test_shorter_pause_does_not_end_a_longer_one(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.enqueue()
    first, second = await queue_site.claim()
    await queue_site.fail(first, UNAVAILABLE, PlatformSignal("up", pause_s=30))
    await queue_site.fail(second, UNAVAILABLE, PlatformSignal("up", pause_s=1))
    queue_site.later(29.9)
    assert await queue_site.claim() == []
    queue_site.later(0.101)
    assert len(await queue_site.claim()) == 2


async def test_limits_apply_to_one_connection_only(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6), "other": MANY}
    for connection in ("gio", "gio", "other", "other"):
        await queue_site.enqueue(connection)
    found = [claimed.export.request.connection for claimed in await queue_site.claim()]
    assert sorted(found) == ["gio", "other", "other"]


async def test_free_slot_does_not_release_a_held_step(queue_site: QueueSite) -> None:
    """A parked export may be in the queue as well, after a cancel by an older producer."""
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    await queue_site.running()
    export_id = await queue_site.enqueue()
    first = await queue_site.one()
    job_id = queue_site.keys.job_id(export_id, 0)
    assert await queue_site.members(queue_site.keys.parked("gio")) == [job_id]
    await queue_site.redis.hset(queue_site.keys.export(export_id), "cancel", queue_site.now_ms)
    await queue_site.redis.zadd(queue_site.keys.queue("control"), {job_id: queue_site.now_ms})
    assert await queue_site.ids() == [export_id]
    await queue_site.ready(first)
    assert await queue_site.claim() == []


# Waiting for the rate


async def test_exports_that_wait_for_the_rate_are_due_one_after_another(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(10_000, 10.0)}
    for _ in range(20):
        await queue_site.enqueue()
    assert len(await queue_site.claim()) == 11
    scores = [
        score for _, score in await queue_site.redis.zrange(queue_site.keys.queue("control"), 0, -1, withscores=True)
    ]
    waiting = sorted(score for score in scores if score < queue_site.now_ms + 10_000)
    assert len(waiting) == 9
    assert all(90 <= later - sooner <= 110 for sooner, later in pairwise(waiting))


async def test_export_whose_file_is_missing_gets_a_slot_again(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    assert await queue_site.members(queue_site.keys.slots("gio")) == []
    await queue_site.fail(await queue_site.one("transfer"), ResultMissingError("the file is missing"))
    assert await queue_site.members(queue_site.keys.slots("gio")) == [export_id]

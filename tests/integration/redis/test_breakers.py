"""The circuit breakers of a connection: one for its platform, and one each for submits, polls and transfers."""

import pytest

from export_worker.contract.redis_keys import CallKind
from export_worker.contract.status import Phase
from export_worker.redis.claims import NO_SIGNAL, ClaimedStep, ConnectionLimits, PlatformSignal, Timings
from support.redis_site import UNAVAILABLE, QueueSite, ids_of

BREAKER = Timings(lease_s=15.0, breaker_first_s=5.0, breaker_max_s=60.0, breaker_threshold=3)


async def breaker(site: QueueSite, kind: CallKind | None = None) -> tuple[int, int]:
    """Returns the pauses in a row, and for how many seconds calls are paused."""
    pauses, until_ms = await site.redis.hmget(site.keys.breaker("gio", kind), "pauses", "until")
    return int(pauses or 0), round((int(until_ms or site.now_ms) - site.now_ms) / 1000)


async def exists(site: QueueSite, kind: CallKind | None = None) -> bool:
    return bool(await site.redis.exists(site.keys.breaker("gio", kind)))


async def enqueued(site: QueueSite, count: int) -> list[str]:
    site.timings = BREAKER
    return [await site.enqueue() for _ in range(count)]


# The platform


async def opened(site: QueueSite, exports: int = 3) -> list[str]:
    """Opens the breaker of the platform, and returns the exports that wait for it."""
    waiting = await enqueued(site, exports)
    for claimed in await site.claim():
        await site.down(claimed)
    return waiting


async def test_one_failed_check_opens_the_breaker_of_the_platform(queue_site: QueueSite) -> None:
    await opened(queue_site, 1)
    assert await breaker(queue_site) == (1, 5)
    assert await queue_site.claim() == []


async def test_all_exports_wait_for_a_platform_that_is_down(queue_site: QueueSite) -> None:
    queue_site.timings = BREAKER
    await queue_site.running()
    await queue_site.down(await queue_site.one())
    await queue_site.enqueue()
    assert await queue_site.claim() == [], "a new export was submitted, or the poll was repeated"


async def test_step_without_a_call_leaves_the_breaker_unchanged(queue_site: QueueSite) -> None:
    await opened(queue_site, 2)
    queue_site.later(5)
    await queue_site.fail(await queue_site.one(), UNAVAILABLE, NO_SIGNAL)
    assert (await breaker(queue_site))[0] == 1


@pytest.mark.parametrize("signal", [PlatformSignal("up"), PlatformSignal(check="up")])
async def test_one_probe_runs_and_its_success_resumes_all_exports(
    queue_site: QueueSite, signal: PlatformSignal
) -> None:
    waiting = await opened(queue_site)
    queue_site.later(4.9)
    assert await queue_site.claim() == []
    queue_site.later(0.1)
    probe = await queue_site.one()
    assert probe.probe
    assert await queue_site.claim() == []
    await queue_site.submit(probe, signal)
    assert not await exists(queue_site)
    # While a probe runs, the others look for its result every two seconds.
    queue_site.later(2)
    steps = await queue_site.claim()
    assert sorted(ids_of(steps)) == sorted(waiting)
    assert not any(claimed.probe for claimed in steps)


async def test_each_failed_probe_doubles_the_pause_up_to_the_maximum(queue_site: QueueSite) -> None:
    await opened(queue_site)
    for pauses, pause_s in ((2, 10), (3, 20), (4, 40), (5, 60), (6, 60)):
        queue_site.later((await breaker(queue_site))[1])
        probe = await queue_site.one()
        await queue_site.down(probe)
        assert await breaker(queue_site) == (pauses, pause_s)
        saved = await queue_site.queue.status(probe.export.export_id)
        assert (saved.phase, saved.counters.retries, probe.export.attempt) == (Phase.QUEUED, 0, 0)


async def test_checks_from_before_the_pause_do_not_lengthen_it(queue_site: QueueSite) -> None:
    await opened(queue_site, 10)
    assert await breaker(queue_site) == (1, 5)


async def test_probe_whose_worker_dies_is_followed_by_another_probe(queue_site: QueueSite) -> None:
    await opened(queue_site)
    queue_site.later(5)
    assert (await queue_site.one()).probe
    queue_site.later(15)
    claimed = await queue_site.one()
    assert claimed.probe


async def test_export_without_a_slot_is_no_probe(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    running = await queue_site.running()
    await queue_site.pend(await queue_site.one(), draw=1.0)
    parked = [queue_site.keys.job_id(await queue_site.enqueue(), 0) for _ in range(3)]
    queue_site.later(60)
    await queue_site.redis.hset(queue_site.keys.breaker("gio"), "until", queue_site.now_ms - 1)
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.probe) == (running, True)
    assert await queue_site.members(queue_site.keys.parked("gio")) == parked


async def test_unused_breaker_expires(queue_site: QueueSite) -> None:
    await opened(queue_site)
    assert 120_000 < await queue_site.redis.pttl(queue_site.keys.breaker("gio")) <= 600_000


async def test_explain_says_that_the_connection_is_paused(queue_site: QueueSite) -> None:
    export_id, *_ = await opened(queue_site)
    assert await queue_site.claim() == []
    assert "Connection gio is paused until" in await queue_site.queue.explain(export_id)


async def test_breaker_is_kept_longer_than_the_waits_between_attempts(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(breaker_first_s=0.1, breaker_max_s=0.2)
    await queue_site.enqueue()
    await queue_site.fail_alone(await queue_site.one())
    assert await queue_site.redis.pttl(queue_site.keys.breaker("gio", "submit")) > 300_000


# One kind of calls


async def failing(site: QueueSite, exports: int = 3) -> list[str]:
    """Opens the breaker of submits, and returns the exports whose submits have failed."""
    found = await enqueued(site, exports)
    for claimed in await site.claim():
        await site.fail_alone(claimed)
    return found


async def test_two_failing_exports_do_not_open_a_breaker(queue_site: QueueSite) -> None:
    await enqueued(queue_site, 2)
    for _ in range(10):
        steps = await queue_site.claim()
        assert len(steps) == 2
        assert not any(claimed.spared for claimed in steps)
        for claimed in steps:
            await queue_site.fail_alone(claimed)
    assert await breaker(queue_site, "submit") == (0, 0)


async def test_third_failing_export_opens_the_breaker_for_those_that_failed_only(queue_site: QueueSite) -> None:
    await failing(queue_site)
    assert await breaker(queue_site, "submit") == (1, 5)
    assert not await exists(queue_site)
    assert await queue_site.claim() == []
    fresh = await queue_site.enqueue()
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.probe, claimed.spared) == (fresh, False, True)
    await queue_site.fail_alone(claimed)
    assert await breaker(queue_site, "submit") == (1, 5), "a first failure is no trial"
    assert (await queue_site.queue.status(fresh)).counters.retries == 0
    assert await queue_site.claim() == []


async def test_success_between_failures_closes_the_breaker(queue_site: QueueSite) -> None:
    await enqueued(queue_site, 2)
    for _ in range(3):
        for claimed in await queue_site.claim():
            await queue_site.fail_alone(claimed)
        await queue_site.enqueue()
        *failing_steps, succeeding = await queue_site.claim()
        await queue_site.submit(succeeding, PlatformSignal("up"))
        assert not await exists(queue_site, "submit")
        for claimed in failing_steps:
            await queue_site.fail_alone(claimed)
        await queue_site.ready(await poll_of(queue_site), PlatformSignal("up"))
    assert (await breaker(queue_site, "submit"))[0] == 0


async def poll_of(site: QueueSite) -> ClaimedStep:
    """Claims what is due, gives back all submits, and returns the poll."""
    steps = await site.claim()
    for claimed in steps:
        if claimed.export.phase is Phase.QUEUED:
            await site.store.hand_back(claimed, site.now)
    (poll,) = (claimed for claimed in steps if claimed.export.phase is Phase.RUNNING)
    return poll


async def test_successful_poll_does_not_close_the_breaker_of_submits(queue_site: QueueSite) -> None:
    queue_site.timings = BREAKER
    await queue_site.running()
    poll = await queue_site.one()
    await failing(queue_site)
    await queue_site.commit(poll, queue_site.pending(poll), PlatformSignal("up"))
    assert await breaker(queue_site, "submit") == (1, 5)
    queue_site.later(4)
    claimed = await queue_site.one()
    assert (claimed.export.phase, claimed.spared) == (Phase.RUNNING, False)


async def test_check_that_succeeds_does_not_close_the_breaker_of_submits(queue_site: QueueSite) -> None:
    await failing(queue_site)
    await queue_site.enqueue()
    await queue_site.fail(await queue_site.one(), UNAVAILABLE, PlatformSignal(check="up"))
    assert await breaker(queue_site, "submit") == (1, 5)


async def test_one_export_at_a_time_is_tried_and_its_failure_doubles_the_pause(queue_site: QueueSite) -> None:
    found = await failing(queue_site)
    tried: list[str] = []
    for pauses, pause_s in ((2, 10), (3, 20), (4, 40), (5, 60), (6, 60)):
        queue_site.later((await breaker(queue_site, "submit"))[1] + 0.1)
        trial = await queue_site.one()
        assert await queue_site.claim() == []
        assert (trial.probe, trial.spared) == (False, True)
        tried.append(trial.export.export_id)
        await queue_site.fail_alone(trial)
        assert await breaker(queue_site, "submit") == (pauses, pause_s)
        assert await queue_site.claim() == []
    assert set(tried[:3]) == set(found), "the exports that failed least come first"
    for export_id in found:
        assert (await queue_site.queue.status(export_id)).counters.retries == 1


async def test_successful_trial_resumes_all_exports(queue_site: QueueSite) -> None:
    found = await failing(queue_site)
    queue_site.later(5.1)
    trial = await queue_site.one()
    assert await queue_site.claim() == []
    await queue_site.submit(trial, PlatformSignal("up"))
    queue_site.later(2.1)
    steps = await queue_site.claim()
    assert sorted(ids_of(steps)) == sorted(found)
    assert not any(claimed.spared for claimed in steps)


async def test_trial_whose_worker_dies_is_followed_by_another_trial(queue_site: QueueSite) -> None:
    await failing(queue_site)
    queue_site.later(5.1)
    assert (await queue_site.one()).spared
    queue_site.later(15.1)
    assert (await queue_site.one()).spared


async def test_failures_of_polls_do_not_delay_submits(queue_site: QueueSite) -> None:
    await enqueued(queue_site, 3)
    for claimed in await queue_site.claim():
        await queue_site.submit(claimed, PlatformSignal("up"))
    for claimed in await queue_site.claim():
        await queue_site.fail_alone(claimed)
    assert await breaker(queue_site, "poll") == (1, 5)
    fresh = await queue_site.enqueue()
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.spared) == (fresh, False)


async def test_explain_says_which_calls_are_paused(queue_site: QueueSite) -> None:
    export_id, *_ = await failing(queue_site)
    fresh = await queue_site.enqueue()
    assert (await queue_site.queue.explain(export_id)).startswith("Submits of connection gio are paused until")
    assert "paused" not in await queue_site.queue.explain(fresh)

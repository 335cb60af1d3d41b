"""Submits of a worker that dies, crashes or is refused: how often the next worker submits, and what ends the export."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode, PlatformRefusedError
from export_worker.lifecycle import submits
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.observations import Pending, Polled
from export_worker.lifecycle.resubmit import Resubmit
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.claims import ClaimedStep, PlatformSignal
from export_worker.step_context import check_submit
from export_worker.telemetry.instrumentation import Detail, SubmitUnclear
from export_worker.worker.leases import HeldStep
from export_worker.worker.step_submits import checkpoint, count_lost_submits
from support.redis_site import POLICY, QueueSite
from support.scripted_worker import Parts, ScriptedDriver

SECOND = "op2"


class Recorder:
    """Keeps the outcomes of unclear submits."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def on(self, detail: Detail) -> None:
        if isinstance(detail, SubmitUnclear):
            self.outcomes.append(detail.outcome)


See = Callable[[int], Polled | Awaitable[Polled]]


def worker_of(site: QueueSite, resubmit: Resubmit, see: See = lambda _: Pending("X")) -> Parts:
    """Returns the parts of a worker that has the time of the site. A recorder is its instrument."""
    policy = replace(POLICY, resubmit=resubmit)
    return Parts(site, ScriptedDriver(see), lambda: site.now, policy=policy, instrument=Recorder())


def outcomes_of(parts: Parts) -> list[str]:
    """Returns the outcomes of the unclear submits of a worker."""
    assert isinstance(parts.instrument, Recorder)
    return parts.instrument.outcomes


async def claim_after_deaths(site: QueueSite, deaths: int, *, in_submit: bool = True) -> ClaimedStep:
    """Returns the claim of the only step after this many workers have died in it.

    Args:
        in_submit: Each of them has saved that it begins a submit.
    """
    claimed = await site.one()
    for _ in range(deaths):
        if in_submit:
            begun = submits.with_open_submit(submits.count_submit(claimed.export))
            await site.store.checkpoint(claimed, Decision(begun), site.now)
        site.later(site.timings.lease_s)
        while not (steps := await site.claim()):
            site.later(1.0)
        claimed = steps[0]
    return claimed


async def submits_at_poll(_: int) -> Polled:
    """The platform's first operation has ended, so the driver starts the second one."""
    await check_submit()
    return Pending("QUERYING", operation_id=SECOND, submitted=True)


@pytest.mark.parametrize(("resubmit", "deaths"), [("once", 1), ("always", 3)])
async def test_submit_after_allowed_deaths_is_made_and_noted(
    queue_site: QueueSite, resubmit: Resubmit, deaths: int
) -> None:
    export_id = await queue_site.enqueue()
    parts = worker_of(queue_site, resubmit)
    await parts.runner.run(await claim_after_deaths(queue_site, deaths))
    status = await queue_site.queue.status(export_id)
    assert (status.phase, status.counters.submits, parts.driver.submits) == (Phase.RUNNING, deaths + 1, 1)
    note = f"submitted again as op1: the platform may have received {deaths} earlier submit(s)"
    assert (await queue_site.notes(export_id))[-1] == note
    assert outcomes_of(parts) == ["resubmitted"] * deaths


@pytest.mark.parametrize(("resubmit", "deaths"), [("never", 1), ("once", 2)])
async def test_submit_after_too_many_deaths_fails_without_a_call(
    queue_site: QueueSite, resubmit: Resubmit, deaths: int
) -> None:
    export_id = await queue_site.enqueue()
    parts = worker_of(queue_site, resubmit)
    await parts.runner.run(await claim_after_deaths(queue_site, deaths))
    status = await queue_site.queue.status(export_id)
    assert status.error is not None
    assert (status.phase, status.error.code) == (Phase.FAILED, ErrorCode.SUBMIT_UNCLEAR)
    assert (status.counters.submits, parts.driver.submits) == (deaths, 0)
    assert "the platform may have received this submit (its worker stopped" in status.error.message
    assert outcomes_of(parts) == ["resubmitted"] * (deaths - 1) + ["failed"]


async def test_poll_that_submits_after_too_many_deaths_makes_no_submit(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.submit(await queue_site.one())
    queue_site.later(60)
    parts = worker_of(queue_site, "once", submits_at_poll)
    await parts.runner.run(await claim_after_deaths(queue_site, 2))
    status = await queue_site.queue.status(export_id)
    assert status.error is not None
    assert (status.phase, status.error.code, status.error.step) == (Phase.FAILED, ErrorCode.SUBMIT_UNCLEAR, "poll")


async def test_poll_that_submits_after_one_death_is_noted(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.submit(await queue_site.one())
    queue_site.later(60)
    parts = worker_of(queue_site, "once", submits_at_poll)
    await parts.runner.run(await claim_after_deaths(queue_site, 1))
    note = f"stage QUERYING, submitted again as {SECOND}: the platform may have received 1 earlier submit(s)"
    assert (await queue_site.notes(export_id))[-1] == note


async def test_submit_of_a_dead_worker_is_known_although_the_next_poll_submits_nothing(queue_site: QueueSite) -> None:
    """The platform shows another state meanwhile: another export has started the same work there."""
    export_id = await queue_site.enqueue()
    await queue_site.submit(await queue_site.one())
    queue_site.later(60)
    parts = worker_of(queue_site, "once", lambda _: Pending("REFRESHING"))
    await parts.runner.run(await claim_after_deaths(queue_site, 1))
    note = "stage REFRESHING; the platform may have received 1 earlier submit(s)"
    assert (await queue_site.notes(export_id))[-1] == note
    assert outcomes_of(parts) == ["resubmitted"]
    queue_site.later(60)
    parts = worker_of(queue_site, "never", submits_at_poll)
    await parts.runner.run(await queue_site.one())
    status = await queue_site.queue.status(export_id)
    assert status.error is not None
    assert status.error.code == ErrorCode.SUBMIT_UNCLEAR


async def test_deaths_before_the_submit_do_not_matter(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    parts = worker_of(queue_site, "never")
    await parts.runner.run(await claim_after_deaths(queue_site, 2, in_submit=False))
    status = await queue_site.queue.status(export_id)
    assert (status.phase, status.counters.submits) == (Phase.RUNNING, 1)


async def test_worker_that_is_stopped_in_a_submit_has_saved_it(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    parts = worker_of(queue_site, "never")
    parts.driver.gate.clear()
    running = asyncio.create_task(parts.runner.run(await queue_site.one()))
    while not parts.driver.submits:
        await asyncio.sleep(0)
    await cancel_and_wait(running)
    (claimed,) = await queue_site.claim()
    assert claimed.export.open_submits == 1
    await worker_of(queue_site, "never").runner.run(claimed)
    status = await queue_site.queue.status(export_id)
    assert status.error is not None
    assert (status.error.code, status.counters.submits) == (ErrorCode.SUBMIT_UNCLEAR, 1)


async def test_worker_that_is_stopped_before_the_request_that_starts_work_has_begun_no_submit(
    queue_site: QueueSite,
) -> None:
    """Some drivers read the state of the platform before they submit."""
    export_id = await queue_site.enqueue()
    parts = worker_of(queue_site, "never")
    parts.driver.reads.clear()
    running = asyncio.create_task(parts.runner.run(await queue_site.one()))
    while not parts.driver.preparations:
        await asyncio.sleep(0)
    await cancel_and_wait(running)
    (claimed,) = await queue_site.claim()
    assert claimed.export.open_submits == 0
    await worker_of(queue_site, "never").runner.run(claimed)
    status = await queue_site.queue.status(export_id)
    assert (status.phase, status.counters.submits) == (Phase.RUNNING, 1)


async def test_lost_submit_stays_known_if_the_worker_that_found_it_dies_after_its_probe(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await claim_after_deaths(queue_site, 1)
    held = HeldStep(claimed, asyncio.create_task(asyncio.sleep(0)), claimed.since_s + 10)
    count_lost_submits(held)
    parts = worker_of(queue_site, "once")
    await checkpoint(parts.leases, held, PlatformSignal(check="up"))
    queue_site.later(queue_site.timings.lease_s)
    while not (steps := await queue_site.claim()):
        queue_site.later(1.0)
    await parts.runner.run(steps[0])
    note = "submitted again as op1: the platform may have received 1 earlier submit(s)"
    assert (await queue_site.notes(export_id))[-1] == note
    assert outcomes_of(parts) == ["resubmitted"]


async def test_worker_that_has_lost_its_lease_sends_no_submit(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    frozen = await queue_site.one()
    queue_site.later(queue_site.timings.lease_s)
    await queue_site.one()
    parts = worker_of(queue_site, "always")
    await parts.runner.run(frozen)
    assert parts.driver.submits == 0


async def test_deaths_in_polls_that_submit_nothing_do_not_matter(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.submit(await queue_site.one())
    queue_site.later(60)
    parts = worker_of(queue_site, "never")
    await parts.runner.run(await claim_after_deaths(queue_site, 3, in_submit=False))
    assert (await queue_site.queue.status(export_id)).phase is Phase.RUNNING


@pytest.mark.parametrize(("resubmit", "ended"), [("never", True), ("once", False)])
async def test_crash_of_the_driver_after_its_request_is_unclear(
    queue_site: QueueSite, resubmit: Resubmit, *, ended: bool
) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.submit(await queue_site.one())
    queue_site.later(60)

    async def crash(_: int) -> Polled:
        await check_submit()
        raise KeyError("taskId")

    await worker_of(queue_site, resubmit, crash).runner.run(await queue_site.one())
    status = await queue_site.queue.status(export_id)
    assert status.error is not None
    assert status.phase is (Phase.FAILED if ended else Phase.RUNNING)
    assert status.error.code == (ErrorCode.SUBMIT_UNCLEAR if ended else ErrorCode.INTERNAL_ERROR)
    assert "the platform may have received this submit (unexpected KeyError" in status.error.message


@pytest.mark.parametrize(("submits", "phase"), [(True, Phase.FAILED), (False, Phase.RUNNING)])
async def test_refusal_in_a_poll_is_final_only_for_a_submit(
    queue_site: QueueSite, phase: Phase, *, submits: bool
) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.submit(await queue_site.one())
    queue_site.later(60)

    async def refuse(_: int) -> Polled:
        if submits:
            await check_submit()
        raise PlatformRefusedError("no such column")

    await worker_of(queue_site, "once", refuse).runner.run(await queue_site.one())
    status = await queue_site.queue.status(export_id)
    assert status.error is not None
    assert (status.phase, status.error.code) == (phase, ErrorCode.PLATFORM_REFUSED)

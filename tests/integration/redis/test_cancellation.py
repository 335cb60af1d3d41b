"""A cancel while a step is under way: what a call begins on the platform is known, and ended where that can be done."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from export_worker.contract.request import ExportKind
from export_worker.contract.status import Phase
from export_worker.errors import PlatformThrottledError, StepError
from export_worker.lifecycle.observations import Pending
from support.redis_site import POLICY, REFUSED, UNAVAILABLE, QueueSite
from support.scripted_worker import Parts, ScriptedDriver

HEARTBEATS_S = 0.5
"""Several of those that a scripted worker has."""


def real_time() -> datetime:
    return datetime.now(UTC)


@dataclass
class CancellingDriver(ScriptedDriver):
    """A platform that can be told to stop, and that may be too busy for it."""

    busy: bool = False
    refusal: StepError | None = None
    cancelled: list[str] = field(default_factory=list)

    async def cancel(self, export: ExportKind, operation_id: str) -> None:
        """Stop one."""
        self.cancelled.append(operation_id)
        if self.busy:
            raise PlatformThrottledError("HTTP 429")
        if self.refusal is not None:
            raise self.refusal


async def under_way(driver: ScriptedDriver) -> None:
    async with asyncio.timeout(10):
        while not driver.submits:
            await asyncio.sleep(0.01)


async def test_a_submit_is_heard_to_its_end_and_its_job_cancelled(queue_site: QueueSite) -> None:
    driver = CancellingDriver()
    driver.gate.clear()
    async with Parts(queue_site, driver, real_time).running():
        export_id = await queue_site.enqueue()
        await under_way(driver)
        await queue_site.cancel(export_id)
        await asyncio.sleep(HEARTBEATS_S)
        driver.gate.set()
        status = await queue_site.queue.wait(export_id, 10)
    assert (status.phase, driver.submits, driver.polls, driver.cancelled) == (Phase.CANCELLED, 1, 0, ["op1"])
    assert (await queue_site.notes(export_id))[-2:] == [
        "submitted as op1",
        "cancelled; op1 is cancelled on the platform",
    ]


async def test_a_worker_that_stops_still_gives_a_step_back_in_the_middle_of_a_submit(queue_site: QueueSite) -> None:
    driver = CancellingDriver()
    driver.gate.clear()
    async with Parts(queue_site, driver, real_time).running():
        export_id = await queue_site.enqueue()
        await under_way(driver)
        await queue_site.cancel(export_id)
    queue_site.catch_up()
    record = await queue_site.record(export_id)
    assert (record["phase"], record["claims"], record["released"]) == ("queued", "1", "1")
    await Parts(queue_site, driver, real_time).runner.run(await queue_site.one())
    assert (await queue_site.notes(export_id))[-1] == (
        "cancelled; a submit whose response was lost may have started a job on the platform"
    )


async def test_a_platform_that_will_not_cancel_does_not_make_it_a_failure(queue_site: QueueSite) -> None:
    driver = CancellingDriver(lambda _: Pending("EXECUTING"), refusal=REFUSED)
    parts = Parts(queue_site, driver, lambda: queue_site.now)
    export_id = await queue_site.running()
    await queue_site.cancel(export_id)
    await parts.runner.run(await queue_site.one())
    status = await queue_site.queue.status(export_id)
    assert (status.phase, status.error) == (Phase.CANCELLED, None)
    assert (await queue_site.notes(export_id))[-1] == "cancelled; op1 continues on the platform"


async def test_a_platform_that_stays_away_is_asked_to_cancel_a_few_times(queue_site: QueueSite) -> None:
    driver = CancellingDriver(lambda _: Pending("EXECUTING"), refusal=UNAVAILABLE)
    parts = Parts(queue_site, driver, lambda: queue_site.now, policy=replace(POLICY, max_attempts=3))
    export_id = await queue_site.running()
    await queue_site.cancel(export_id)
    for _ in range(3):
        await parts.runner.run(await queue_site.one())
        queue_site.later(60)
    assert (await queue_site.queue.status(export_id)).phase is Phase.CANCELLED
    assert driver.cancelled == ["op1"] * 3


async def test_behind_the_deadline_nothing_is_asked_of_the_platform(queue_site: QueueSite) -> None:
    """It would be refused again and again, at once each time: there is nothing left to wait for."""
    driver = CancellingDriver(lambda _: Pending("EXECUTING"), busy=True)
    parts = Parts(queue_site, driver, lambda: queue_site.now)
    export_id = await queue_site.running()
    await queue_site.cancel(export_id)
    await parts.runner.run(await queue_site.one())
    assert (await queue_site.queue.status(export_id)).phase is Phase.RUNNING
    queue_site.now += timedelta(seconds=POLICY.deadline_s)
    await parts.runner.run(await queue_site.one())
    assert (await queue_site.queue.status(export_id)).phase is Phase.CANCELLED
    assert driver.cancelled == ["op1"]
    assert (await queue_site.notes(export_id))[-1] == "cancelled; op1 continues on the platform"


async def test_a_deadline_that_cuts_a_submit_says_so(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    driver.gate.clear()
    async with Parts(queue_site, driver, real_time, policy=replace(POLICY, deadline_s=0.3)).running():
        export_id = await queue_site.enqueue()
        status = await queue_site.queue.wait(export_id, 10)
    assert (status.phase, driver.submits) == (Phase.FAILED, 1)
    assert status.error is not None
    assert status.error.message.endswith("a submit whose response was lost may have started a job on the platform")

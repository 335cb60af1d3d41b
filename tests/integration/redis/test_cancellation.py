"""Cancellation while a step runs: an operation that the step begins is cancelled, if the platform can do so."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from export_worker.contract.request import ExportKind
from export_worker.contract.status import Phase
from export_worker.errors import PlatformRefusedError, PlatformThrottledError, StepError
from export_worker.lifecycle.observations import Pending
from support.redis_site import POLICY, UNAVAILABLE, QueueSite
from support.scripted_worker import Parts, ScriptedDriver

HEARTBEATS_S = 0.5
"""Several heartbeats of a scripted worker."""


def real_time() -> datetime:
    return datetime.now(UTC)


@dataclass
class CancellingDriver(ScriptedDriver):
    """A platform that can cancel operations, or may be too busy to."""

    busy: bool = False
    refusal: StepError | None = None
    cancelled: list[str] = field(default_factory=list)

    async def cancel(self, export: ExportKind, operation_id: str) -> None:
        """Cancels an operation."""
        self.cancelled.append(operation_id)
        if self.busy:
            raise PlatformThrottledError("HTTP 429")
        if self.refusal is not None:
            raise self.refusal


async def submitting(driver: ScriptedDriver) -> None:
    async with asyncio.timeout(10):
        while not driver.submits:
            await asyncio.sleep(0.01)


async def test_cancel_during_a_submit_waits_for_its_answer_and_cancels_the_operation(queue_site: QueueSite) -> None:
    driver = CancellingDriver()
    driver.gate.clear()
    async with Parts(queue_site, driver, real_time).running():
        export_id = await queue_site.enqueue()
        await submitting(driver)
        await queue_site.cancel(export_id)
        await asyncio.sleep(HEARTBEATS_S)
        driver.gate.set()
        status = await queue_site.queue.wait(export_id, 10)
    assert (status.phase, driver.submits, driver.polls, driver.cancelled) == (Phase.CANCELLED, 1, 0, ["op1"])
    assert (await queue_site.notes(export_id))[-2:] == [
        "submitted as op1",
        "cancelled; op1 is cancelled on the platform",
    ]


async def test_worker_shutdown_during_a_submit_releases_the_step(queue_site: QueueSite) -> None:
    driver = CancellingDriver()
    driver.gate.clear()
    async with Parts(queue_site, driver, real_time).running():
        export_id = await queue_site.enqueue()
        await submitting(driver)
        await queue_site.cancel(export_id)
    queue_site.catch_up()
    record = await queue_site.record(export_id)
    assert (record["phase"], record["claims"], record["released"]) == ("queued", "1", "1")
    await Parts(queue_site, driver, real_time).runner.run(await queue_site.one())
    assert (await queue_site.notes(export_id))[-1] == (
        "cancelled; a submit whose response was lost may have started an operation on the platform"
    )


async def test_export_is_cancelled_although_the_platform_refuses_to_cancel(queue_site: QueueSite) -> None:
    driver = CancellingDriver(lambda _: Pending("EXECUTING"), refusal=PlatformRefusedError("has ended"))
    parts = Parts(queue_site, driver, lambda: queue_site.now)
    export_id = await queue_site.running()
    await queue_site.cancel(export_id)
    await parts.runner.run(await queue_site.one())
    status = await queue_site.queue.status(export_id)
    assert (status.phase, status.error) == (Phase.CANCELLED, None)
    assert (await queue_site.notes(export_id))[-1] == "cancelled; op1 continues on the platform"


async def test_cancel_call_to_an_unavailable_platform_is_retried_up_to_the_maximum(queue_site: QueueSite) -> None:
    driver = CancellingDriver(lambda _: Pending("EXECUTING"), refusal=UNAVAILABLE)
    parts = Parts(queue_site, driver, lambda: queue_site.now, policy=replace(POLICY, max_attempts=3))
    export_id = await queue_site.running()
    await queue_site.cancel(export_id)
    for _ in range(3):
        await parts.runner.run(await queue_site.one())
        queue_site.later(60)
    assert (await queue_site.queue.status(export_id)).phase is Phase.CANCELLED
    assert driver.cancelled == ["op1"] * 3


async def test_cancel_after_the_deadline_makes_no_call_to_the_platform(queue_site: QueueSite) -> None:
    """The platform would refuse each call at once, and there is no time left to wait for it."""
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


async def test_deadline_during_a_submit_is_reported_as_unclear(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    driver.gate.clear()
    async with Parts(queue_site, driver, real_time, policy=replace(POLICY, deadline_s=0.3)).running():
        export_id = await queue_site.enqueue()
        status = await queue_site.queue.wait(export_id, 10)
    assert (status.phase, driver.submits) == (Phase.FAILED, 1)
    assert status.error is not None
    assert status.error.message.endswith(
        "a submit whose response was lost may have started an operation on the platform"
    )

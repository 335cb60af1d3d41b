"""Outages as a worker sees them: the check after a failed call, and what a step with the probe does."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import ExportKind
from export_worker.contract.status import Phase
from export_worker.credentials import Redactor
from export_worker.doctor.breakers import check_breakers
from export_worker.errors import (
    AuthFailedError,
    ErrorCode,
    PlatformError,
    PlatformPausedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    StepError,
    StorageUnavailableError,
)
from export_worker.lifecycle import submits
from export_worker.lifecycle.decisions import Decision, Policy
from export_worker.lifecycle.export import accepted
from export_worker.lifecycle.observations import Submitted
from export_worker.redis.claims import PlatformSignal, Timings
from export_worker.worker import outages
from export_worker.worker.connections import Connection
from export_worker.worker.outages import PlatformChecks, platform_is_down, signal_of_failure
from support.redis_site import POLICY, QueueSite, request_of
from support.scripted_worker import Parts, ScriptedDriver

BREAKER = Timings(breaker_first_s=0.1, breaker_max_s=0.2)
SECRET = "a-secret-in-an-answer"


@dataclass
class CheckedDriver(ScriptedDriver):
    """A driver with a cheap call.

    Args:
        outage: What the cheap call raises; None if the platform answers.
        refusal: What a submit raises; None if the platform accepts it.
        hangs: The cheap call does not end.
    """

    outage: PlatformError | Exception | None = None
    refusal: PlatformError | None = None
    hangs: bool = False
    checks: int = 0
    checked: asyncio.Event = field(default_factory=asyncio.Event)

    async def check(self) -> str:
        """Answers, or fails."""
        self.checks += 1
        self.checked.set()
        if self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.outage is not None:
            raise self.outage
        return "1 project"

    async def submit(self, export: ExportKind) -> Submitted:
        """Starts an operation, or fails."""
        if self.refusal is not None:
            self.submits += 1
            raise self.refusal
        return await super().submit(export)


def connection_of(driver: ScriptedDriver) -> Connection:
    return Connection("growingio", driver, POLICY)


async def reason(driver: ScriptedDriver) -> str | None:
    return await PlatformChecks(Redactor()).reason_down("gio", connection_of(driver))


async def test_platform_without_an_answer_is_down() -> None:
    assert await reason(CheckedDriver(outage=PlatformUnavailableError("HTTP 503"))) == "HTTP 503"


@pytest.mark.parametrize("answer", [None, AuthFailedError("HTTP 401"), KeyError("a defect of the driver")])
async def test_platform_that_answers_anything_is_not_down(answer: Exception | None) -> None:
    assert await reason(CheckedDriver(outage=answer)) is None


async def test_platform_without_a_cheap_call_is_not_down() -> None:
    assert await reason(ScriptedDriver()) is None


@contextmanager
def short_timeout() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outages, "CHECK_TIMEOUT_S", 0.05)
        yield


async def test_check_that_does_not_end_is_a_sign_of_an_outage() -> None:
    with short_timeout():
        assert "no answer within" in str(await reason(CheckedDriver(hangs=True)))


async def test_steps_that_fail_together_share_one_check() -> None:
    driver, checks = CheckedDriver(outage=PlatformUnavailableError("HTTP 503")), PlatformChecks(Redactor())
    found = await asyncio.gather(*(checks.reason_down("gio", connection_of(driver)) for _ in range(20)))
    assert (found, driver.checks) == (["HTTP 503"] * 20, 1)
    await checks.reason_down("gio", connection_of(driver))
    assert driver.checks == 2, "a later failure needs a new check"


async def test_check_continues_when_one_of_its_steps_is_cancelled() -> None:
    driver, checks = CheckedDriver(hangs=True), PlatformChecks(Redactor())
    with short_timeout():
        first, second = (asyncio.create_task(checks.reason_down("gio", connection_of(driver))) for _ in range(2))
        await driver.checked.wait()
        first.cancel()
        assert "no answer" in str(await second)
    assert (first.cancelled(), driver.checks) == (True, 1)


async def test_reason_of_an_outage_has_no_secret() -> None:
    redactor = Redactor()
    redactor.add(SECRET)
    driver = CheckedDriver(outage=PlatformUnavailableError(f"HTTP 503: {SECRET}"))
    assert SECRET not in str(await PlatformChecks(redactor).reason_down("gio", connection_of(driver)))


@pytest.mark.parametrize(
    "failure", [AuthFailedError("HTTP 401"), StorageUnavailableError("HTTP 503"), PlatformPausedError("full")]
)
async def test_failure_that_says_nothing_about_the_platform_needs_no_check(failure: StepError) -> None:
    driver = CheckedDriver()
    assert await platform_is_down(failure, PlatformChecks(Redactor()), "gio", connection_of(driver)) is None
    assert driver.checks == 0


EXPORT = accepted("e1", request_of(), datetime.now(UTC))


def test_retry_after_of_one_export_does_not_pause_the_others() -> None:
    failure = PlatformUnavailableError("HTTP 503", retry_after_s=3600)
    assert signal_of_failure(failure, EXPORT, down=False) == PlatformSignal("failed", check="up")
    assert signal_of_failure(failure, EXPORT, down=None) == PlatformSignal("failed")
    assert signal_of_failure(failure, EXPORT, down=True) == PlatformSignal(check="down", pause_s=3600)


def test_throttled_platform_pauses_all_exports() -> None:
    failure = PlatformThrottledError("HTTP 429", retry_after_s=60)
    assert signal_of_failure(failure, EXPORT, down=None) == PlatformSignal("up", pause_s=60)


# Steps


ONE_ATTEMPT = Policy(POLICY.poll, POLICY.retry, max_attempts=1, deadline_s=86_400.0)


async def until_checked(driver: CheckedDriver, count: int) -> None:
    while driver.checks < count:
        await asyncio.sleep(0.01)


async def test_outage_uses_no_attempt_and_its_probe_is_the_check(queue_site: QueueSite) -> None:
    queue_site.timings = BREAKER
    away = PlatformUnavailableError("connection refused")
    driver = CheckedDriver(outage=away, refusal=away)
    parts = Parts(queue_site, driver, clock=lambda: datetime.now(UTC), policy=ONE_ATTEMPT)
    export_id = await queue_site.enqueue()
    async with parts.running():
        await until_checked(driver, 4)
        submits, during = driver.submits, await queue_site.queue.status(export_id)
        driver.outage = driver.refusal = None
        while (await queue_site.queue.status(export_id)).phase is Phase.QUEUED:
            await asyncio.sleep(0.01)
    assert (submits, driver.submits) == (1, 2)
    assert (during.phase, during.counters.retries) == (Phase.QUEUED, 0)
    assert during.error is not None
    assert "does not answer a cheap call" in during.error.message


async def test_failure_uses_an_attempt_when_the_platform_answers_its_check(queue_site: QueueSite) -> None:
    driver = CheckedDriver(refusal=PlatformUnavailableError("HTTP 503"))
    parts = Parts(queue_site, driver, clock=lambda: datetime.now(UTC), policy=ONE_ATTEMPT)
    export_id = await queue_site.enqueue()
    async with parts.running():
        ended = await queue_site.queue.wait(export_id, 10)
    assert ended.error is not None
    assert (ended.phase, ended.error.code, driver.checks) == (Phase.FAILED, ErrorCode.PLATFORM_UNAVAILABLE, 1)


async def test_submit_of_a_worker_that_died_is_not_forgotten_by_a_failed_probe(queue_site: QueueSite) -> None:
    away = PlatformUnavailableError("connection refused")
    driver = CheckedDriver(outage=away, refusal=away)
    export_id = await queue_site.enqueue()
    first = await queue_site.one()
    begun = submits.with_open_submit(submits.count_submit(first.export))
    await queue_site.store.checkpoint(first, Decision(begun), queue_site.now)
    queue_site.later(16)
    await queue_site.redis.hset(queue_site.keys.breaker("gio"), "until", queue_site.now_ms - 1)
    claimed = await queue_site.one()
    assert (claimed.claims, claimed.probe) == (2, True)
    parts = Parts(queue_site, driver, clock=lambda: queue_site.now)
    await parts.runner.run(claimed)
    assert driver.submits == 0
    queue_site.later(60)
    claimed = await queue_site.one()
    assert (claimed.claims, claimed.export.unclear_submits, claimed.export.counters.submits) == (1, 1, 1)
    assert (await queue_site.queue.status(export_id)).phase is Phase.QUEUED


# Reports


async def test_doctor_reports_each_open_breaker(queue_site: QueueSite) -> None:
    keys: Keys = queue_site.keys
    for kind in (None, "submit", "poll"):
        name = keys.breaker("gio", kind)
        await queue_site.redis.hset(name, mapping={"failures": 4, **({} if kind == "poll" else {"until": 1})})
    found = await check_breakers(queue_site.redis, keys, ["gio", "other"])
    assert [(finding.about, finding.level) for finding in found] == [("breaker of gio", "warning")] * 2
    platform, submits = found
    assert "platform is down" in platform.says
    assert submits.says.startswith("submits: ")
    assert "4 exports" in submits.says

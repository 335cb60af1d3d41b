"""The tests that every driver must pass, whatever its platform. Inherit `DriverSuite` and set its class attributes.

A subclass states which export to run, how its connection is configured, and which faults of the simulator make its
platform behave as a test needs. See worker/PLATFORMS.md for a complete example.
"""

import asyncio
import re
from typing import Literal

import pytest

from export_worker.contract.request import ExportKind, GrowingioSegmentUsers, SensorsdataUserGroupUsers
from export_worker.credentials import MASK, Redactor
from export_worker.errors import (
    AuthFailedError,
    ConfigError,
    DownloadError,
    DownloadInterruptedError,
    InvalidRequestError,
    PlatformError,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    StepError,
    SubmitUnclearError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Ready
from export_worker.platforms.base import Catalog, Driver
from export_worker.platforms.conformance.harness import CONNECTION, DriverHarness, Step, fault, unused_address
from export_worker.platforms.conformance.operation_table import problems_of
from export_worker.platforms.operations import Operations
from export_worker.simulator.scenario import Fault
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import World
from export_worker.step_context import checking_submits

EVERY_STEP = pytest.mark.parametrize("step", ["submit", "poll", "download"])
API_STEPS = pytest.mark.parametrize("step", ["submit", "poll"])
UNCLEAR = (fault("error5xx", status=504), fault("error5xx", status=500), fault("cut"), fault("error_page"))
"""A gateway that did not wait, a server error, a broken connection, and a page instead of the response."""
SAFE = (fault("throttled", retry_after_s=1), fault("unavailable", retry_after_s=1))
"""429, and 503 with Retry-After."""
UNUSED_URL = "https://platform.example.cn"
"""For drivers that are built and never called."""


def _fault_id(item: Fault | None) -> str:
    return "truncated" if item is None else f"{item.fault}-{item.status}"


class DriverSuite(DriverHarness):
    """Inherit this class. Set the attributes of `DriverHarness` that have no value; override those that differ."""

    # An export from submit to download.

    async def test_export_is_submitted_polled_and_downloaded(self, driver: Driver, world: World) -> None:
        ready = await self.run_until_ready(driver)
        assert ready.files
        for index, file in enumerate(ready.files):
            assert file.name
            assert "/" not in file.name
            self.assert_no_secret(f"{file.uri} {file.name}")
            assert await self.download(driver, file) == await self.expected_content(world, index)

    async def test_file_can_be_downloaded_again_after_aborted_download(self, driver: Driver, world: World) -> None:
        ready = await self.run_until_ready(driver)
        async with driver.open_result(self.export, ready.files[0]):
            pass  # closed before its body is read
        assert await self.download(driver, ready.files[0]) == await self.expected_content(world, 0)

    async def test_poll_of_running_job_returns_pending_every_time(self, driver: Driver, world: World) -> None:
        world.scenario = world.scenario.model_copy(update={"stage_s": 600})
        operation_id = (await driver.submit(self.export)).operation_id
        for _ in range(3):
            polled = await driver.poll(self.export, operation_id)
            assert isinstance(polled, Pending)
            operation_id = polled.operation_id or operation_id

    async def test_poll_of_failed_job_returns_operation_failed_with_message(self, driver: Driver, world: World) -> None:
        world.faults.add(self.job_failure)
        submitted = await driver.submit(self.export)
        *_, last = await self.poll_until_ended(driver, submitted.operation_id)
        assert isinstance(last, OperationFailed)
        assert last.message
        self.assert_no_secret(last.message)

    async def test_poll_with_unknown_stage_returns_pending(self, driver: Driver, world: World) -> None:
        submitted = await driver.submit(self.export)
        world.faults.add(self.unknown_stage)
        first, *_, last = await self.poll_until_ended(driver, submitted.operation_id)
        assert isinstance(first, Pending)
        assert isinstance(last, Ready)
        assert world.faults.listing()[-1]["hits"] > 0

    # Responses that are errors, and responses that cannot be read.

    @EVERY_STEP
    async def test_status_429_raises_throttled_with_delay(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.error_of_step(driver, world, step, fault("throttled", retry_after_s=7))
        assert isinstance(error, PlatformThrottledError)
        assert error.retry_after_s == 7
        assert error.retryable

    @EVERY_STEP
    async def test_status_401_renews_credential_or_raises(self, driver: Driver, world: World, step: Step) -> None:
        if not self.renews_credential:
            assert isinstance(await self.error_of_step(driver, world, step, fault("unauthorized")), AuthFailedError)
            return
        await driver.submit(self.export)
        grants = world.tokens.grants
        await self.run_step(driver, world, step, fault("unauthorized"))
        assert world.tokens.grants == grants + 1

    @EVERY_STEP
    async def test_repeated_status_401_raises_auth_failed(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.error_of_step(driver, world, step, fault("unauthorized", times=None))
        assert isinstance(error, AuthFailedError)
        assert not error.retryable

    @API_STEPS
    async def test_truncated_response_raises_malformed(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.error_of_step(driver, world, step, self.truncated)
        assert isinstance(error, PlatformMalformedError)
        assert error.retryable

    @EVERY_STEP
    @pytest.mark.parametrize("body", ["html", "json"])
    async def test_error_page_with_status_200_raises(
        self, driver: Driver, world: World, step: Step, body: Literal["html", "json"]
    ) -> None:
        error = await self.error_of_step(driver, world, step, fault("error_page", body=body, times=None))
        assert isinstance(error, PlatformError | DownloadError)

    @EVERY_STEP
    async def test_status_502_raises_retryable_error(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.error_of_step(driver, world, step, fault("error5xx", status=502, times=None))
        assert isinstance(error, PlatformUnavailableError | DownloadError)
        assert error.retryable

    @API_STEPS
    async def test_broken_connection_raises_unavailable(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.error_of_step(driver, world, step, fault("cut", times=None))
        assert isinstance(error, PlatformUnavailableError)
        assert error.retryable

    async def test_truncated_download_raises_interrupted(self, driver: Driver, world: World) -> None:
        error = await self.error_of_step(driver, world, "download", fault("cut", times=None))
        assert isinstance(error, DownloadInterruptedError)
        assert error.retryable

    async def test_download_of_missing_file_raises(self, driver: Driver, world: World) -> None:
        error = await self.error_of_step(driver, world, "download", fault("missing", times=None))
        assert isinstance(error, self.missing_file_errors)

    async def test_unreachable_platform_raises_unavailable(self) -> None:
        driver = self.build(unused_address())
        with pytest.raises(PlatformUnavailableError) as caught:
            await driver.submit(self.export)
        await driver.close()
        self.assert_no_secret_in_error(caught.value)
        assert caught.value.retryable

    # Submits that the platform may have received although the driver does not know the job.

    @pytest.mark.parametrize("broken", [*UNCLEAR, None], ids=_fault_id)
    async def test_submit_that_may_have_been_received_raises_unclear(
        self, driver: Driver, world: World, broken: Fault | None
    ) -> None:
        # None stands for the response that only this platform's suite knows.
        error = await self.error_of_step(driver, world, "submit", broken or self.truncated)
        assert error.retryable
        assert error.unclear

    async def test_submit_whose_response_names_no_job_raises_unclear_or_is_refused(
        self, driver: Driver, world: World
    ) -> None:
        error = await self.error_of_step(driver, world, "submit", fault("error_page", body="json"))
        assert error.unclear or not error.retryable

    @pytest.mark.parametrize("put_off", SAFE, ids=_fault_id)
    async def test_submit_that_the_platform_has_put_off_is_not_unclear(
        self, driver: Driver, world: World, put_off: Fault
    ) -> None:
        error = await self.error_of_step(driver, world, "submit", put_off)
        assert error.retryable
        assert not error.unclear

    async def test_submit_to_an_unreachable_platform_is_not_unclear(self) -> None:
        driver = self.build(unused_address())
        with pytest.raises(PlatformUnavailableError) as caught:
            await driver.submit(self.export)
        await driver.close()
        assert not caught.value.unclear

    async def test_failed_poll_that_starts_no_job_is_not_unclear(self, driver: Driver, world: World) -> None:
        assert not (await self.error_of_step(driver, world, "poll", fault("error5xx", status=504))).unclear

    async def test_submit_that_is_not_allowed_sends_no_request_that_starts_a_job(
        self, driver: Driver, world: World
    ) -> None:
        async def refuse() -> None:
            raise SubmitUnclearError("not allowed")

        with checking_submits(refuse), pytest.raises(SubmitUnclearError):
            await driver.submit(self.export)
        assert not list(world.jobs)

    async def test_every_job_of_an_export_is_announced_before_it_starts(self, driver: Driver, world: World) -> None:
        jobs_before: list[int] = []

        async def count_jobs() -> None:
            jobs_before.append(len(list(world.jobs)))

        with checking_submits(count_jobs):
            submitted = await driver.submit(self.export)
            results = await self.poll_until_ended(driver, submitted.operation_id)
        assert jobs_before[0] == 0
        started = [result for result in results if isinstance(result, Pending) and result.submitted]
        assert len(jobs_before) == 1 + len(started)

    # Requests and operation ids that cannot succeed.

    async def test_export_of_unknown_item_raises(self, driver: Driver) -> None:
        async def submit_and_poll() -> None:
            submitted = await driver.submit(self.unknown_export)
            await self.poll_until_ended(driver, submitted.operation_id)

        with pytest.raises(StepError) as caught:
            await submit_and_poll()
        assert isinstance(caught.value, self.unknown_export_errors)
        self.assert_no_secret_in_error(caught.value)

    @pytest.mark.parametrize("operation_id", ["nonsense", "{}", "[1]", "a/../b?c=d#e", "下载", "x" * 300])
    async def test_poll_of_unknown_operation_id_raises_step_error(self, driver: Driver, operation_id: str) -> None:
        with pytest.raises(StepError) as caught:
            await driver.poll(self.export, operation_id)
        self.assert_no_secret_in_error(caught.value)

    async def test_kind_of_other_platform_is_refused_before_any_request(self, driver: Driver, world: World) -> None:
        foreign: ExportKind = GrowingioSegmentUsers(project_id="WlGk4Daj", segment_id="qgQMXnD3")
        if type(self.export).__name__.startswith("Growingio"):
            foreign = SensorsdataUserGroupUsers(group_id=1)
        with pytest.raises(PlatformRefusedError, match=re.escape(foreign.kind)):
            await driver.submit(foreign)
        assert world.requests_total == 0

    # Secrets and settings.

    @EVERY_STEP
    async def test_credential_in_error_response_is_masked(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.error_of_step(driver, world, step, fault("echo_secret", times=None))
        assert MASK in str(error)

    async def test_redactor_receives_secrets_and_no_repr_shows_them(self, simulator: Simulator) -> None:
        redactor = Redactor()
        driver = self.build(simulator.url, redactor)
        assert [redactor.text(secret) for secret in self.secrets] == [MASK] * len(self.secrets)
        await driver.submit(self.export)
        self.assert_no_secret(repr(driver))
        self.assert_no_secret(" ".join(map(repr, vars(driver).values())))
        await driver.close()

    def test_unknown_option_is_refused_without_showing_its_value(self) -> None:
        with pytest.raises(ConfigError, match=rf"connections\.{CONNECTION}\.tokn: unknown option") as caught:
            self.build(UNUSED_URL, tokn=(self.secrets or ("canary-unknown-option",))[0])
        self.assert_no_secret_in_error(caught.value)

    def test_missing_secret_is_reported_with_its_setting(self) -> None:
        for setting in sorted(self.settings.keys() & {"token", "client_secret", "api_key"}):
            message = rf"connections\.{CONNECTION}\.{setting}: .* NOT_SET_ANYWHERE is not set"
            with pytest.raises(ConfigError, match=message):
                self.build(UNUSED_URL, None, **{setting: "env:NOT_SET_ANYWHERE"})

    # Building and closing a driver.

    def test_driver_is_built_outside_of_an_event_loop(self) -> None:
        driver = self.build(unused_address())

        async def use() -> None:
            with pytest.raises(PlatformUnavailableError):
                await driver.submit(self.export)
            await driver.close()

        asyncio.run(use())

    async def test_close_works_twice_and_without_a_call_before(self, simulator: Simulator) -> None:
        unused, used = self.build(simulator.url), self.build(simulator.url)
        await used.submit(self.export)
        for driver in (unused, used):
            await driver.close()
            await driver.close()

    # Capabilities. The tests of a capability are skipped for a driver that does not have it.

    async def test_catalog_lists_every_resource(self, driver: Driver) -> None:
        if not isinstance(driver, Catalog):
            pytest.skip("the driver has no catalog")
        assert driver.resources
        for resource in driver.resources:
            items = await driver.catalog(resource, self.projects.get(resource))
            assert items, resource
            assert all(items), resource

    async def test_unknown_resource_is_refused_before_any_request(self, driver: Driver, world: World) -> None:
        if not isinstance(driver, Catalog):
            pytest.skip("the driver has no catalog")
        with pytest.raises(InvalidRequestError, match="resource"):
            await driver.catalog("planets", None)
        assert world.requests_total == 0

    def test_operation_table_is_consistent(self) -> None:
        driver = self.build(UNUSED_URL)
        if not isinstance(driver, Operations):
            pytest.skip("the driver has no operations")
        assert driver.operations
        assert [problem for item in driver.operations.items() for problem in problems_of(*item)] == []
        names = [name for operation in driver.operations.values() for name in (operation.name, *operation.aliases)]
        assert sorted(names) == sorted(set(names))

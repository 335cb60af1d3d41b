"""What every driver must do, whatever its platform: a suite to inherit.

A subclass says which export to try, how its connection is set up, and which faults of the simulator make its platform
do what the suite needs. See `test_growingio.py` for a whole one, and worker/PLATFORMS.md for the reasons.
"""

import asyncio
import logging
import re
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import pytest

from export_worker.contract.request import ExportKind, GrowingioSegmentUsers, SensorsdataUserGroupUsers
from export_worker.credentials import MASK, Redactor
from export_worker.demo.processes import free_port
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
    ResultMissingError,
    StepError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile
from export_worker.platforms.base import Catalog, Driver
from export_worker.platforms.operations import Operation, Operations, Parameter
from export_worker.platforms.registry import build_driver
from export_worker.platforms.settings import ConnectionSettings
from export_worker.simulator.files import content
from export_worker.simulator.scenario import Fault
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings, World
from support import secret_canaries

Step = Literal["submit", "poll", "download"]
EVERY_STEP = pytest.mark.parametrize("step", ["submit", "poll", "download"])
EVERY_LOOK = pytest.mark.parametrize("step", ["submit", "poll"])

NAME = "conformance"
"""Of the connection."""


class DriverSuite:
    """Inherit, fill in what has no value here, and change what your platform does otherwise."""

    platform: ClassVar[str]
    """As a connection names it."""
    export: ClassVar[ExportKind]
    """One that the played platform finishes."""
    unknown_export: ClassVar[ExportKind]
    """The same of a thing that the played platform does not have."""

    settings: ClassVar[Mapping[str, Any]] = {"token": secret_canaries.TOKEN}
    """Of the connection, beside `platform` and `base_url`."""
    secrets: ClassVar[tuple[str, ...]] = (secret_canaries.TOKEN,)
    """Those of the settings."""
    renews: ClassVar[bool] = False
    """Whether a refused credential is replaced by a fresh one."""
    projects: ClassVar[Mapping[str, str]] = {}
    """Resource of the catalog → the project that it needs, if it needs one."""

    fails: ClassVar[Fault] = Fault(on="submit", fault="error_stage")
    """Told before the submit: the platform's job ends in failure."""
    unknown: ClassVar[Fault] = Fault(on="poll", fault="unknown_stage", stage="MOONSTRUCK")
    """Told after the submit: one poll sees a word that nobody knows."""
    malformed: ClassVar[Fault] = Fault(on="poll", fault="malformed")
    """One answer is cut short; `on` is replaced by the step."""
    file_missing: ClassVar[tuple[type[StepError], ...]] = (ResultMissingError,)
    """What a file that has gone is told as."""
    thing_missing: ClassVar[tuple[type[StepError], ...]] = (PlatformRefusedError,)
    """What `unknown_export` is told as, by submit or by a poll."""

    # What there is to work with.

    @pytest.fixture
    async def simulator(self) -> AsyncIterator[Simulator]:
        """The played platform, whose jobs are quick."""
        settings = SimulatorSettings(tokens=(secret_canaries.TOKEN,), client_secret=secret_canaries.OAUTH_SECRET)
        async with Simulator.start(settings=settings) as simulator:
            simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": 0.01})
            yield simulator

    @pytest.fixture
    def world(self, simulator: Simulator) -> World:
        """What the platform is told, and what it has seen."""
        return simulator.world

    @pytest.fixture
    async def driver(self, simulator: Simulator) -> AsyncIterator[Driver]:
        """The driver at the played platform."""
        driver = self.build(simulator.url)
        yield driver
        await driver.close()

    @pytest.fixture(autouse=True)
    def _nothing_tells_a_secret(
        self, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> Iterator[None]:
        """Whatever a test does: neither the log nor the output says a secret."""
        caplog.set_level(logging.DEBUG)
        yield
        self.assert_silent(caplog.text)
        self.assert_silent("".join(capsys.readouterr()))

    def build(self, base_url: str, redactor: Redactor | None = None, **settings: Any) -> Driver:
        """A driver, built as a worker builds it."""
        tree = {"platform": self.platform, "base_url": base_url, **self.settings, **settings}
        return build_driver(NAME, ConnectionSettings.model_validate(tree), redactor or Redactor())

    async def expected(self, world: World, index: int) -> bytes:
        """What a file of the last job holds: as the simulator says, beside the driver."""
        *_, job = world.jobs
        return b"".join(content(job.files[index].spec))

    # How an export is moved along.

    async def polls(self, driver: Driver, operation_id: str) -> list[Polled]:
        """Everything that is seen until the operation ends; it may go on under another handle."""
        seen: list[Polled] = []
        async with asyncio.timeout(20):
            while True:
                polled = await driver.poll(self.export, operation_id)
                seen.append(polled)
                if not isinstance(polled, Pending):
                    return seen
                operation_id = polled.operation_id or operation_id
                await asyncio.sleep(0.01)

    async def ready(self, driver: Driver) -> Ready:
        """An export that is done."""
        submitted = await driver.submit(self.export)
        self.assert_silent(submitted.operation_id)
        *_, last = await self.polls(driver, submitted.operation_id)
        assert isinstance(last, Ready)
        return last

    async def download(self, driver: Driver, file: RemoteFile) -> bytes:
        """One file, read to its end."""
        async with driver.open_result(self.export, file) as download:
            data = b"".join([chunk async for chunk in download.chunks()])
        assert download.total_bytes in {None, len(data)}
        return data

    async def meet(self, driver: Driver, world: World, step: Step, *faults: Fault) -> None:
        """Do what comes before the step, then let the step meet the faults."""
        told = [fault.model_copy(update={"on": step}) for fault in faults]
        if step == "submit":
            _tell(world, told)
            await driver.submit(self.export)
        elif step == "poll":
            submitted = await driver.submit(self.export)
            _tell(world, told)
            await driver.poll(self.export, submitted.operation_id)
        else:
            ready = await self.ready(driver)
            _tell(world, told)
            await self.download(driver, ready.files[0])

    async def refusal(self, driver: Driver, world: World, step: Step, *faults: Fault) -> StepError:
        """The error that a step ends in."""
        with pytest.raises(StepError) as caught:
            await self.meet(driver, world, step, *faults)
        self.assert_error_is_silent(caught.value)
        return caught.value

    # What must never be seen.

    def assert_silent(self, text: str) -> None:
        """No secret stands in a text, plain or percent-encoded."""
        for secret in self.secrets:
            assert secret not in text
            assert quote(secret, safe="") not in text

    def assert_error_is_silent(self, error: BaseException) -> None:
        """No secret stands in anything that is printed of an error; its text is one line."""
        self.assert_silent(f"{error} {error!r} {error.args}")
        self.assert_silent("".join(traceback.format_exception(error)))
        assert str(error)
        assert "\n" not in str(error)

    # From here on: what every driver must do.

    async def test_an_export_is_submitted_polled_and_downloaded(self, driver: Driver, world: World) -> None:
        ready = await self.ready(driver)
        assert ready.files
        for index, file in enumerate(ready.files):
            assert file.name
            assert "/" not in file.name
            self.assert_silent(f"{file.uri} {file.name}")
            assert await self.download(driver, file) == await self.expected(world, index)

    async def test_a_download_can_be_begun_anew(self, driver: Driver, world: World) -> None:
        ready = await self.ready(driver)
        async with driver.open_result(self.export, ready.files[0]):
            pass  # left before it was read
        assert await self.download(driver, ready.files[0]) == await self.expected(world, 0)

    async def test_not_ready_is_no_failure(self, driver: Driver, world: World) -> None:
        world.scenario = world.scenario.model_copy(update={"stage_s": 600})
        operation_id = (await driver.submit(self.export)).operation_id
        for _ in range(3):
            polled = await driver.poll(self.export, operation_id)
            assert isinstance(polled, Pending)
            operation_id = polled.operation_id or operation_id

    async def test_a_job_that_fails_is_told_with_words(self, driver: Driver, world: World) -> None:
        world.faults.add(self.fails)
        submitted = await driver.submit(self.export)
        *_, last = await self.polls(driver, submitted.operation_id)
        assert isinstance(last, OperationFailed)
        assert last.message
        self.assert_silent(last.message)

    async def test_a_stage_that_nobody_knows_is_still_running(self, driver: Driver, world: World) -> None:
        submitted = await driver.submit(self.export)
        world.faults.add(self.unknown)
        first, *_, last = await self.polls(driver, submitted.operation_id)
        assert isinstance(first, Pending)
        assert isinstance(last, Ready)
        assert world.faults.listing()[-1]["hits"] > 0

    @EVERY_STEP
    async def test_too_many_calls_tell_how_long_to_wait(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.refusal(driver, world, step, _fault("throttled", retry_after_s=7))
        assert isinstance(error, PlatformThrottledError)
        assert error.retry_after_s == 7
        assert error.retryable

    @EVERY_STEP
    async def test_a_refused_credential_is_renewed_or_told(self, driver: Driver, world: World, step: Step) -> None:
        if not self.renews:
            assert isinstance(await self.refusal(driver, world, step, _fault("unauthorized")), AuthFailedError)
            return
        await driver.submit(self.export)
        grants = world.tokens.grants
        await self.meet(driver, world, step, _fault("unauthorized"))
        assert world.tokens.grants == grants + 1

    @EVERY_STEP
    async def test_a_credential_that_stays_refused_is_told(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.refusal(driver, world, step, _fault("unauthorized", times=None))
        assert isinstance(error, AuthFailedError)
        assert not error.retryable

    @EVERY_LOOK
    async def test_an_answer_that_is_cut_short_is_malformed(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.refusal(driver, world, step, self.malformed)
        assert isinstance(error, PlatformMalformedError)
        assert error.retryable

    @EVERY_STEP
    @pytest.mark.parametrize("body", ["html", "json"])
    async def test_an_error_page_with_status_200_is_no_answer(
        self, driver: Driver, world: World, step: Step, body: Literal["html", "json"]
    ) -> None:
        error = await self.refusal(driver, world, step, _fault("error_page", body=body, times=None))
        assert isinstance(error, PlatformError | DownloadError)

    @EVERY_STEP
    async def test_a_server_error_passes(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.refusal(driver, world, step, _fault("error5xx", status=502, times=None))
        assert isinstance(error, PlatformUnavailableError | DownloadError)
        assert error.retryable

    @EVERY_LOOK
    async def test_a_broken_connection_passes(self, driver: Driver, world: World, step: Step) -> None:
        error = await self.refusal(driver, world, step, _fault("cut", times=None))
        assert isinstance(error, PlatformUnavailableError)
        assert error.retryable

    async def test_a_cut_download_is_noticed(self, driver: Driver, world: World) -> None:
        error = await self.refusal(driver, world, "download", _fault("cut", times=None))
        assert isinstance(error, DownloadInterruptedError)
        assert error.retryable

    async def test_a_file_that_has_gone_is_told(self, driver: Driver, world: World) -> None:
        error = await self.refusal(driver, world, "download", _fault("missing", times=None))
        assert isinstance(error, self.file_missing)

    async def test_a_thing_that_is_not_there_is_told(self, driver: Driver) -> None:
        async def look() -> None:
            submitted = await driver.submit(self.unknown_export)
            await self.polls(driver, submitted.operation_id)

        with pytest.raises(StepError) as caught:
            await look()
        assert isinstance(caught.value, self.thing_missing)
        self.assert_error_is_silent(caught.value)

    @pytest.mark.parametrize("operation_id", ["nonsense", "{}", "[1]", "a/../b?c=d#e", "下载", "x" * 300])
    async def test_a_handle_that_means_nothing_is_an_error_of_ours(self, driver: Driver, operation_id: str) -> None:
        with pytest.raises(StepError) as caught:
            await driver.poll(self.export, operation_id)
        self.assert_error_is_silent(caught.value)

    async def test_a_kind_of_another_platform_is_refused_unsent(self, driver: Driver, world: World) -> None:
        foreign: ExportKind = GrowingioSegmentUsers(project_id="WlGk4Daj", segment_id="qgQMXnD3")
        if type(self.export).__name__.startswith("Growingio"):
            foreign = SensorsdataUserGroupUsers(group_id=1)
        with pytest.raises(PlatformRefusedError, match=re.escape(foreign.kind)):
            await driver.submit(foreign)
        assert world.requests_total == 0

    @EVERY_STEP
    async def test_a_credential_that_the_platform_repeats_is_masked(
        self, driver: Driver, world: World, step: Step
    ) -> None:
        error = await self.refusal(driver, world, step, _fault("echo_secret", times=None))
        assert MASK in str(error)

    async def test_a_platform_that_is_down_is_told(self) -> None:
        driver = self.build(f"http://127.0.0.1:{free_port()}")
        with pytest.raises(PlatformUnavailableError) as caught:
            await driver.submit(self.export)
        await driver.close()
        self.assert_error_is_silent(caught.value)
        assert caught.value.retryable

    def test_it_can_be_built_outside_of_a_loop(self) -> None:
        driver = self.build(f"http://127.0.0.1:{free_port()}")

        async def use() -> None:
            with pytest.raises(PlatformUnavailableError):
                await driver.submit(self.export)
            await driver.close()

        asyncio.run(use())

    async def test_it_is_closed_twice_or_unused(self, simulator: Simulator) -> None:
        unused, used = self.build(simulator.url), self.build(simulator.url)
        await used.submit(self.export)
        for driver in (unused, used):
            await driver.close()
            await driver.close()

    async def test_the_redactor_learns_every_secret_and_nothing_shows_one(self, simulator: Simulator) -> None:
        redactor = Redactor()
        driver = self.build(simulator.url, redactor)
        assert [redactor.text(secret) for secret in self.secrets] == [MASK] * len(self.secrets)
        await driver.submit(self.export)
        self.assert_silent(repr(driver))
        self.assert_silent(" ".join(map(repr, vars(driver).values())))
        await driver.close()

    def test_a_misspelt_option_is_refused_without_its_value(self) -> None:
        with pytest.raises(ConfigError, match=rf"connections\.{NAME}\.tokn: unknown option") as caught:
            self.build("https://platform.example.cn", tokn=self.secrets[0])
        self.assert_error_is_silent(caught.value)

    def test_a_secret_that_is_not_there_is_told_by_its_setting(self) -> None:
        for setting in sorted(self.settings.keys() & {"token", "client_secret", "api_key"}):
            with pytest.raises(ConfigError, match=rf"connections\.{NAME}\.{setting}: .* NOT_SET_ANYWHERE is not set"):
                self.build("https://platform.example.cn", None, **{setting: "env:NOT_SET_ANYWHERE"})

    # Capabilities: nothing is asked of a driver that does not have them.

    async def test_every_resource_of_the_catalog_is_listed(self, driver: Driver) -> None:
        if not isinstance(driver, Catalog):
            pytest.skip("has no catalog")
        assert driver.resources
        for resource in driver.resources:
            items = await driver.catalog(resource, self.projects.get(resource))
            assert items, resource
            assert all(items), resource

    async def test_a_resource_that_is_none_is_refused_unsent(self, driver: Driver, world: World) -> None:
        if not isinstance(driver, Catalog):
            pytest.skip("has no catalog")
        with pytest.raises(InvalidRequestError, match="resource"):
            await driver.catalog("planets", None)
        assert world.requests_total == 0

    def test_the_table_of_operations_is_sound(self) -> None:
        driver = self.build("https://platform.example.cn")
        if not isinstance(driver, Operations):
            pytest.skip("has no operations")
        assert driver.operations
        assert [problem for item in driver.operations.items() for problem in table_problems(*item)] == []
        names = [name for operation in driver.operations.values() for name in (operation.name, *operation.aliases)]
        assert sorted(names) == sorted(set(names))


def table_problems(name: str, operation: Operation) -> Iterator[str]:
    """What is wrong with an entry of the table."""
    names = [parameter.name for parameter in operation.parameters]
    places = [(parameter.name, parameter.place) for parameter in operation.parameters]
    in_path = sorted(parameter.name for parameter in operation.parameters if parameter.place == "path")
    groups = (*operation.one_of, *operation.any_of)
    sound = {
        "is called otherwise": operation.name == name,
        "says nothing about itself": bool(operation.about),
        "has a method that is none": operation.method in {"GET", "POST", "PUT", "PATCH", "DELETE"},
        "has a path without a slash": operation.path.startswith("/"),
        "has other parameters in its path": sorted(re.findall(r"\{([^}]*)\}", operation.path)) == in_path,
        "names a parameter twice": len(places) == len(set(places)),
        "has a body, though it is a GET": operation.method != "GET" or operation.body == "none",
        "does not say that it deletes": operation.method != "DELETE" or operation.deletes,
        "has a group of parameters that it has not": all(set(group) <= set(names) for group in groups),
        "has a group of one": all(len(group) > 1 for group in groups),
        "has a pattern that is none": all(map(_compiles, operation.parameters)),
    }
    return (f"{name}: {problem}" for problem, is_sound in sound.items() if not is_sound)


def _compiles(parameter: Parameter) -> bool:
    try:
        re.compile(parameter.pattern or "")
    except re.error:
        return False
    return True


def _fault(name: Any, **more: Any) -> Fault:
    """A fault of the step that meets it."""
    return Fault(on="poll" if name != "missing" else "download", fault=name, **more)


def _tell(world: World, faults: list[Fault]) -> None:
    for fault in faults:
        world.faults.add(fault)

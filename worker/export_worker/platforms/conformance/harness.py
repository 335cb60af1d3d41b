"""What the conformance suite works with: the driver under test, the played platform, and helpers that run steps."""

import asyncio
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import pytest
from aiohttp import web

from export_worker.contract.request import ExportKind
from export_worker.credentials import Redactor
from export_worker.errors import PlatformRefusedError, ResultMissingError, StepError
from export_worker.lifecycle.observations import Pending, Polled, Ready, RemoteFile
from export_worker.platforms.base import Driver
from export_worker.platforms.registry import build_driver
from export_worker.platforms.settings import ConnectionSettings
from export_worker.simulator.app import build_app
from export_worker.simulator.files import content
from export_worker.simulator.scenario import Fault
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import WORLD, SimulatorSettings, World

Step = Literal["submit", "poll", "download"]

CONNECTION = "conformance"
"""Name of the connection of every driver that the suite builds."""

TOKEN = "canary-token-5c1d9e70"  # noqa: S105 - a simulator has no secrets, only texts that look like secrets
"""The token that the played platform accepts."""
CLIENT_SECRET = "canary-oauth+secret/8b2f41aa"  # noqa: S105 - as TOKEN
"""The secret for which the played platform issues tokens. It has characters that a query string encodes."""

STAGE_S = 0.01
"""Seconds in each stage of a played job: a few polls find the job running, and no test waits long."""
POLL_INTERVAL_S = 0.01
JOB_TIMEOUT_S = 20.0
"""Far longer than any played job, even on a busy machine."""


@asynccontextmanager
async def serve_simulator(
    add_routes: Callable[[web.Application], None], settings: SimulatorSettings | None = None
) -> AsyncIterator[Simulator]:
    """Serves the simulator on a free port of the loopback interface, with the routes of a further platform.

    Args:
        add_routes: Adds the routes to the application. The state of the simulator is `app[WORLD]`.
        settings: By default the simulator accepts `TOKEN` and `CLIENT_SECRET`.
    """
    app = build_app(settings or SimulatorSettings(tokens=(TOKEN,), client_secret=CLIENT_SECRET))
    add_routes(app)
    runner = web.AppRunner(app, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Simulator(f"http://127.0.0.1:{runner.addresses[0][1]}", app[WORLD])
    finally:
        await runner.cleanup()


def unused_address() -> str:
    """Returns a URL of the loopback interface at which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def fault(name: Any, **options: Any) -> Fault:
    """Returns a fault for `run_step`, which sets the call that the fault affects."""
    return Fault(on="download" if name == "missing" else "poll", fault=name, **options)


class DriverHarness:
    """The configuration and the helpers of the suite. A subclass sets the values and overrides what differs."""

    platform: ClassVar[str]
    """Name of the platform in a connection."""
    export: ClassVar[ExportKind]
    """An export that the played platform completes."""
    unknown_export: ClassVar[ExportKind]
    """An export of something that does not exist on the played platform."""

    settings: ClassVar[Mapping[str, Any]] = {"token": TOKEN}
    """Settings of the connection, beside `platform` and `base_url`."""
    secrets: ClassVar[tuple[str, ...]] = (TOKEN,)
    """The secrets in the settings."""
    renews_credential: ClassVar[bool] = False
    """Whether the driver fetches a new credential when the platform refuses the current one."""
    projects: ClassVar[Mapping[str, str]] = {}
    """The project for each resource of the catalog that needs one."""

    job_failure: ClassVar[Fault] = Fault(on="submit", fault="error_stage")
    """Added before a submit: the platform's job fails."""
    unknown_stage: ClassVar[Fault] = Fault(on="poll", fault="unknown_stage", stage="MOONSTRUCK")
    """Added after a submit: one poll receives a stage that the driver does not know."""
    truncated: ClassVar[Fault] = Fault(on="poll", fault="malformed")
    """One response is truncated JSON. The suite replaces `on` by the step under test."""
    missing_file_errors: ClassVar[tuple[type[StepError], ...]] = (ResultMissingError,)
    """Errors that the driver may raise when a file no longer exists."""
    unknown_export_errors: ClassVar[tuple[type[StepError], ...]] = (PlatformRefusedError,)
    """Errors that submit or poll may raise for `unknown_export`."""

    @pytest.fixture
    async def simulator(self) -> AsyncIterator[Simulator]:
        """The played platform. Its jobs end quickly."""
        async with serve_simulator(self.add_routes) as simulator:
            simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": STAGE_S})
            yield simulator

    @pytest.fixture
    def world(self, simulator: Simulator) -> World:
        """The state of the played platform: faults, jobs and recorded requests."""
        return simulator.world

    @pytest.fixture
    async def driver(self, simulator: Simulator) -> AsyncIterator[Driver]:
        """A driver with a connection to the played platform."""
        driver = self.build(simulator.url)
        yield driver
        await driver.close()

    @pytest.fixture(autouse=True)
    def _no_secret_in_output(
        self, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> Iterator[None]:
        """Checks after every test that neither the log nor the output contains a secret."""
        caplog.set_level(logging.DEBUG)
        yield
        self.assert_no_secret(caplog.text)
        self.assert_no_secret("".join(capsys.readouterr()))

    def add_routes(self, app: web.Application) -> None:
        """Adds the routes of your played platform to the simulator, which has those of export-worker's platforms."""

    def build(self, base_url: str, redactor: Redactor | None = None, **settings: Any) -> Driver:
        """Builds a driver in the same way as a worker."""
        section = {"platform": self.platform, "base_url": base_url, **self.settings, **settings}
        return build_driver(CONNECTION, ConnectionSettings.model_validate(section), redactor or Redactor())

    async def expected_content(self, world: World, index: int) -> bytes:
        """Returns the content of a file of the last job, from the simulator and not through the driver."""
        *_, job = world.jobs
        return b"".join(content(job.files[index].spec))

    async def poll_until_ended(self, driver: Driver, operation_id: str) -> list[Polled]:
        """Polls until the operation has ended, and returns the results of all polls."""
        results: list[Polled] = []
        async with asyncio.timeout(JOB_TIMEOUT_S):
            while True:
                polled = await driver.poll(self.export, operation_id)
                results.append(polled)
                if not isinstance(polled, Pending):
                    return results
                operation_id = polled.operation_id or operation_id
                await asyncio.sleep(POLL_INTERVAL_S)

    async def run_until_ready(self, driver: Driver) -> Ready:
        """Submits the export and polls until it is ready."""
        submitted = await driver.submit(self.export)
        self.assert_no_secret(submitted.operation_id)
        *_, last = await self.poll_until_ended(driver, submitted.operation_id)
        assert isinstance(last, Ready), f"the job has not succeeded: {last}"
        return last

    async def download(self, driver: Driver, file: RemoteFile) -> bytes:
        """Downloads one file."""
        async with driver.open_result(self.export, file) as download:
            data = b"".join([chunk async for chunk in download.chunks()])
        assert download.total_bytes in {None, len(data)}
        return data

    async def run_step(self, driver: Driver, world: World, step: Step, *faults: Fault) -> None:
        """Runs the steps before `step` without faults, then runs `step` with the faults."""
        affecting = [item.model_copy(update={"on": step}) for item in faults]
        if step == "submit":
            _add_faults(world, affecting)
            await driver.submit(self.export)
        elif step == "poll":
            submitted = await driver.submit(self.export)
            _add_faults(world, affecting)
            await driver.poll(self.export, submitted.operation_id)
        else:
            ready = await self.run_until_ready(driver)
            _add_faults(world, affecting)
            await self.download(driver, ready.files[0])

    async def error_of_step(self, driver: Driver, world: World, step: Step, *faults: Fault) -> StepError:
        """Runs a step with faults and returns the error that it raises."""
        with pytest.raises(StepError) as caught:
            await self.run_step(driver, world, step, *faults)
        self.assert_no_secret_in_error(caught.value)
        return caught.value

    def assert_no_secret(self, text: str) -> None:
        """Fails if a text contains a secret, plain or percent-encoded."""
        for secret in self.secrets:
            assert secret not in text
            assert quote(secret, safe="") not in text

    def assert_no_secret_in_error(self, error: BaseException) -> None:
        """Fails if anything that is printed of an error contains a secret, or if its message is not one line."""
        self.assert_no_secret(f"{error} {error!r} {error.args}")
        self.assert_no_secret("".join(traceback.format_exception(error)))
        assert str(error)
        assert "\n" not in str(error)


def _add_faults(world: World, faults: list[Fault]) -> None:
    for item in faults:
        world.faults.add(item)

"""Fixtures of end-to-end tests: a simulator for each test, and a site with the services of a worker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings, World
from support import secret_canaries
from support.worker_site import Site

SETTINGS = SimulatorSettings(tokens=(secret_canaries.TOKEN,), client_secret=secret_canaries.OAUTH_SECRET)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A simulator in the test's event loop, with short stages."""
    async with Simulator.start(settings=SETTINGS) as simulator:
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": 0.05})
        yield simulator


@pytest.fixture
def world(simulator: Simulator) -> World:
    """The simulator's state: the scenario, faults, jobs and recorded requests."""
    return simulator.world


@pytest.fixture
def site(redis_url: str, s3_url: str, simulator: Simulator, namespace: str, bucket: str, outputs: Path) -> Site:
    """The services, namespace and bucket that a worker needs."""
    return Site(redis_url, s3_url, simulator.url, namespace, bucket, outputs)

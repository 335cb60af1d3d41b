"""A simulator of this test's own, and a site around it."""

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
    """A simulator in the test's loop, whose jobs are quick."""
    async with Simulator.start(settings=SETTINGS) as simulator:
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": 0.05})
        yield simulator


@pytest.fixture
def world(simulator: Simulator) -> World:
    """What the simulator is told, and what it has seen."""
    return simulator.world


@pytest.fixture
def site(redis_url: str, s3_url: str, simulator: Simulator, namespace: str, bucket: str, outputs: Path) -> Site:
    """Everything that a worker needs."""
    return Site(redis_url, s3_url, simulator.url, namespace, bucket, outputs)

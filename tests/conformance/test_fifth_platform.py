"""A platform in a package of its own does what every driver must: the suite is for others, too."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tiny_platform.driver import TinyDriver
from tiny_platform.kinds import TinyListUsers

from conformance.driver_suite import NAME, DriverSuite
from export_worker.credentials import Redactor
from export_worker.platforms.base import Driver
from export_worker.platforms.settings import ConnectionSettings
from export_worker.simulator.server import Simulator
from support.tiny_platform import tiny_simulator


class TestTiny(DriverSuite):
    platform = "tiny"
    export = TinyListUsers(list_name="buyers")
    unknown_export = TinyListUsers(list_name="nobody")

    @pytest.fixture
    async def simulator(self) -> AsyncIterator[Simulator]:
        async with tiny_simulator() as (simulator, _):
            yield simulator

    def build(self, base_url: str, redactor: Redactor | None = None, **settings: Any) -> Driver:
        """Without the registry: the package is not installed here."""
        tree = {"platform": self.platform, "base_url": base_url, **self.settings, **settings}
        return TinyDriver(NAME, ConnectionSettings.model_validate(tree), redactor or Redactor())

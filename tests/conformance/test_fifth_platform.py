"""The conformance suite for the driver of another package, which is not installed here."""

from typing import Any

from aiohttp import web
from tiny_platform import played
from tiny_platform.driver import TinyDriver
from tiny_platform.kinds import TinyListUsers

from export_worker.platforms import ConnectionSettings, Driver, Redactor
from export_worker.platforms.conformance import CLIENT_SECRET, TOKEN, DriverSuite
from export_worker.platforms.conformance.harness import CONNECTION
from support import secret_canaries


class TestTiny(DriverSuite):
    platform = "tiny"
    export = TinyListUsers(list_name="buyers")
    unknown_export = TinyListUsers(list_name="unknown")

    def add_routes(self, app: web.Application) -> None:
        """Adds the played platform."""
        played.register(app)

    def build(self, base_url: str, redactor: Redactor | None = None, **settings: Any) -> Driver:
        """Builds the driver without the registry, because the package is not installed."""
        section = {"platform": self.platform, "base_url": base_url, **self.settings, **settings}
        return TinyDriver(CONNECTION, ConnectionSettings.model_validate(section), redactor or Redactor())


def test_secrets_of_suite_are_canaries_that_every_test_run_searches_for() -> None:
    assert {TOKEN, CLIENT_SECRET} <= set(secret_canaries.ALL)

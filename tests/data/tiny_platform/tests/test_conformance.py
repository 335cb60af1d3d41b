"""Runs export-worker's conformance suite against the driver."""

from aiohttp import web
from tiny_platform import played
from tiny_platform.kinds import TinyListUsers

from export_worker.platforms.conformance import DriverSuite


class TestTiny(DriverSuite):
    platform = "tiny"
    export = TinyListUsers(list_name="buyers")
    unknown_export = TinyListUsers(list_name="unknown")

    def add_routes(self, app: web.Application) -> None:
        """Adds the played platform to the simulator."""
        played.register(app)

"""The Sensors Data driver does what every driver must: over v2 with a token, and over v3 with an api-key."""

import csv
import io
from typing import ClassVar

from conformance.driver_suite import DriverSuite
from export_worker.contract.request import ExportKind, SensorsdataUserGroupUsers
from export_worker.errors import PlatformRefusedError
from export_worker.simulator.sensorsdata.data import GROUPS, users_of
from export_worker.simulator.sensorsdata.groups import GroupStore
from export_worker.simulator.world import World
from support import secret_canaries

COLUMNS = ("id", "first_id", "second_id")
"""What is exported unless a request or a setting says otherwise."""


class TestSensorsdata(DriverSuite):
    platform = "sensorsdata"
    export: ClassVar[ExportKind] = SensorsdataUserGroupUsers(group_id=42)
    unknown_export: ClassVar[ExportKind] = SensorsdataUserGroupUsers(group_id=9999)
    file_missing = (PlatformRefusedError,)
    """There is no file that could go: a query that is answered with 404 is refused."""

    async def expected(self, world: World, index: int) -> bytes:
        """The platform has rows and no file: the driver writes one of them."""
        assert index == 0
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(users_of(GroupStore(world).members(GROUPS[42])))
        return text.getvalue().encode()


class TestSensorsdataV3(TestSensorsdata):
    settings: ClassVar = {"token": None, "api_key": secret_canaries.TOKEN}

"""The conformance suite for the Sensors Data driver: with a token (v2 API), and with an api-key (v3 API)."""

import csv
import io
from typing import ClassVar

from export_worker.contract.request import ExportKind, SensorsdataUserGroupUsers
from export_worker.errors import PlatformRefusedError
from export_worker.platforms.conformance import TOKEN, DriverSuite
from export_worker.simulator.sensorsdata.data import GROUPS, users_of
from export_worker.simulator.sensorsdata.groups import GroupStore
from export_worker.simulator.world import World

COLUMNS = ("id", "first_id", "second_id")
"""Columns that are exported unless a request or a setting names others."""


class TestSensorsdata(DriverSuite):
    platform = "sensorsdata"
    export: ClassVar[ExportKind] = SensorsdataUserGroupUsers(group_id=42)
    unknown_export: ClassVar[ExportKind] = SensorsdataUserGroupUsers(group_id=9999)
    missing_file_errors = (PlatformRefusedError,)
    """The platform has no files that could be missing. A query with the response 404 is refused."""

    async def expected_content(self, world: World, index: int) -> bytes:
        """Returns the rows of the platform as the CSV that the driver writes: the platform has no file."""
        assert index == 0
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(users_of(GroupStore(world).members(GROUPS[42])))
        return text.getvalue().encode()


class TestSensorsdataV3(TestSensorsdata):
    settings: ClassVar = {"token": None, "api_key": TOKEN}

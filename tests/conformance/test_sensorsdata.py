"""The conformance suite for the Sensors Data driver: with a token, with an api-key, and with the current OpenAPI."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from export_worker.contract.request import (
    ExportKind,
    SensorsdataSegmentUsers,
    SensorsdataTagUsers,
    SensorsdataUserGroupUsers,
)
from export_worker.errors import PlatformRefusedError
from export_worker.platforms.conformance import TOKEN, DriverSuite
from export_worker.simulator.sensorsdata.data import GROUPS, users_of
from export_worker.simulator.sensorsdata.groups import GroupStore
from export_worker.simulator.sensorsdata.horizon_state import HorizonStore
from export_worker.simulator.sensorsdata.sql import tag_value
from export_worker.simulator.world import World

COLUMNS = ("id", "first_id", "second_id")
"""Columns that are exported unless a request or a setting names others."""


def as_csv(users: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Returns rows as the CSV that the driver writes: the platform has no file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(users)
    return text.getvalue().encode()


class TestSensorsdata(DriverSuite):
    platform = "sensorsdata"
    export: ClassVar[ExportKind] = SensorsdataUserGroupUsers(group_id=42)
    unknown_export: ClassVar[ExportKind] = SensorsdataUserGroupUsers(group_id=9999)
    missing_file_errors = (PlatformRefusedError,)
    """The platform has no files that could be missing. A query with the response 404 is refused."""

    async def expected_content(self, world: World, index: int) -> bytes:
        """Returns the members of the group."""
        assert index == 0
        return as_csv(users_of(GroupStore(world).members(GROUPS[42])), COLUMNS)


class TestSensorsdataV3(TestSensorsdata):
    settings: ClassVar = {"token": None, "api_key": TOKEN}


class TestHorizonSegments(TestSensorsdata):
    settings: ClassVar = {"api": "horizon", "api_key": TOKEN}
    export: ClassVar[ExportKind] = SensorsdataSegmentUsers(segment_name="user_segment_vip")
    unknown_export: ClassVar[ExportKind] = SensorsdataSegmentUsers(segment_name="user_segment_x")

    async def expected_content(self, world: World, index: int) -> bytes:
        """Returns the users of the newest version."""
        assert index == 0
        marked = HorizonStore(world).marking("user_segment_vip")
        assert marked is not None
        return as_csv(users_of(marked), COLUMNS)


class TestHorizonTags(TestHorizonSegments):
    export: ClassVar[ExportKind] = SensorsdataTagUsers(tag_name="user_tag_level")
    unknown_export: ClassVar[ExportKind] = SensorsdataTagUsers(tag_name="user_tag_x")

    async def expected_content(self, world: World, index: int) -> bytes:
        """Returns the users of the newest version, with the value of the tag."""
        assert index == 0
        marked = HorizonStore(world).marking("user_tag_level")
        assert marked is not None
        users = ({**user, "user_tag_level": tag_value(user)} for user in users_of(marked))
        return as_csv(users, (*COLUMNS, "user_tag_level"))

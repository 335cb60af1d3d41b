"""The conformance suite for GrowingIO's REST driver: for segment profiles, and for tags of a project."""

from typing import ClassVar

from export_worker.contract.request import ExportKind, GrowingioSegmentProfileUsers, GrowingioUserTagUsers
from export_worker.errors import PlatformUnavailableError
from export_worker.platforms.conformance import DriverSuite

PROJECT = "WlGk4Daj"


class TestGrowingioRest(DriverSuite):
    platform = "growingio-rest"
    export: ClassVar[ExportKind] = GrowingioSegmentProfileUsers(project_id=PROJECT, segment_key="seg_51activity")
    unknown_export: ClassVar[ExportKind] = GrowingioSegmentProfileUsers(project_id=PROJECT, segment_key="seg_unknown")
    projects: ClassVar = {"segments": PROJECT, "tags": PROJECT, "project-tags": PROJECT}
    unknown_export_errors = (PlatformUnavailableError,)
    """The platform responds "Internal Server Error" to an unknown key."""


class TestGrowingioRestTags(TestGrowingioRest):
    export = GrowingioUserTagUsers(project_id=PROJECT, tag_key="tag_rfm")
    unknown_export = GrowingioUserTagUsers(project_id=PROJECT, tag_key="tag_unknown")

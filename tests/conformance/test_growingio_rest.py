"""GrowingIO's REST driver does what every driver must: for segment profiles, and for tags of a project."""

from typing import ClassVar

from conformance.driver_suite import DriverSuite
from export_worker.contract.request import ExportKind, GrowingioSegmentProfileUsers, GrowingioUserTagUsers
from export_worker.errors import PlatformUnavailableError

PROJECT = "WlGk4Daj"


class TestGrowingioRest(DriverSuite):
    platform = "growingio-rest"
    export: ClassVar[ExportKind] = GrowingioSegmentProfileUsers(project_id=PROJECT, segment_key="seg_51activity")
    unknown_export: ClassVar[ExportKind] = GrowingioSegmentProfileUsers(project_id=PROJECT, segment_key="seg_nobody")
    projects: ClassVar = {"segments": PROJECT, "tags": PROJECT}
    thing_missing = (PlatformUnavailableError,)
    """The platform says "Internal Server Error" of a key that it does not know, and nothing else."""


class TestGrowingioRestTags(TestGrowingioRest):
    export = GrowingioUserTagUsers(project_id=PROJECT, tag_key="tag_rfm")
    unknown_export = GrowingioUserTagUsers(project_id=PROJECT, tag_key="tag_of_nobody")

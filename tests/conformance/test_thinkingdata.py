"""ThinkingData's driver does what every driver must: for clusters by name, and for tags by id."""

from typing import ClassVar

from conformance.driver_suite import DriverSuite
from export_worker.contract.request import ExportKind, ThinkingdataClusterUsers
from export_worker.simulator.scenario import Fault
from support import secret_canaries

PROJECT = 102


class TestThinkingdata(DriverSuite):
    platform = "thinkingdata"
    export: ClassVar[ExportKind] = ThinkingdataClusterUsers(project_id=PROJECT, cluster_name="recent_7_days_consume")
    unknown_export: ClassVar[ExportKind] = ThinkingdataClusterUsers(project_id=PROJECT, cluster_name="nobody")
    # The suite looks at single refusals: the driver's own retries of a page would hide them.
    settings: ClassVar = {"token": secret_canaries.TOKEN, "page_retries": 0}
    projects: ClassVar = {"clusters": str(PROJECT), "tags": str(PROJECT)}
    fails = Fault(on="poll", fault="error_stage")
    unknown = Fault(on="poll", fault="progress_text")


class TestThinkingdataTag(TestThinkingdata):
    export = ThinkingdataClusterUsers(project_id=PROJECT, cluster_id=971, catalog="tag")
    unknown_export = ThinkingdataClusterUsers(project_id=PROJECT, cluster_id=9999, catalog="tag")

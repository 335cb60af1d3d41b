"""The conformance suite for ThinkingData's driver: for clusters by name, and for tags by id."""

from typing import ClassVar

from export_worker.contract.request import ExportKind, ThinkingdataClusterUsers
from export_worker.platforms.conformance import TOKEN, DriverSuite
from export_worker.simulator.scenario import Fault

PROJECT = 102


class TestThinkingdata(DriverSuite):
    platform = "thinkingdata"
    export: ClassVar[ExportKind] = ThinkingdataClusterUsers(project_id=PROJECT, cluster_name="recent_7_days_consume")
    unknown_export: ClassVar[ExportKind] = ThinkingdataClusterUsers(project_id=PROJECT, cluster_name="unknown")
    # The suite checks the error of a single refused page. The driver's own retries of a page would hide it.
    settings: ClassVar = {"token": TOKEN, "page_retries": 0}
    projects: ClassVar = {"clusters": str(PROJECT), "tags": str(PROJECT)}
    job_failure = Fault(on="poll", fault="error_stage")
    unknown_stage = Fault(on="poll", fault="progress_text")


class TestThinkingdataTag(TestThinkingdata):
    export = ThinkingdataClusterUsers(project_id=PROJECT, cluster_id=971, catalog="tag")
    unknown_export = ThinkingdataClusterUsers(project_id=PROJECT, cluster_id=9999, catalog="tag")

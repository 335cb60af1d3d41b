"""The conformance suite for GrowingIO's GraphQL driver: with a token, and with an OAuth secret."""

from typing import ClassVar

from export_worker.contract.request import ExportKind, GrowingioSegmentUsers, GrowingioTagUsers
from export_worker.platforms.conformance import CLIENT_SECRET, DriverSuite

PROJECT = "WlGk4Daj"


class TestGrowingio(DriverSuite):
    platform = "growingio"
    export: ClassVar[ExportKind] = GrowingioSegmentUsers(project_id=PROJECT, segment_id="qgQMXnD3")
    unknown_export: ClassVar[ExportKind] = GrowingioSegmentUsers(project_id=PROJECT, segment_id="Unkn0wn1")
    projects: ClassVar = dict.fromkeys(("segments", "funnels", "events", "retentions", "frequencies"), PROJECT)


class TestGrowingioOAuth(TestGrowingio):
    export = GrowingioTagUsers(tag_key="tag_payment_times")
    unknown_export = GrowingioTagUsers(tag_key="tag_unknown")
    settings: ClassVar = {"client_secret": CLIENT_SECRET}
    secrets: ClassVar = (CLIENT_SECRET,)
    renews_credential = True

"""GrowingIO's GraphQL driver does what every driver must: with a token, and with the secret that gives tokens."""

from typing import ClassVar

from conformance.driver_suite import DriverSuite
from export_worker.contract.request import ExportKind, GrowingioSegmentUsers, GrowingioTagUsers
from support import secret_canaries

PROJECT = "WlGk4Daj"


class TestGrowingio(DriverSuite):
    platform = "growingio"
    export: ClassVar[ExportKind] = GrowingioSegmentUsers(project_id=PROJECT, segment_id="qgQMXnD3")
    unknown_export: ClassVar[ExportKind] = GrowingioSegmentUsers(project_id=PROJECT, segment_id="Unkn0wn1")
    projects: ClassVar = dict.fromkeys(("segments", "funnels", "events", "retentions", "frequencies"), PROJECT)


class TestGrowingioOAuth(TestGrowingio):
    export = GrowingioTagUsers(tag_key="tag_payment_times")
    unknown_export = GrowingioTagUsers(tag_key="tag_of_nobody")
    settings: ClassVar = {"client_secret": secret_canaries.OAUTH_SECRET}
    secrets: ClassVar = (secret_canaries.OAUTH_SECRET,)
    renews = True

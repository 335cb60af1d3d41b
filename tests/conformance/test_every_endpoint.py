"""Every endpoint of the five documents is available: through `call`, through `catalog`, or as a kind of export."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.credentials import Redactor
from export_worker.platforms.base import Catalog, Driver
from export_worker.platforms.operations import Operations
from export_worker.platforms.registry import build_driver
from export_worker.platforms.settings import ConnectionSettings
from support.paths import DATA

GUIDE = "growingio-graphql-guide.txt"
REFERENCE = "growingio-graphql-reference.md"
REST = "growingio-rest-segment-profile.txt"
CLUSTERS = "thinkingdata-user-cluster-api.txt"
GROUPS = "sensorsdata-user-group-api.txt"

PLATFORM_OF_DOCUMENT = {
    GUIDE: "growingio",
    REFERENCE: "growingio",
    REST: "growingio-rest",
    CLUSTERS: "thinkingdata",
    GROUPS: "sensorsdata",
}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    platform: {"platform": platform, "base_url": "https://platform.example.cn", "token": "unused-token"}
    for platform in PLATFORM_OF_DOCUMENT.values()
}

Access = Literal["call", "catalog", "kind", "download"]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint that a document names, and how it is available.

    Args:
        name: Method and path, or a GraphQL field.
        accesses: Kind of access → operation, resource or kind of export. `download` is the last step of every export.
    """

    document: str
    name: str
    accesses: Mapping[Access, str]

    @property
    def platform(self) -> str:
        return PLATFORM_OF_DOCUMENT[self.document]

    def __str__(self) -> str:
        return f"{self.platform}: {self.name}"


def table(document: str, endpoints: Mapping[str, Mapping[Access, str]]) -> list[Endpoint]:
    return [Endpoint(document, name, accesses) for name, accesses in endpoints.items()]


def called(*paths: str) -> dict[str, Mapping[Access, str]]:
    """Returns endpoints whose operation has the same name as the last segment of their path."""
    return {path: {"call": path.rpartition("/")[2]} for path in paths}


ENDPOINTS: list[Endpoint] = [
    *table(
        GUIDE,
        {
            "projects": {"call": "projects", "catalog": "projects"},
            "dataCenterTags": {"call": "dataCenterTags", "catalog": "tags"},
            "tags": {"call": "tags", "catalog": "tags"},
            "segments": {"call": "segments", "catalog": "segments"},
            "funnelAnalyses": {"call": "funnelAnalyses", "catalog": "funnels"},
            "submitTagUserExportJobByKey": {"kind": "growingio.tag_users"},
            "submitSegmentUserExportJob": {"kind": "growingio.segment_users"},
            "submitAnalysisExportJob": {"kind": "growingio.analysis"},
            "jobResult": {"call": "jobResult"},
            "GET /download": {"download": "growingio.tag_users"},
        },
    ),
    *table(
        REFERENCE,
        {
            "POST /graphql": {"call": "projects"},
            "submitTagUserExportJob": {"kind": "growingio.tag_users"},
            "submitSegmentUserExportJob": {"kind": "growingio.segment_users"},
            "submitAnalysisExportJob": {"kind": "growingio.analysis"},
            "projects": {"call": "projects", "catalog": "projects"},
            "jobResult": {"call": "jobResult"},
            "userProfile": {"call": "userProfile"},
            "segments": {"call": "segments", "catalog": "segments"},
            "tags": {"call": "tags", "catalog": "tags"},
            "funnelAnalyses": {"call": "funnelAnalyses", "catalog": "funnels"},
            "eventAnalyses": {"call": "eventAnalyses", "catalog": "events"},
            "retentionAnalyses": {"call": "retentionAnalyses", "catalog": "retentions"},
            "frequencyAnalyses": {"call": "frequencyAnalyses", "catalog": "frequencies"},
        },
    ),
    *table(
        REST,
        {
            "POST /v1/api/projects/{}/segment_profiles/{}/export_jobs": {"kind": "growingio.segment_profile_users"},
            "GET /v1/api/job/result/{}": {"call": "job_result"},
            "GET /download": {"download": "growingio.segment_profile_users"},
        },
    ),
    *table(
        CLUSTERS,
        called(
            "POST /open/user-cluster-add",
            "GET /open/user-cluster-detail",
            "POST /open/user-cluster-update",
            "POST /open/user-cluster-update-by-name",
            "POST /open/user-cluster-delete",
            "POST /open/delete-user-cluster-by-name",
            "POST /open/user-cluster-list",
            "POST /open/user-cluster-refresh",
            "POST /open/user-cluster-refresh-by-name",
            "GET /open/user-cluster-refresh-progress",
            "GET /open/user-cluster-refresh-progress-by-name",
            "POST /open/import-id-cluster-add",
            "POST /open/import-id-cluster-modify",
            "POST /open/import-id-cluster-modify-by-name",
        ),
    ),
    *table(
        GROUPS,
        {
            "GET /v2/user_groups": {"call": "list", "catalog": "user-groups"},
            "GET /v2/user_groups/{}": {"call": "get"},
            "POST /v2/user_groups/{}/execute": {"call": "execute", "kind": "sensorsdata.user_group_users"},
            "GET /v2/user_groups/{}/status": {"call": "status"},
            "DELETE /v2/user_groups/{}": {"call": "delete"},
        },
    ),
]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_endpoint_of_document_is_available(endpoint: Endpoint) -> None:
    settings = ConnectionSettings.model_validate(SETTINGS[endpoint.platform])
    driver = build_driver("any", settings, Redactor())
    assert endpoint.accesses
    assert [
        problem for access, name in endpoint.accesses.items() for problem in problems(driver, endpoint, access, name)
    ] == []


def problems(driver: Driver, endpoint: Endpoint, access: Access, name: str) -> Iterator[str]:
    """Yields the reasons why the endpoint is not available in this way."""
    match access:
        case "call":
            if not isinstance(driver, Operations) or name not in driver.operations:
                yield f"call does not list {name}"
            elif not is_call_of(f"{driver.operations[name].method} {driver.operations[name].path}", endpoint):
                yield f"{name} calls {driver.operations[name].method} {driver.operations[name].path}"
        case "catalog":
            if not isinstance(driver, Catalog) or name not in driver.resources:
                yield f"the catalog does not list {name}"
        case "kind" | "download":
            if PLATFORM_OF_KIND.get(name) != endpoint.platform:
                yield f"{name} is no kind of the platform"


def is_call_of(call: str, endpoint: Endpoint) -> bool:
    """Returns whether method and path are those of the endpoint. A GraphQL endpoint is named by its field."""
    return re.sub(r"\{[^}]*\}", "{}", call) == (endpoint.name if " /" in endpoint.name else "POST /graphql")


def test_every_platform_has_a_document() -> None:
    assert set(PLATFORM_OF_DOCUMENT.values()) == set(PLATFORM_OF_KIND.values())


@pytest.mark.parametrize("document", PLATFORM_OF_DOCUMENT)
def test_table_lists_every_endpoint_of_document(document: str) -> None:
    named = set(json.loads((DATA / "platforms" / "endpoints.json").read_text(encoding="utf-8"))[document])
    listed = {endpoint.name.rpartition(" ")[2] for endpoint in ENDPOINTS if endpoint.document == document}
    assert named
    assert named <= listed
    assert listed <= named | {"/graphql"}

"""The samples of GrowingIO's guide and reference: the driver sends the same requests and reads the same responses.

The samples have arguments as literals and select various fields. The driver sends arguments as variables and selects
the fields that it needs. So the test compares the root field, its arguments and the URL. The files in
tests/data/golden/growingio show the request that is sent, and what the driver reads in the sample's response.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, is_dataclass
from typing import Any
from urllib.parse import unquote

import pytest
from graphql import FieldNode, OperationDefinitionNode, VariableNode, parse, value_from_ast_untyped

from export_worker.contract.request import (
    ExportKind,
    GrowingioAnalysis,
    GrowingioSegmentUsers,
    GrowingioTagUsers,
)
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.growingio.driver import GrowingioDriver
from support.drivers import GRAPHQL, growingio_driver
from support.golden_files import check_golden
from support.scripted_server import ScriptedServer, Seen, json_replied, replied

PROJECT = "WlGk4Daj"
TAG_JOB = "VGFnVXNlckV4cG9ydEpvYkR0bzpBYlEzWEFwWQ"
SEGMENT_JOB = "U2VnbWVudFVzZXJFeHBvcnRKb2JEdG86d1dEcjdPUU0"
FUNNEL_JOB = "Q0hBUlRTOmJjZGJjNjViZTA4MGE4NzIyZGM0NTM0OGI2YjdjNGMz"

TAG_BY_KEY = GrowingioTagUsers(tag_key="tag_payment_times")
TAG = GrowingioTagUsers(tag_id="mgGJj3GA", charset="UTF-16LE", detail_export=False)
SEGMENT = GrowingioSegmentUsers(project_id=PROJECT, segment_id="qgQMXnD3", charset="UTF-16LE")
FUNNEL = GrowingioAnalysis(project_id=PROJECT, analysis_id="klGvyp7E", analysis_type="FUNNELS", charset="UTF-16LE")

DriverCall = Callable[[GrowingioDriver], Awaitable[Any]]


def submit(export: ExportKind) -> DriverCall:
    return lambda gio: gio.submit(export)


def poll(operation_id: str) -> DriverCall:
    return lambda gio: gio.poll(TAG, operation_id)


def catalog(resource: str, project: str | None = None) -> DriverCall:
    return lambda gio: gio.catalog(resource, project)


# name, the driver's call, the sample's request, the sample's response
SAMPLES: list[tuple[str, DriverCall, str, Any]] = [
    (
        "guide-data-center-tags",
        catalog("tags"),
        "query dataCenterTags { dataCenterTags { key name } }",
        {"data": {"dataCenterTags": [{"key": "tag_payment_times", "name": "订单交易笔数"}]}},
    ),
    (
        "guide-projects",
        catalog("projects"),
        "query Projects { projects { id name } }",
        {"data": {"projects": [{"id": "WlGk4Daj", "name": "默认项目"}]}},
    ),
    (
        "guide-tags",
        catalog("tags", PROJECT),
        'query Tags { tags(projectId: "WlGk4Daj") { key name } }',
        {"data": {"tags": [{"key": "tag_payment_times", "name": "订单交易笔数"}]}},
    ),
    (
        "guide-submit-tag",
        submit(TAG_BY_KEY),
        """mutation submitTagUserExportJobByKey {
             submitTagUserExportJobByKey(parameter: {tagKey: "tag_payment_times"}) { id name }
           }""",
        {"data": {"submitTagUserExportJobByKey": {"id": TAG_JOB, "name": "DET-202104131140-42035184000000"}}},
    ),
    (
        "guide-tag-result",
        poll(TAG_JOB),
        f'query JobResult {{ jobResult(id: "{TAG_JOB}") {{ id stage uris }} }}',
        {
            "data": {
                "jobResult": {
                    "id": "AbQ3XApY",
                    "stage": "FINISH",
                    "uris": ["/jobs/results/DET-202104131140-42035184000000/c6be148a-4697-43f2-ae83-afe83cea93ab.csv"],
                }
            }
        },
    ),
    (
        "guide-segments",
        catalog("segments", PROJECT),
        'query Segments { segments(projectId: "WlGk4Daj") { id name } }',
        {
            "data": {
                "segments": [
                    {"id": "AVpZBzpK", "name": "分群1"},
                    {"id": "KzpNmzQk", "name": "分群2"},
                    {"id": "V0G5yvGA", "name": "分群3"},
                    {"id": "qgQMXnD3", "name": "分群4"},
                    {"id": "3mpxywGO", "name": "分群n"},
                ]
            }
        },
    ),
    (
        "guide-submit-segment",
        submit(SEGMENT),
        """mutation SubmitSegmentUserExportJob {
             submitSegmentUserExportJob(projectId: "WlGk4Daj", segmentId: "qgQMXnD3", charset: "UTF-16LE") { id name }
           }""",
        {"data": {"submitSegmentUserExportJob": {"id": SEGMENT_JOB, "name": "DES-202101280344-13456258654000"}}},
    ),
    (
        "guide-segment-result",
        poll(SEGMENT_JOB),
        f'query MyQuery {{ jobResult(id: "{SEGMENT_JOB}") {{ uris stage id }} }}',
        {
            "data": {
                "jobResult": {
                    "uris": ["/jobs/results/DES-202101280344-13456258654000/下载用户列表.csv"],
                    "stage": "FINISH",
                    "id": "wWDr7OQM",
                }
            }
        },
    ),
    (
        "guide-funnel-analyses",
        catalog("funnels", PROJECT),
        'query FunnelAnalyses { funnelAnalyses(projectId: "WlGk4Daj") { id name } }',
        {
            "data": {
                "funnelAnalyses": [
                    {"id": "zqQR3po3", "name": "漏斗1"},
                    {"id": "wWDrwQML", "name": "漏斗2"},
                    {"id": "klGvyp7E", "name": "漏斗3"},
                    {"id": "y9pm1pme", "name": "漏斗n"},
                ]
            }
        },
    ),
    (
        "guide-submit-analysis",
        submit(FUNNEL),
        """mutation SubmitAnalysisExportJob {
             submitAnalysisExportJob(
               id: "klGvyp7E", param: {analysisType: FUNNELS}, charset: "UTF-16LE", projectId: "WlGk4Daj"
             ) { id stage }
           }""",
        {"data": {"submitAnalysisExportJob": {"id": FUNNEL_JOB, "stage": "FINISH"}}},
    ),
    (
        "guide-analysis-result",
        poll(FUNNEL_JOB),
        f'query JobResult {{ jobResult(id: "{FUNNEL_JOB}") {{ id stage uris }} }}',
        {
            "data": {
                "jobResult": {"id": "J1GlEDjl", "stage": "FINISH", "uris": ["/jobs-results/downloads/下载漏斗.csv"]}
            }
        },
    ),
    (
        "reference-submit-tag",
        submit(TAG),
        """mutation SubmitTagUserExportJob {
             submitTagUserExportJob(tagId: "mgGJj3GA", charset: "UTF-16LE", detailExport: false) {
               id name __typename description stage creatorId createdAt updaterId updatedAt
             }
           }""",
        {
            "data": {
                "submitTagUserExportJob": {
                    "id": "VGFnVXNlckV4cG9ydEpvYkR0bzp3ZURxOWVERQ",
                    "name": "DET-202101250901-32498440381000",
                    "__typename": "TagUserExportJob",
                    "description": None,
                    "stage": "NONE",
                    "creatorId": "zqQRq3Do",
                    "createdAt": "2021-01-25T09:01:38.440443Z",
                    "updaterId": "zqQRq3Do",
                    "updatedAt": "2021-01-25T09:01:38.440443Z",
                }
            }
        },
    ),
    (
        "reference-submit-segment",
        submit(SEGMENT),
        """mutation SubmitSegmentUserExportJob {
             submitSegmentUserExportJob(projectId: "WlGk4Daj", segmentId: "qgQMXnD3", charset: "UTF-16LE") {
               __typename id name description stage creatorId createdAt updaterId updatedAt creator updater
             }
           }""",
        [
            {
                "data": {
                    "submitSegmentUserExportJob": {
                        "id": "U2VnbWVudFVzZXJFeHBvcnRKb2JEdG86eTlwbUxtUW0",
                        "name": "DES-202101251129-41393863743000",
                        "__typename": "SegmentUserExportJob",
                        "description": None,
                        "stage": "NONE",
                        "creatorId": "zqQRq3Do",
                        "createdAt": "2021-01-25T11:29:53.863810Z",
                        "updaterId": "zqQRq3Do",
                        "updatedAt": "2021-01-25T11:29:53.863810Z",
                        "creator": "admin",
                        "updater": "admin",
                    }
                }
            }
        ],
    ),
]

DOWNLOADS = [
    ("guide-download-tag", "/jobs/results/DET-202104131140-42035184000000/c6be148a-4697-43f2-ae83-afe83cea93ab.csv"),
    ("guide-download-segment", "/jobs/results/DES-202101280344-13456258654000/下载用户列表.csv"),
    ("guide-download-analysis", "/jobs-results/downloads/下载漏斗.csv"),
]


def request_of(seen: Seen) -> dict[str, Any]:
    """Returns a request in the form of the golden files, with the headers that the documents mention."""
    path, _, query = seen.target.partition("?")
    return {
        "method": seen.method,
        "path": path,
        "query": dict(field.split("=", 1) for field in query.split("&")) if query else {},
        "headers": {name: seen.headers[name] for name in ("Content-Type",) if seen.body},
        "body": seen.json if seen.body else None,
    }


def selection_of(document: str, variables: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Returns the type, the root field and the arguments of a document, whether these are literals or variables."""
    [operation] = parse(document).definitions
    assert isinstance(operation, OperationDefinitionNode)
    [field] = operation.selection_set.selections
    assert isinstance(field, FieldNode)
    arguments = {
        argument.name.value: value_from_ast_untyped(argument.value, variables)
        for argument in field.arguments or ()
        if not isinstance(argument.value, VariableNode) or argument.value.name.value in variables
    }
    return operation.operation.value, field.name.value, arguments


@pytest.mark.parametrize(("name", "call", "sample", "response"), SAMPLES, ids=[name for name, *_ in SAMPLES])
async def test_request_matches_sample_and_its_response_is_read(
    name: str, call: DriverCall, sample: str, response: Any
) -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied(response))
        read = await call(gio)
    [seen] = server.seen
    assert (seen.method, seen.target) == ("POST", "/graphql")
    assert selection_of(seen.json["query"], seen.json["variables"]) == selection_of(sample, {})
    plain = {"is": type(read).__name__, **asdict(read)} if is_dataclass(read) and not isinstance(read, type) else read
    check_golden(f"growingio/{name}", {**request_of(seen), "answer": response, "read": plain})


@pytest.mark.parametrize(("name", "uri"), DOWNLOADS)
async def test_download_request_matches_sample(name: str, uri: str) -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on("/download", replied(b"id\n", content_type="text/csv"))
        async with gio.open_result(TAG, RemoteFile(uri, uri.rpartition("/")[2])) as download:
            assert b"".join([chunk async for chunk in download.chunks()]) == b"id\n"
    [seen] = server.seen
    # The guide shows the path unencoded after `file=`. The driver percent-encodes it once.
    assert unquote(seen.target) == f"/download?file={uri}"
    check_golden(f"growingio/{name}", request_of(seen))


def test_comparison_detects_differences() -> None:
    sample = 'query Tags { tags(projectId: "WlGk4Daj") { key name } }'
    assert selection_of(sample, {}) == ("query", "tags", {"projectId": "WlGk4Daj"})
    ours = "query Tags($projectId: HashId!) { tags(projectId: $projectId) { key } }"
    assert selection_of(ours, {"projectId": "WlGk4Daj"}) == selection_of(sample, {})
    assert selection_of(ours, {}) != selection_of(sample, {})
    assert selection_of(ours, {"projectId": "other123"}) != selection_of(sample, {})

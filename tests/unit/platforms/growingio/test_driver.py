"""The GrowingIO driver against a scripted server: the requests that it sends, and the results of responses."""

from typing import Any

import pytest

from export_worker.contract.request import (
    ExportKind,
    GrowingioAnalysis,
    GrowingioSegmentUsers,
    GrowingioTagUsers,
    SensorsdataUserGroupUsers,
)
from export_worker.credentials import Redactor
from export_worker.errors import (
    ErrorCode,
    OperationFailedError,
    PlatformMalformedError,
    PlatformNotFoundError,
    PlatformRefusedError,
    PlatformUnavailableError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import Catalog, Driver
from export_worker.platforms.growingio.driver import GrowingioDriver
from export_worker.platforms.settings import ConnectionSettings
from support.drivers import GRAPHQL, growingio_driver, root_field
from support.scripted_server import CANARY, Reply, ScriptedServer, echoed, json_replied, replied

JOB_ID = "VGFnVXNlckV4cG9ydEpvYkR0bzpBYlEzWEFwWQ"
TAG = GrowingioTagUsers(tag_key="tag_payment_times")
SEGMENT = GrowingioSegmentUsers(project_id="WlGk4Daj", segment_id="qgQMXnD3", charset="UTF-16LE")


def submitted(field: str = "submitTagUserExportJobByKey", **job: Any) -> dict[str, Any]:
    return {"data": {field: {"id": JOB_ID, "stage": "NONE", "error": None, **job}}}


def result(**fields: Any) -> dict[str, Any]:
    return {"data": {"jobResult": {"id": "AbQ3XApY", "stage": "RUNNING", "uris": None, **fields}}}


async def submit(*replies: Reply, export: ExportKind = TAG) -> Submitted:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, *replies)
        return await gio.submit(export)


async def poll(*replies: Reply) -> Polled:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, *replies)
        return await gio.poll(TAG, JOB_ID)


def test_driver_implements_catalog() -> None:
    settings = ConnectionSettings.model_validate(
        {"platform": "growingio", "base_url": "https://op.example.cn", "token": CANARY}
    )
    gio: Driver = GrowingioDriver("gio", settings, Redactor())
    assert isinstance(gio, Catalog)
    assert set(gio.resources) == {"projects", "tags", "segments", "funnels", "events", "retentions", "frequencies"}


GOLDEN_SUBMITS: list[tuple[str, ExportKind, str, str, dict[str, Any]]] = [
    (
        "guide: tag by key",
        TAG,
        "SubmitTagUserExportJobByKey",
        "submitTagUserExportJobByKey",
        {"parameter": {"tagKey": "tag_payment_times"}},
    ),
    (
        "tag by key with everything",
        GrowingioTagUsers(
            tag_key="tag_payment_times",
            properties=["usr_name"],
            charset="UTF-16LE",
            detail_export=False,
            file_name="订单",
        ),
        "SubmitTagUserExportJobByKey",
        "submitTagUserExportJobByKey",
        {
            "parameter": {
                "tagKey": "tag_payment_times",
                "properties": ["usr_name"],
                "charset": "UTF-16LE",
                "detailExport": False,
                "exportFileName": "订单",
            }
        },
    ),
    (
        "reference: tag by id",
        GrowingioTagUsers(tag_id="mgGJj3GA", charset="UTF-16LE", detail_export=False),
        "SubmitTagUserExportJob",
        "submitTagUserExportJob",
        {"tagId": "mgGJj3GA", "charset": "UTF-16LE", "detailExport": False},
    ),
    (
        "tag by id with a file name",
        GrowingioTagUsers(tag_id="mgGJj3GA", file_name="订单"),
        "SubmitTagUserExportJob",
        "submitTagUserExportJob",
        {"tagId": "mgGJj3GA", "exportFileName": "订单"},
    ),
    (
        "guide and reference: segment",
        SEGMENT,
        "SubmitSegmentUserExportJob",
        "submitSegmentUserExportJob",
        {"projectId": "WlGk4Daj", "segmentId": "qgQMXnD3", "charset": "UTF-16LE"},
    ),
    (
        "segment with columns",
        GrowingioSegmentUsers(project_id="WlGk4Daj", segment_id="qgQMXnD3", tags=["mgGJj3GA"], properties=[]),
        "SubmitSegmentUserExportJob",
        "submitSegmentUserExportJob",
        {"projectId": "WlGk4Daj", "segmentId": "qgQMXnD3", "tags": ["mgGJj3GA"], "properties": []},
    ),
    (
        "guide: analysis",
        GrowingioAnalysis(project_id="WlGk4Daj", analysis_id="klGvyp7E", analysis_type="FUNNELS", charset="UTF-16LE"),
        "SubmitAnalysisExportJob",
        "submitAnalysisExportJob",
        {"projectId": "WlGk4Daj", "id": "klGvyp7E", "param": {"analysisType": "FUNNELS"}, "charset": "UTF-16LE"},
    ),
]


@pytest.mark.parametrize(
    ("export", "name", "field", "variables"),
    [case[1:] for case in GOLDEN_SUBMITS],
    ids=[case[0] for case in GOLDEN_SUBMITS],
)
async def test_submit_sends_documented_mutation(
    export: ExportKind, name: str, field: str, variables: dict[str, Any]
) -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied(submitted(field)))
        assert await gio.submit(export) == Submitted(JOB_ID, "NONE", done=False)
    [seen] = server.seen
    assert (seen.method, seen.target) == ("POST", GRAPHQL)
    assert seen.headers["Authorization"] == f"Token {CANARY}"
    assert set(seen.json) == {"operationName", "query", "variables"}
    assert seen.json["operationName"] == name
    assert seen.json["variables"] == variables
    assert root_field(seen.json["query"]) == ("mutation", field)


async def test_poll_sends_job_result_query() -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied(result()))
        await gio.poll(TAG, JOB_ID)
    [seen] = server.seen
    assert (seen.method, seen.target) == ("POST", GRAPHQL)
    assert seen.json["variables"] == {"id": JOB_ID}
    assert root_field(seen.json["query"]) == ("query", "jobResult")


@pytest.mark.parametrize(
    ("job", "stage", "done"),
    [
        ({"stage": "NONE"}, "NONE", False),
        ({"stage": "READY"}, "READY", False),
        ({"stage": "DATA_READY"}, "DATA_READY", False),
        ({"stage": "A_NEW_ONE"}, "A_NEW_ONE", False),
        ({"stage": None}, None, False),
        ({"stage": 3}, None, False),
        ({"stage": "FINISH"}, "FINISH", True),
        ({"stage": "FINISH", "error": {"code": "", "message": None}}, "FINISH", True),
        ({"stage": "RUNNING", "error": {"code": ""}}, "RUNNING", False),
        ({"stage": "NONE", "error": "odd"}, "NONE", False),
    ],
)
async def test_submit_returns_stage_of_response(job: dict[str, Any], stage: str | None, done: bool) -> None:
    assert await submit(json_replied(submitted(**job))) == Submitted(JOB_ID, stage, done=done)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "E17", "message": "no\nsuch tag"}, "E17: no such tag"),
        ({"code": "", "message": "no such tag"}, "no such tag"),
        ({"code": "", "message": None}, "the platform states no reason"),
        (None, "the platform states no reason"),
        ("odd", "the platform states no reason"),
    ],
)
async def test_submit_with_stage_error_raises_with_reason(error: Any, reason: str) -> None:
    with pytest.raises(OperationFailedError) as caught:
        await submit(json_replied(submitted(stage="ERROR", error=error)))
    assert str(caught.value).endswith(f"ended in ERROR at once: {reason}")
    assert caught.value.code == ErrorCode.PLATFORM_ERROR
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "job", [None, {}, {"id": None}, {"id": ""}, {"id": 1.5}, {"id": "a\ud800"}, {"id": "a" * 5000}, [], "text"]
)
async def test_submit_response_without_usable_id_raises_malformed(job: Any) -> None:
    with pytest.raises(PlatformMalformedError) as caught:
        await submit(json_replied({"data": {"submitTagUserExportJobByKey": job}}))
    assert caught.value.unclear


async def test_kind_of_other_platform_is_refused() -> None:
    with pytest.raises(PlatformRefusedError, match=r"sensorsdata\.user_group_users"):
        await submit(export=SensorsdataUserGroupUsers(group_id=1))


@pytest.mark.parametrize("stage", ["NONE", "READY", "RUNNING", "DATA_READY", "TENCENT_PORTRAIT_RUNNING", "done", "x"])
async def test_poll_with_non_terminal_stage_returns_pending(stage: str) -> None:
    assert await poll(json_replied(result(stage=stage, uris=["/too/early.csv"]))) == Pending(stage)


async def test_poll_with_stage_finish_returns_files() -> None:
    uris = ["/jobs/results/DES-1/下载用户列表.csv", "/jobs-results/downloads/a%41 b.csv"]
    assert await poll(json_replied(result(stage="FINISH", uris=uris))) == Ready(
        "FINISH", (RemoteFile(uris[0], "下载用户列表.csv"), RemoteFile(uris[1], "a%41 b.csv"))
    )


@pytest.mark.parametrize("uris", [None, []])
async def test_poll_with_stage_finish_and_no_uris_returns_no_files(uris: Any) -> None:
    assert await poll(json_replied(result(stage="FINISH", uris=uris))) == Ready("FINISH", ())


async def test_poll_with_stage_error_returns_operation_failed() -> None:
    polled = await poll(json_replied(result(stage="ERROR")))
    assert isinstance(polled, OperationFailed)
    assert polled.stage == "ERROR"


@pytest.mark.parametrize(
    "uris", [[None], [17], [""], ["relative/"], ["https://evil.cn/a.csv"], ["/a/"], "/a.csv", {}, ["/\ud800.csv"]]
)
async def test_uri_that_is_no_absolute_path_raises_malformed(uris: Any) -> None:
    with pytest.raises(PlatformMalformedError) as caught:
        await poll(json_replied(result(stage="FINISH", uris=uris)))
    assert caught.value.retryable


@pytest.mark.parametrize("response", [None, {}, {"stage": None}, {"stage": 1}, "text", []])
async def test_poll_response_without_stage_raises_malformed(response: Any) -> None:
    with pytest.raises(PlatformMalformedError):
        await poll(json_replied({"data": {"jobResult": response}}))


async def test_poll_of_unknown_job_raises_retryable_malformed() -> None:
    with pytest.raises(PlatformMalformedError, match=f"does not know the job {JOB_ID}") as caught:
        await poll(json_replied({"data": {"jobResult": None}}))
    assert caught.value.retryable


async def test_response_within_list_of_one_is_read() -> None:
    assert (await submit(json_replied([submitted()]))).operation_id == JOB_ID
    assert await poll(json_replied([result()])) == Pending("RUNNING")


@pytest.mark.parametrize(
    "response", [[], [{}, {}], [[{}]], {}, "x", 1, None, {"data": None}, {"data": []}, {"errors": []}]
)
async def test_response_that_is_no_graphql_raises_malformed(response: Any) -> None:
    with pytest.raises(PlatformMalformedError):
        await poll(json_replied(response))


@pytest.mark.parametrize(
    "errors",
    [
        [{"message": "no such"}, {"message": "job"}],
        [{"message": "no such", "extensions": {"classification": "ValidationError"}}, "job"],
        [{"message": "no such", "extensions": {"code": "INTERNAL"}}, {"message": "job"}],
    ],
)
async def test_graphql_errors_with_status_200_raise_refused(errors: Any) -> None:
    with pytest.raises(PlatformRefusedError, match=r"^JobResult: no such; job$"):
        await poll(json_replied({"data": None, "errors": errors}))


@pytest.mark.parametrize("errors", ["odd", {"message": "odd"}, [17], [None], [{}], [{"message": 3}]])
async def test_graphql_errors_of_any_shape_raise_refused(errors: Any) -> None:
    with pytest.raises(PlatformRefusedError):
        await poll(json_replied({"errors": errors}))


@pytest.mark.parametrize(
    "extensions", [{"code": "INTERNAL_SERVER_ERROR"}, {"classification": "Internal"}, {"code": "TIMEOUT"}]
)
async def test_graphql_errors_that_are_server_faults_raise_unavailable(extensions: Any) -> None:
    with pytest.raises(PlatformUnavailableError):
        await poll(json_replied({"errors": [{"message": "oh", "extensions": extensions}]}))


async def test_graphql_error_messages_are_truncated_and_masked() -> None:
    with pytest.raises(PlatformRefusedError) as caught:
        await poll(json_replied({"errors": [{"message": f"bad {CANARY}\n"}, {"message": "x" * 9999}]}))
    assert str(caught.value).startswith("JobResult: bad *** ; xxx")
    assert len(str(caught.value)) < 400


async def test_submit_with_errors_and_id_returns_id() -> None:
    response = submitted(stage=None) | {"errors": [{"message": "stage: timed out", "path": ["stage"]}]}
    assert await submit(json_replied(response)) == Submitted(JOB_ID, None)


async def test_submit_with_errors_and_no_id_raises_refused() -> None:
    response = {"data": {"submitTagUserExportJobByKey": None}, "errors": [{"message": "no right"}]}
    with pytest.raises(PlatformRefusedError, match="no right"):
        await submit(json_replied(response))


@pytest.mark.parametrize("uris", [None, [], ["/a.csv", None]])
async def test_poll_with_errors_and_incomplete_data_raises_refused(uris: Any) -> None:
    with pytest.raises(PlatformRefusedError):
        await poll(json_replied(result(stage="FINISH", uris=uris) | {"errors": [{"message": "uris: lost"}]}))


COMPLETE: list[tuple[dict[str, Any], Polled]] = [
    ({"stage": "RUNNING"}, Pending("RUNNING")),
    ({"stage": "FINISH", "uris": ["/a.csv"]}, Ready("FINISH", (RemoteFile("/a.csv", "a.csv"),))),
    ({"stage": "ERROR"}, OperationFailed("ERROR", "the platform's job ended in ERROR; the platform states no reason")),
]


@pytest.mark.parametrize(("job", "polled"), COMPLETE, ids=["running", "finished", "failed"])
async def test_poll_uses_complete_data_beside_an_unrelated_error(job: dict[str, Any], polled: Polled) -> None:
    assert await poll(json_replied(result(**job) | {"errors": [{"message": "deprecated field"}]})) == polled


async def test_poll_of_job_that_the_platform_does_not_know_raises_not_found() -> None:
    error = {"message": "no such job", "extensions": {"classification": "NOT_FOUND"}}
    with pytest.raises(PlatformNotFoundError, match="no such job"):
        await poll(json_replied({"data": {"jobResult": None}, "errors": [error]}))


@pytest.mark.parametrize("body", ["<html>login</html>", "{", ""])
async def test_error_page_with_status_200_raises_malformed(body: str) -> None:
    with pytest.raises(PlatformMalformedError, match=r"^POST /graphql: the response is not JSON"):
        await poll(replied(body, content_type="text/html"))


async def test_secret_in_error_page_is_masked() -> None:
    with pytest.raises(PlatformUnavailableError) as caught:
        await poll(echoed)
    assert "***" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        (
            "/jobs/results/DES-1/下载 a&b#c+d%41?e.csv",
            "/download?file=/jobs/results/DES-1/%E4%B8%8B%E8%BD%BD%20a%26b%23c%2Bd%2541%3Fe.csv",
        ),
        ("/jobs/results/DET-1/c6be148a.csv", "/download?file=/jobs/results/DET-1/c6be148a.csv"),
        ("jobs/results/DET-1/c6be148a.csv", "/download?file=jobs/results/DET-1/c6be148a.csv"),
        ("//x/a=b;c\"d'.csv", "/download?file=//x/a%3Db%3Bc%22d%27.csv"),
    ],
)
async def test_uri_is_encoded_exactly_once_for_download(uri: str, target: str) -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied(result(stage="FINISH", uris=[uri])))
        server.on("/download", replied("内容".encode(), content_type="text/csv"))
        polled = await gio.poll(TAG, JOB_ID)
        assert isinstance(polled, Ready)
        [file] = polled.files
        async with gio.open_result(TAG, file) as download:
            assert b"".join([chunk async for chunk in download.chunks()]) == "内容".encode()
            assert download.total_bytes == 6
    assert file.name == uri.rpartition("/")[2]
    [seen] = server.asked("/download")
    assert seen.target == target
    assert seen.headers["Authorization"] == f"Token {CANARY}"


# Forms beside those of the document


@pytest.mark.parametrize("job_id", [17, 17.0, "17", " 17 "])
async def test_job_id_that_is_a_number_is_its_digits(job_id: Any) -> None:
    assert (await submit(json_replied(submitted(id=job_id)))).operation_id == "17"


@pytest.mark.parametrize("stage", ["finish", "Finish "])
async def test_stage_is_recognized_in_any_case(stage: str) -> None:
    assert await submit(json_replied(submitted(stage=stage))) == Submitted(JOB_ID, stage, done=True)
    assert await poll(json_replied(result(stage=stage, uris=["/a.csv"]))) == Ready(
        stage, (RemoteFile("/a.csv", "a.csv"),)
    )
    assert isinstance(await poll(json_replied(result(stage="Error"))), OperationFailed)


@pytest.mark.parametrize(
    "message",
    [
        "Cannot query field 'submitTagUserExportJobByKey' on type 'Mutation'.",
        "Validation error: Unknown type TagUserExportJobByKeyInput",
    ],
)
async def test_refusal_of_an_old_version_names_the_field_that_it_accepts(message: str) -> None:
    refusal = json_replied({"errors": [{"message": message}]})
    with pytest.raises(PlatformRefusedError, match=r"from version 13\.4; export this tag by its tag_id") as caught:
        await submit(refusal)
    assert message in str(caught.value)
    with pytest.raises(PlatformRefusedError) as other:
        await submit(json_replied({"errors": [{"message": "no right"}]}))
    assert "tag_id" not in str(other.value)

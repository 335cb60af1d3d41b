"""The ThinkingData driver against a scripted server: the requests that it sends, and the results of responses."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from export_worker.contract.request import GrowingioTagUsers, ThinkingdataClusterUsers
from export_worker.credentials import Redactor
from export_worker.errors import (
    AuthFailedError,
    ConfigError,
    DownloadInterruptedError,
    DownloadInvalidError,
    InvalidRequestError,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    ResultMissingError,
    StepError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile
from export_worker.platforms.base import Catalog, Driver
from export_worker.platforms.operations import Operations
from export_worker.platforms.registry import build_driver
from export_worker.platforms.settings import ConnectionSettings
from export_worker.platforms.thinkingdata.driver import FAILED_POLLS_MAX, ThinkingdataDriver
from support.drivers import thinkingdata_driver
from support.scripted_server import CANARY, Reply, ScriptedServer, echoed, json_replied, replied

DETAIL = "/open/user-cluster-detail"
REFRESH = "/open/user-cluster-refresh"
PROGRESS = "/open/user-cluster-refresh-progress"
SUBMIT_SQL = "/open/submit-sql"
TASK_INFO = "/open/sql-task-info"
PAGE = "/open/sql-result-page"
CLUSTER = ThinkingdataClusterUsers(project_id=102, cluster_id=970)
BEFORE = "2020-01-10 10:51:14"
SQL_ID = "sql?task=t-1&cluster=recent"
FILE = RemoteFile("/open/sql-result-page?taskId=t-1", "recent.csv")


def success(data: Any = None) -> Reply:
    return json_replied({"return_code": 0, "return_message": "success", "data": data})


def failure(code: Any, message: str = "") -> Reply:
    return json_replied({"return_code": code, "return_message": message})


def detail(progress: Any = 100, time: str | None = BEFORE) -> Reply:
    return success({"clusterName": "recent", "id": 970, "progress": progress, "refreshTime": time})


def stat(rows: Any = 2, pages: Any = 1, **more: Any) -> dict[str, Any]:
    return {"status": "FINISHED", "resultStat": {"rowCount": rows, "pageCount": pages, "pageSize": 1000, **more}}


def test_driver_implements_catalog_and_operations() -> None:
    settings = ConnectionSettings.model_validate(
        {"platform": "thinkingdata", "base_url": "http://ta2:8992", "token": CANARY}
    )
    ta: Driver = build_driver("ta", settings, Redactor())
    assert isinstance(ta, ThinkingdataDriver)
    assert isinstance(ta, Catalog)
    assert isinstance(ta, Operations)
    asyncio.run(ta.close())


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"token": None}, "connections.ta: token is needed"),
        ({"api_key": CANARY}, "connections.ta: thinkingdata takes neither api_key nor client_secret"),
        ({"token": f"{CANARY}\n"}, "connections.ta.token: must be printable"),
        ({"pagerows": 1}, "connections.ta.pagerows: unknown option; did you mean page_rows?; known are "),
        ({"page_rows": 999}, "connections.ta.page_rows: "),
        ({"cluster_table": "a; drop"}, "connections.ta.cluster_table: "),
        ({"table_prefix": 'a"'}, "connections.ta.table_prefix: "),
    ],
)
def test_wrong_setting_is_refused_with_its_name(options: dict[str, Any], start: str) -> None:
    settings = {"platform": "thinkingdata", "base_url": "http://ta2:8992", "token": CANARY, **options}
    with pytest.raises(ConfigError) as caught:
        build_driver("ta", ConnectionSettings.model_validate(settings), Redactor())
    assert str(caught.value).startswith(start)
    assert "canary" not in str(caught.value)


async def test_kind_of_other_platform_is_refused_before_any_request() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        with pytest.raises(PlatformRefusedError, match=r"cannot export growingio\.tag_users"):
            await ta.submit(GrowingioTagUsers(tag_key="a"))
    assert server.seen == []


# The refresh


async def poll_refresh(operation_id: str, progress: Reply, now: Reply | None = None) -> Polled:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on(DETAIL, now or detail())
        server.on(PROGRESS, progress)
        server.on(SUBMIT_SQL, success({"taskId": "t-1"}))
        return await ta.poll(CLUSTER, operation_id)


def progress_reply(progress: Any) -> Reply:
    return success({"progress": progress})


REQUESTED = "refresh?cluster=recent&before=2020-01-10+10%3A51%3A14&progress=100"
STARTED = f"{REQUESTED}&seen=1"
RUNNING_BEFORE = "refresh?cluster=recent&before=2020-01-10+10%3A51%3A14&progress=1"
FAILED_BEFORE = "refresh?cluster=recent&before=2020-01-10+10%3A51%3A14&progress=-1"
NOTHING_BEFORE = "refresh?cluster=recent&before="
LATER = detail(time="2020-01-10 10:51:15")
QUERY = Pending("SQL_SUBMITTED", operation_id=SQL_ID, submitted=True)


async def test_submit_records_state_then_requests_one_refresh() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on(DETAIL, detail())
        server.on(REFRESH, success())
        submitted = await ta.submit(CLUSTER)
    assert submitted.operation_id == REQUESTED
    assert not submitted.done
    assert [seen.target.partition("?")[0] for seen in server.seen] == [DETAIL, REFRESH]


@pytest.mark.parametrize(
    ("before", "time", "operation_id"),
    [
        ("50%", BEFORE, "progress=50"),
        (None, None, NOTHING_BEFORE),
        ({}, BEFORE, "before=2020"),
        (-1, BEFORE, "progress=-1"),
    ],
)
async def test_submit_accepts_any_state_before_refresh(before: Any, time: Any, operation_id: str) -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on(DETAIL, detail(before, time))
        server.on(REFRESH, success())
        assert operation_id in (await ta.submit(CLUSTER)).operation_id


@pytest.mark.parametrize(
    ("operation_id", "progress", "now", "polled"),
    [
        (REQUESTED, 100, detail(), Pending("REFRESH_WAITING")),
        (REQUESTED, 100, LATER, QUERY),
        (REQUESTED, 40, detail(), Pending("REFRESHING", 40, STARTED)),
        (REQUESTED, "50", detail(), Pending("REFRESHING", 50, STARTED)),
        (REQUESTED, "50%", detail(), Pending("REFRESHING", 50, STARTED)),
        (REQUESTED, None, detail(), Pending("REFRESH_WAITING")),
        (REQUESTED, "计算中", detail(), Pending("REFRESH_WAITING")),
        (REQUESTED, 100, detail(time=None), Pending("REFRESH_WAITING")),
        (REQUESTED, -1, detail(), OperationFailed),
        (STARTED, 100, detail(), QUERY),
        (STARTED, "100%", detail(), QUERY),
        (STARTED, 99, detail(), Pending("REFRESHING", 99)),
        (STARTED, None, detail(), Pending("REFRESHING")),
        (STARTED, -1, detail(), OperationFailed),
        (NOTHING_BEFORE, 100, detail(time=None), Pending("REFRESH_WAITING")),
        (NOTHING_BEFORE, 100, LATER, QUERY),
        (NOTHING_BEFORE, -1, detail(), OperationFailed),
        (RUNNING_BEFORE, 1, detail(), Pending("REFRESH_WAITING")),
        (RUNNING_BEFORE, 100, detail(), QUERY),
        (FAILED_BEFORE, 100, detail(), QUERY),
        (FAILED_BEFORE, -1, detail(), Pending("REFRESH_WAITING", operation_id=f"{FAILED_BEFORE}&failed=1")),
        (FAILED_BEFORE, -1, LATER, OperationFailed),
        (f"{FAILED_BEFORE}&seen=1", -1, detail(), OperationFailed),
        (f"{FAILED_BEFORE}&failed={FAILED_POLLS_MAX - 1}", -1, detail(), OperationFailed),
    ],
)
async def test_poll_ignores_end_of_previous_refresh(operation_id: str, progress: Any, now: Reply, polled: Any) -> None:
    seen = await poll_refresh(operation_id, progress_reply(progress), now)
    if polled is OperationFailed:
        assert isinstance(seen, OperationFailed)
    else:
        assert seen == polled


@pytest.mark.parametrize("progress", [101, -2, -0.5, 1e400, 10**400, "nan", "150%", True, [], {}])
async def test_progress_outside_of_range_raises_malformed(progress: Any) -> None:
    with pytest.raises(PlatformMalformedError, match="progress is"):
        await poll_refresh(STARTED, progress_reply(progress))


async def test_progress_response_without_data_returns_pending() -> None:
    assert await poll_refresh(STARTED, success(None)) == Pending("REFRESHING")


async def test_progress_response_that_is_no_object_raises_malformed() -> None:
    with pytest.raises(PlatformMalformedError, match="data is no object"):
        await poll_refresh(STARTED, success([80]))


@pytest.mark.parametrize("operation_id", ["", "x", "sql", "sql?task=a", "refresh?cluster=a&before=&progress=x"])
async def test_invalid_operation_id_is_refused(operation_id: str) -> None:
    with pytest.raises(PlatformRefusedError, match="not one of thinkingdata"):
        await poll_refresh(operation_id, progress_reply(1))


# The query


async def test_query_is_sent_as_form_with_quoted_names() -> None:
    export = ThinkingdataClusterUsers(
        project_id=102, cluster_name="o'b; drop", refresh=False, catalog="tag", columns=['a"b', "#user_id"]
    )
    async with ScriptedServer() as server, thinkingdata_driver(server, table_prefix="", sql_timeout_s=60) as ta:
        server.on(SUBMIT_SQL, success({"taskId": "t-1"}))
        submitted = await ta.submit(export)
    assert submitted.operation_id == "sql?task=t-1&cluster=o%27b%3B+drop"
    sql = (
        'SELECT u."a""b", c."#user_id", c.tag_value FROM user_result_cluster_102 c '
        "LEFT JOIN v_user_102 u ON c.\"#user_id\" = u.\"#user_id\" WHERE c.cluster_name = 'o''b; drop'"
    )
    [seen] = server.seen
    assert seen.form == {
        "sql": [sql],
        "format": ["csv"],
        "pageSize": ["10000"],
        "timeoutSeconds": ["60"],
    }
    assert seen.target.startswith(f"{SUBMIT_SQL}?token=")


async def test_submit_without_refresh_requests_name_of_cluster_id() -> None:
    export = CLUSTER.model_copy(update={"refresh": False})
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on(DETAIL, detail())
        server.on(SUBMIT_SQL, success({"taskId": "t-1"}))
        assert (await ta.submit(export)).operation_id == SQL_ID
    assert server.seen[1].form["sql"][0] == (
        'SELECT u."#account_id", u."#distinct_id", c."#user_id" FROM ta.user_result_cluster_102 c '
        'LEFT JOIN ta.v_user_102 u ON c."#user_id" = u."#user_id" WHERE c.cluster_name = \'recent\''
    )


async def poll_query(*replies: Reply, operation_id: str = SQL_ID, **options: Any) -> Polled:
    async with ScriptedServer() as server, thinkingdata_driver(server, **options) as ta:
        server.on(TASK_INFO, *replies)
        server.on(SUBMIT_SQL, success({"taskId": "t-2"}))
        return await ta.poll(CLUSTER, operation_id)


@pytest.mark.parametrize(
    ("info", "polled"),
    [
        ({"status": "RUNNING", "progress": 40}, Pending("RUNNING", 40)),
        ({"status": "RUNNING", "progress": "40%"}, Pending("RUNNING", 40)),
        ({"status": "QUEUED", "progress": 900}, Pending("QUEUED")),
        ({"status": None}, Pending(None)),
        ({"status": 7, "progress": None}, Pending(None)),
        ({"status": "FINISHED"}, Ready("FINISHED", (FILE,))),
    ],
)
async def test_poll_returns_status_of_query(info: dict[str, Any], polled: Polled) -> None:
    assert await poll_query(success(info)) == polled


async def test_poll_of_failed_query_returns_masked_reason() -> None:
    failed = await poll_query(success({"status": "FAILED", "errorMessage": f"no memory {CANARY}", "progress": 3}))
    assert failed == OperationFailed("FAILED", "the query of the users failed: no memory ***")


@pytest.mark.parametrize(
    "reply", [failure(-1008, "参数错误"), failure(-1, "任务已过期"), failure(-7, "Task NOT FOUND")]
)
async def test_poll_of_expired_query_restarts_it(reply: Reply) -> None:
    polled = await poll_query(reply)
    assert polled == Pending("SQL_SUBMITTED", operation_id="sql?task=t-2&cluster=recent&restarts=1", submitted=True)


async def test_poll_of_query_that_expired_too_often_raises() -> None:
    with pytest.raises(ResultMissingError, match="expired 4 times"):
        await poll_query(failure(-1, "expired"), operation_id=f"{SQL_ID}&restarts=3")


# Errors


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (failure(-1005, "slow down, token"), PlatformThrottledError),
        (failure("-1005"), PlatformThrottledError),
        (failure(-1008, "参数(token)为空"), AuthFailedError),
        (failure(-1, "Invalid Token"), AuthFailedError),
        (failure(-9, "busy"), PlatformUnavailableError),
        (failure(-1, "分群不存在"), PlatformRefusedError),
        (failure(-1008, "参数(projectId)为空"), PlatformRefusedError),
        (failure(True), PlatformMalformedError),
        (json_replied({"data": {}}), PlatformMalformedError),
        (json_replied([]), PlatformMalformedError),
        (replied("<html>", 504, "text/html"), PlatformUnavailableError),
        (replied("<html>", 200, "text/html"), PlatformMalformedError),
        (success(7), PlatformMalformedError),
        (echoed, PlatformUnavailableError),
        (replied(status=302, headers={"Location": f"/login?token={CANARY}"}), PlatformRefusedError),
        (failure(-1, f"GET /open?token={CANARY}"), PlatformRefusedError),
        (failure(-1, "token=canary-Token%2Bwith%2fodd%3Dsigns"), PlatformRefusedError),
    ],
)
async def test_error_response_raises_matching_error_without_token(reply: Reply, error: type[StepError]) -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server, retry_codes=[-9]) as ta:
        server.on(DETAIL, reply)
        with pytest.raises(error) as caught:
            await ta.submit(CLUSTER)
    assert type(caught.value) is error
    assert "canary" not in repr(caught.value)
    assert "canary" not in repr(caught.value.__cause__)


async def test_token_that_is_refused_with_status_200_is_read_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TA_TOKEN", "token-1")
    async with ScriptedServer() as server, thinkingdata_driver(server, token="env:TA_TOKEN") as ta:
        monkeypatch.setenv("TA_TOKEN", "token-2")
        server.on(DETAIL, failure(-1008, "token无效"), detail())
        server.on(SUBMIT_SQL, failure(-1008, "token无效"))
        with pytest.raises(AuthFailedError):
            await ta.submit(CLUSTER.model_copy(update={"refresh": False}))
    assert [seen.target.rpartition("token=")[2] for seen in server.asked(DETAIL)] == ["token-1", "token-2"]
    assert len(server.asked(SUBMIT_SQL)) == 1


async def test_error_of_unreachable_platform_shows_no_token() -> None:
    async with ScriptedServer() as server:
        pass
    async with thinkingdata_driver(server) as ta:
        with pytest.raises(PlatformUnavailableError) as caught:
            await ta.submit(CLUSTER)
    assert "canary" not in repr(caught.value)


# Submits that the platform may have received

UNCLEAR_ANSWERS = {
    "a task id that is no id": success({"taskId": [17]}),
    "no task id": success({}),
    "no object": success([]),
    "no envelope": replied("{}"),
    "a temporary failure": failure(-9, "busy"),
    "a gateway's timeout": replied("", 504),
}
CLEAR_ANSWERS = {"a refusal": failure(-1, "no such table"), "too many calls": failure(-1005, "slow down")}


@pytest.mark.parametrize(
    ("answer", "unclear"),
    [*((answer, True) for answer in UNCLEAR_ANSWERS.values()), *((answer, False) for answer in CLEAR_ANSWERS.values())],
    ids=[*UNCLEAR_ANSWERS, *CLEAR_ANSWERS],
)
async def test_answer_to_a_query_shows_whether_it_may_have_started(answer: Reply, *, unclear: bool) -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server, retry_codes=[-9]) as ta:
        server.on(DETAIL, LATER)
        server.on(PROGRESS, progress_reply(100))
        server.on(SUBMIT_SQL, answer)
        with pytest.raises(StepError) as caught:
            await ta.poll(CLUSTER, STARTED)
    assert caught.value.unclear is unclear


async def test_answer_that_is_read_before_a_refresh_is_never_unclear() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on(DETAIL, replied("", 504))
        with pytest.raises(StepError) as caught:
            await ta.submit(CLUSTER)
    assert not caught.value.unclear


# The result


async def read(*pages: Reply, info: dict[str, Any] | None = None, file_format: Any = "csv", **options: Any) -> bytes:
    export = CLUSTER.model_copy(update={"file_format": file_format, "columns": ["a"]})
    async with ScriptedServer() as server, thinkingdata_driver(server, **options) as ta:
        server.on(TASK_INFO, success(info or stat()))
        server.on(PAGE, *pages)
        async with ta.open_result(export, FILE) as download:
            assert download.total_bytes is None
            return b"".join([chunk async for chunk in download.chunks()])


async def test_pages_are_requested_by_number_from_zero() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on(TASK_INFO, success(stat(3, 3)))
        server.on(PAGE, replied("1,1,1\n"))
        async with ta.open_result(CLUSTER, FILE) as download:
            chunks = [chunk async for chunk in download.chunks()]
    assert b"".join(chunks) == b"#account_id,#distinct_id,#user_id\n1,1,1\n1,1,1\n1,1,1\n"
    pages = [seen.target for seen in server.asked(PAGE)]
    assert [target.partition("&token=")[0] for target in pages] == [
        f"{PAGE}?taskId=t-1&pageId={number}" for number in range(3)
    ]


@pytest.mark.parametrize(
    ("info", "content"),
    [
        (stat(headers=["x", "y"]), b"x,y\n1,2\n3,4\n"),
        (stat(headers=None), b"a,#user_id\n1,2\n3,4\n"),
        (stat(headers=['x"', "y,"]), b'"x""","y,"\n1,2\n3,4\n'),
        (stat("2", "1"), b"a,#user_id\n1,2\n3,4\n"),
        (stat(pages=None), b"a,#user_id\n1,2\n3,4\n"),
        (stat(pages=0), b"a,#user_id\n1,2\n3,4\n"),
    ],
)
async def test_result_header_and_page_count_follow_announcement(info: dict[str, Any], content: bytes) -> None:
    assert await read(replied("1,2\n3,4"), info=info) == content


async def test_json_result_has_one_object_a_line_with_unchanged_values() -> None:
    page = replied('{"return_code":0,"data":{"headers":[]}}\n["a\\u4e2d", 1.10 ]\r\n[null,12345678901234567890]')
    content = await read(page, file_format="json")
    assert content == b'{"a":"a\\u4e2d","#user_id":1.10}\n{"a":null,"#user_id":12345678901234567890}\n'


@pytest.mark.parametrize(
    ("page", "error"),
    [
        (replied("1,2\n"), DownloadInterruptedError),
        (replied("1,2\n3,4\n5,6\n"), DownloadInterruptedError),
        (replied('1,2\n"3\n",4\n5,6\n'), DownloadInterruptedError),
        (failure(-1008), ResultMissingError),
        (failure(-1, "任务不存在"), ResultMissingError),
        (failure(-1, "内部错误"), ResultMissingError),
        (replied('{\n "return_code": -1,\n "return_message": "x"\n}\n'), ResultMissingError),
        (replied('1,2\n{"return_code": -1, "return_message": "x"}\n'), ResultMissingError),
        (failure(-1008, f"参数(token)无效 {CANARY}"), AuthFailedError),
        (replied(status=404), ResultMissingError),
        (replied("<html>", content_type="text/html"), DownloadInvalidError),
        (replied(" <!DOCTYPE html><html>", content_type="text/plain"), DownloadInvalidError),
        (replied("<html>", 504, "text/html"), PlatformUnavailableError),
        (failure(-1005), PlatformThrottledError),
        (echoed, PlatformUnavailableError),
    ],
)
async def test_response_that_is_no_page_raises_matching_error(page: Reply, error: type[StepError]) -> None:
    with pytest.raises(error) as caught:
        await read(page, page_retries=1)
    assert "canary" not in repr(caught.value)


async def test_page_is_retried_after_temporary_failure() -> None:
    content = await read(failure(-1005), replied(status=503), replied("1,2\n3,4"))
    assert content == b"a,#user_id\n1,2\n3,4\n"


@pytest.mark.parametrize(
    ("info", "error"),
    [
        ({"status": "RUNNING"}, ResultMissingError),
        ({"status": "FINISHED"}, PlatformMalformedError),
        (stat(rows=None), PlatformMalformedError),
        (stat(rows=None, pages=None), PlatformMalformedError),
        (stat(rows=-1), PlatformMalformedError),
        (stat(pages=True), PlatformMalformedError),
    ],
)
async def test_unusable_announcement_raises(info: dict[str, Any], error: type[StepError]) -> None:
    with pytest.raises(error):
        await read(replied("1,2\n"), info=info)


async def test_missing_row_count_is_accepted_if_not_required() -> None:
    content = await read(replied("1,2\n"), info=stat(rows=None), row_count_required=False)
    assert content == b"a,#user_id\n1,2\n"


async def test_open_result_of_expired_task_raises_result_missing() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on(TASK_INFO, failure(-1, "expired"))
        with pytest.raises(ResultMissingError):
            async with ta.open_result(CLUSTER, FILE):
                pass


async def test_only_next_page_is_opened_ahead() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on(TASK_INFO, success(stat(4, 4)))
        server.on(PAGE, replied("1,2,3\n"))
        async with ta.open_result(CLUSTER, FILE) as download:
            chunks = download.chunks()
            assert isinstance(chunks, AsyncGenerator)
            await anext(chunks)
            await anext(chunks)
            async with asyncio.timeout(5):
                while len(server.asked(PAGE)) < 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert len(server.asked(PAGE)) == 2
            await chunks.aclose()


# The catalog


def listing(*names: str, total: Any = 3) -> Reply:
    clusters = [{"clusterName": name, "id": number} for number, name in enumerate(names)]
    return success({"pagerResult": {"totalNum": total}, "userClusters": clusters})


async def test_catalog_reads_all_pages() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server, list_page_size=2) as ta:
        server.on("/open/user-cluster-list", listing("a", "b"), listing("c"))
        assert [item["clusterName"] for item in await ta.catalog("tags", "102")] == ["a", "b", "c"]
    first, second = server.seen
    assert first.json["pagerHeader"] == {"pageNum": 1, "pageSize": 2}
    assert second.json["pagerHeader"] == {"pageNum": 2, "pageSize": 2}
    assert first.json["clusterCatalog"] == "catalog_tag"
    assert first.json["projectId"] == 102
    assert all(kind.startswith("tag_") for kind in first.json["clusterTypes"])


async def test_catalog_of_clusters_lists_both_catalogs() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on("/open/user-cluster-list", listing("a", total=1), listing("t", total=1))
        assert [item["clusterName"] for item in await ta.catalog("clusters", "102")] == ["a", "t"]
    assert [seen.json["clusterCatalog"] for seen in server.seen] == ["catalog_cluster", "catalog_tag"]


@pytest.mark.parametrize("total", [None, 99, "3"])
async def test_catalog_of_server_without_paging_ends(total: Any) -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server, list_page_size=2) as ta:
        server.on("/open/user-cluster-list", listing("a", "b", "c", total=total))
        assert len(await ta.catalog("tags", "102")) == 3
    assert len(server.seen) <= 2


@pytest.mark.parametrize(
    ("resource", "project", "problem"),
    [
        ("segments", "102", "resource: must be one of clusters, tags"),
        ("clusters", None, "project: is required"),
        ("clusters", "1' or", "project: must be a number"),
        ("tags", "٣", "project: must be a number"),
    ],
)
async def test_catalog_refuses_wrong_arguments_before_any_request(
    resource: str, project: str | None, problem: str
) -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        with pytest.raises(InvalidRequestError, match=problem):
            await ta.catalog(resource, project)
    assert server.seen == []

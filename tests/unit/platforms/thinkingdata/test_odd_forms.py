"""Forms in which ThinkingData's servers write ids, numbers and statuses beside those of its document."""

from typing import Any

import pytest

from export_worker.contract.request import ThinkingdataClusterUsers
from export_worker.errors import InvalidRequestError, PlatformMalformedError, PlatformRefusedError
from export_worker.lifecycle.observations import OperationFailed, Pending, Ready, RemoteFile
from export_worker.platforms.arguments import check_arguments, find_operation
from export_worker.platforms.base import Cancelling
from export_worker.platforms.thinkingdata.operations import OPERATIONS
from support.drivers import query_of, thinkingdata_driver
from support.scripted_server import Reply, ScriptedServer, json_replied, replied

CLUSTER = ThinkingdataClusterUsers(project_id=102, cluster_id=970, refresh=False)
SQL_ID = "sql?task=17&cluster=recent"
FILE = RemoteFile("/open/sql-result-page?taskId=17", "recent.csv")
CANCEL = "/open/cancel-sql-task"


def success(data: Any = None, code: Any = 0) -> Reply:
    return json_replied({"return_code": code, "return_message": "success", "data": data})


@pytest.mark.parametrize("task_id", [17, 17.0, "17", " 17 "])
async def test_task_id_that_is_a_number_is_its_digits(task_id: Any) -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on("/open/user-cluster-detail", success({"clusterName": "recent"}))
        server.on("/open/submit-sql", success({"taskId": task_id}))
        assert (await ta.submit(CLUSTER)).operation_id == SQL_ID


@pytest.mark.parametrize("code", [0.0, "0", " 0 ", "0.0"])
async def test_return_code_in_any_form_of_zero_is_success(code: Any) -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on("/open/sql-task-info", success({"status": "RUNNING"}, code))
        assert await ta.poll(CLUSTER, SQL_ID) == Pending("RUNNING")


@pytest.mark.parametrize("status", ["finished", " Finished", "FINISHED "])
async def test_result_is_read_with_any_form_of_its_status_and_counts(status: str) -> None:
    stat = {"rowCount": 2.0, "pageCount": "1.0", "pageSize": 1000.0}
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on("/open/sql-task-info", success({"status": status, "resultStat": stat}))
        server.on("/open/sql-result-page", replied("1,2,3\n4,5,6\n"))
        assert await ta.poll(CLUSTER, SQL_ID) == Ready(status, (FILE,))
        async with ta.open_result(CLUSTER, FILE) as download:
            assert b"".join([chunk async for chunk in download.chunks()]).endswith(b"1,2,3\n4,5,6\n")


async def test_failed_query_is_recognized_in_small_letters() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on("/open/sql-task-info", success({"status": "failed"}))
        assert isinstance(await ta.poll(CLUSTER, SQL_ID), OperationFailed)


@pytest.mark.parametrize(("cluster_id", "users"), [("970", "2500"), (970.0, 2500.0), (" 970 ", "2500.0")])
async def test_preview_reads_id_and_number_of_users_in_any_form(cluster_id: Any, users: Any) -> None:
    export = ThinkingdataClusterUsers(project_id=102, cluster_name="recent")
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on("/open/user-cluster-detail", success({"id": cluster_id, "usersNum": users}))
        preview = await ta.preview(export)
    assert (preview.ids, preview.users) == ({"cluster_id": "970"}, 2500)


@pytest.mark.parametrize("total", [3.0, "3", "3.0"])
async def test_listing_ends_at_its_total_in_any_form(total: Any) -> None:
    pages = [[{"id": number} for number in range(start, end)] for start, end in ((0, 2), (2, 3))]
    replies = [success({"pagerResult": {"totalNum": total}, "userClusters": page}) for page in pages]
    async with ScriptedServer() as server, thinkingdata_driver(server, list_page_size=2) as ta:
        server.on("/open/user-cluster-list", *replies)
        assert len(await ta.catalog("tags", "102")) == 3
    assert len(server.seen) == 2


async def test_listing_without_its_field_is_an_error() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on("/open/user-cluster-list", success({"clusters": []}))
        with pytest.raises(PlatformMalformedError, match="the response has no userClusters"):
            await ta.catalog("tags", "102")


def test_blanks_around_names_are_removed() -> None:
    export = ThinkingdataClusterUsers(project_id=102, cluster_name=" recent_7_days_consume ")
    assert export.cluster_name == "recent_7_days_consume"
    operation = find_operation(OPERATIONS, "delete-by-name")
    assert check_arguments(operation, ["projectId=102", "clusterName= buyers"])["clusterName"] == "buyers"
    body = b'{"projectId": 102, "clusterName": " buyers", "displayName": "b"}'
    assert check_arguments(find_operation(OPERATIONS, "add"), [], body)["clusterName"] == "buyers"
    with pytest.raises(InvalidRequestError, match="clusterName: must not be empty"):
        check_arguments(operation, ["projectId=102", "clusterName= "])


# The project in calls of the SQL API


@pytest.mark.parametrize("sent", [False, True])
async def test_project_is_sent_with_every_call_of_the_sql_api_if_the_setting_says_so(*, sent: bool) -> None:
    stat = {"rowCount": 1, "pageCount": 1, "pageSize": 1000}
    async with ScriptedServer() as server, thinkingdata_driver(server, send_project_id=sent) as ta:
        server.on("/open/submit-sql", success({"taskId": "17"}))
        server.on("/open/sql-task-info", success({"status": "FINISHED", "resultStat": stat}))
        server.on("/open/sql-result-page", replied("1,2,3\n"))
        server.on(CANCEL, success())
        await ta.submit(CLUSTER.model_copy(update={"cluster_id": None, "cluster_name": "recent"}))
        await ta.poll(CLUSTER, SQL_ID)
        async with ta.open_result(CLUSTER, FILE) as download:
            [_ async for _ in download.chunks()]
        await ta.cancel(CLUSTER, SQL_ID)
    assert len(server.seen) == 5
    assert [query_of(seen).get("projectId") for seen in server.seen] == [["102"] if sent else None] * 5


# Cancelling


async def test_cancel_sends_the_task_as_form() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        assert isinstance(ta, Cancelling)
        server.on(CANCEL, success())
        assert await ta.cancel(CLUSTER, SQL_ID) is True
    [seen] = server.seen
    assert (seen.method, seen.form) == ("POST", {"taskId": ["17"]})
    assert seen.headers["Content-Type"] == "application/x-www-form-urlencoded"


async def test_refresh_cannot_be_cancelled_and_no_request_is_sent() -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        assert await ta.cancel(CLUSTER, "refresh?cluster=recent&before=") is False
    assert server.seen == []


@pytest.mark.parametrize(("code", "raises"), [(-1008, False), (-1, True)])
async def test_task_that_no_longer_exists_counts_as_cancelled(code: int, *, raises: bool) -> None:
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on(CANCEL, success(code=code))
        if raises:
            with pytest.raises(PlatformRefusedError):
                await ta.cancel(CLUSTER, SQL_ID)
        else:
            assert await ta.cancel(CLUSTER, SQL_ID) is True

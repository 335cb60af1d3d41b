"""The Sensors Data driver against a scripted server: the requests that it sends, and the results of responses."""

from typing import Any

import pytest

from export_worker.contract.request import GrowingioTagUsers, SensorsdataUserGroupUsers
from export_worker.credentials import Redactor
from export_worker.errors import (
    AuthFailedError,
    ConfigError,
    DownloadInterruptedError,
    DownloadInvalidError,
    InvalidRequestError,
    OperationFailedError,
    PlatformError,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformThrottledError,
)
from export_worker.lifecycle.observations import Pending, Ready, RemoteFile
from export_worker.platforms.base import Catalog, Driver
from export_worker.platforms.operations import Operations
from export_worker.platforms.sensorsdata.driver import SensorsdataDriver
from export_worker.platforms.settings import ConnectionSettings
from support.drivers import query_of, sensorsdata_driver
from support.scripted_server import CANARY, Reply, ScriptedServer, echoed, json_replied, replied

API_KEY = "#K-canary+key/with=signs-0123456789"
GROUPS = "/api/v2/user_groups"
GROUP, STATUS, EXECUTE = f"{GROUPS}/42", f"{GROUPS}/42/status", f"{GROUPS}/42/execute"
SQL_V2, SQL_V3 = "/api/sql/query", "/api/v3/analytics/v1/model/sql/query"
BASE_TIME = "2019-03-05 00:00:00"
EXPORT = SensorsdataUserGroupUsers(group_id=42)
USERS = RemoteFile("user-group:42?name=vip&user_count=2", "vip.csv")
SUCCEED = {"base_time": BASE_TIME, "status": "SUCCEED", "start_time": "a", "finished_time": "b", "user_count": 2}
DESCRIBED = {"id": 42, "name": "vip", "last_succeed_partition": SUCCEED}


async def listed_users(
    reply: Reply, export: SensorsdataUserGroupUsers = EXPORT, path: str = SQL_V2, **options: Any
) -> bytes:
    """Returns the file that the driver creates from the responses to its queries."""
    async with ScriptedServer() as server, sensorsdata_driver(server, **options) as sensors:
        server.on(path, reply, replied(""))
        async with sensors.open_result(export, USERS) as download:
            assert download.total_bytes is None
            return b"".join([chunk async for chunk in download.chunks()])


async def test_driver_implements_catalog_and_operations() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        as_driver: Driver = sensors
        assert isinstance(as_driver, Catalog)
        assert isinstance(as_driver, Operations)


async def test_submit_records_partitions_then_executes_group() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        server.on(GROUP, json_replied(DESCRIBED))
        server.on(STATUS, json_replied([SUCCEED]))
        server.on(EXECUTE, json_replied({}))
        submitted = await sensors.submit(EXPORT)
        assert not submitted.done
        assert await sensors.poll(EXPORT, submitted.operation_id) == Pending("SUCCEED")
        server.on(STATUS, json_replied([{**SUCCEED, "finished_time": "c"}]))
        polled = await sensors.poll(EXPORT, submitted.operation_id)
    assert polled == Ready("SUCCEED", (USERS,))
    assert [(seen.method, seen.target.partition("?")[0]) for seen in server.seen[:3]] == [
        ("GET", GROUP),
        ("GET", STATUS),
        ("POST", EXECUTE),
    ]
    assert all(query_of(seen) == {"token": [CANARY], "project": ["default"]} for seen in server.seen)
    assert CANARY not in submitted.operation_id


async def test_api_key_is_sent_in_headers() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server, api_key=API_KEY, account_id="7") as sensors:
        server.on(GROUP, json_replied(DESCRIBED))
        assert (await sensors.submit(SensorsdataUserGroupUsers(group_id=42, execute=False))).done
    [seen] = server.seen
    assert seen.target == GROUP
    sent = {name: seen.headers[name] for name in ("api-key", "sensorsdata-project", "account-id")}
    assert sent == {"api-key": API_KEY, "sensorsdata-project": "default", "account-id": "7"}


async def test_with_both_secrets_groups_use_token_and_queries_use_api_key() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server, token=CANARY, api_key=API_KEY) as sensors:
        server.on(GROUP, json_replied(DESCRIBED))
        server.on(SQL_V3, json_replied({"code": "SUCCESS", "data": {"data": [[1, "a", "b"], [2, "c", "d"]]}}))
        await sensors.submit(SensorsdataUserGroupUsers(group_id=42, execute=False))
        async with sensors.open_result(EXPORT, USERS) as download:
            content = b"".join([chunk async for chunk in download.chunks()])
    group, sql = server.seen
    assert query_of(group)["token"] == [CANARY]
    assert "api-key" not in group.headers
    assert (sql.target, sql.headers["api-key"]) == (SQL_V3, API_KEY)
    assert content == b"id,first_id,second_id\n1,a,b\n2,c,d\n"


@pytest.mark.parametrize(("location", "in_body"), [("json", True), ("query", False)])
async def test_base_times_are_sent_in_configured_location(location: str, in_body: bool) -> None:
    times = [BASE_TIME, "2019-03-06 00:00:00"]
    export = SensorsdataUserGroupUsers(group_id=42, base_times=times)
    async with (
        ScriptedServer() as server,
        sensorsdata_driver(server, execute_base_times=location, status_base_times=location) as sensors,
    ):
        server.on(GROUP, json_replied(DESCRIBED))
        server.on(STATUS, json_replied([]))
        server.on(EXECUTE, json_replied({}))
        await sensors.submit(export)
    [status], [execute] = server.asked(STATUS), server.asked(EXECUTE)
    for seen in (status, execute):
        assert query_of(seen).get("base_time_list") == (None if in_body else times)
    assert execute.json == ({"base_time_list": times} if in_body else {})
    assert "base_time_list=2019-03-05%2000%3A00%3A00&base_time_list=" in execute.target or in_body


def test_operation_table_has_every_call_of_document() -> None:
    operations = SensorsdataDriver.operations.values()
    calls = {(item.method, item.path): item.deletes for item in operations if "horizon" not in item.path}
    group = "/v2/user_groups/{id}"
    assert calls == {
        ("GET", "/v2/user_groups"): False,
        ("GET", group): False,
        ("POST", f"{group}/execute"): False,
        ("GET", f"{group}/status"): False,
        ("DELETE", group): True,
        ("POST", "/sql/query"): False,
    }


async def test_sql_operation_returns_rows() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        server.on(SQL_V2, replied('{"n": 1}\n{"n": 2}\n'))
        assert await sensors.call(sensors.operations["sql-query"], {"sql": "SELECT 1"}, None) == [{"n": 1}, {"n": 2}]
    assert server.seen[0].form == {"q": ["SELECT 1"], "format": ["json"]}
    async with ScriptedServer() as server, sensorsdata_driver(server, api_key=API_KEY) as sensors:
        server.on(SQL_V3, json_replied({"code": "SUCCESS", "data": {"columns": ["n"], "data": [1]}}))
        arguments = {"sql": "SELECT 1", "limit": 5, "request_id": "r"}
        assert await sensors.call(sensors.operations["sql-query"], arguments, None) == [{"n": 1}]
    assert server.seen[0].json == {"sql": "SELECT 1", "limit": "5", "request_id": "r"}


async def test_open_result_sends_query() -> None:
    statement = (
        "SELECT `id`, `first_id`, `second_id` FROM `users` WHERE `user_group_vip` = 1 "
        "ORDER BY `id` LIMIT 10000 /*MAX_QUERY_EXECUTION_TIME=1800*/"
    )
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        server.on(SQL_V2, replied('{"id": 1}\n{"id": 2, "first_id": "x"}'))
        async with sensors.open_result(EXPORT, USERS) as download:
            assert b"".join([chunk async for chunk in download.chunks()]) == b"id,first_id,second_id\n1,,\n2,x,\n"
    [seen] = server.seen
    assert seen.form == {"q": [statement], "format": ["json"]}
    async with ScriptedServer() as server, sensorsdata_driver(server, api_key=API_KEY) as sensors:
        server.on(SQL_V3, json_replied({"code": "SUCCESS", "data": {"data": [[1, "a", "b"], [2, "c", "d"]]}}))
        async with sensors.open_result(EXPORT, USERS) as download:
            assert [chunk async for chunk in download.chunks()]
    [seen] = server.seen
    assert seen.json == {"sql": statement, "limit": "10000"}


async def test_query_uses_configured_table_columns_and_comment() -> None:
    async with (
        ScriptedServer() as server,
        sensorsdata_driver(
            server, table="rawdata.people", key_column="pid", group_column="g_{name}", sql_comment="", columns=["a"]
        ) as sensors,
    ):
        server.on(SQL_V2, replied('{"pid": 1, "a": "x"}\n{"pid": 2}\n'))
        async with sensors.open_result(EXPORT, USERS) as download:
            assert b"".join([chunk async for chunk in download.chunks()]) == b'a\nx\n""\n'
    statement = "SELECT `pid`, `a` FROM `rawdata`.`people` WHERE `g_vip` = 1 ORDER BY `pid` LIMIT 10000"
    assert server.seen[0].form["q"] == [statement]


@pytest.mark.parametrize("rows", ['{"id": 2}\n{"id": 1}\n', '{"id": 1}\n{"id": 1}\n', '{"id": "x"}\n'])
async def test_rows_out_of_key_order_raise_invalid(rows: str) -> None:
    with pytest.raises(DownloadInvalidError):
        await listed_users(replied(rows))


async def test_listing_of_server_that_ignores_key_range_raises() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server, page_rows=1) as sensors:
        server.on(SQL_V2, replied('{"id": 1}\n'))
        async with sensors.open_result(EXPORT, USERS) as download:
            with pytest.raises(DownloadInvalidError, match="order"):
                assert [chunk async for chunk in download.chunks()]


@pytest.mark.parametrize("rows", ["", '{"id": 1}', '{"id": 1}\n{"id": 2}\n{"id": 3}\n'])
async def test_user_list_of_wrong_length_raises_interrupted(rows: str) -> None:
    with pytest.raises(DownloadInterruptedError, match="where the group has 2"):
        await listed_users(replied(rows))
    assert await listed_users(replied(rows), check_user_count=False)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (replied("<html>login", content_type="text/html"), DownloadInvalidError),
        (json_replied({"error": "no such column"}), DownloadInvalidError),
        (json_replied({"error": "no"}, status=400), PlatformRefusedError),
        (replied("no", status=403), AuthFailedError),
        (replied("slow", status=429), PlatformThrottledError),
        (replied("x" * 9_000_000), DownloadInvalidError),
    ],
)
async def test_response_that_is_no_user_list_raises_matching_error(reply: Reply, error: type[Exception]) -> None:
    with pytest.raises(error):
        await listed_users(reply)


async def test_rows_that_are_labelled_as_html_are_not_quoted() -> None:
    with pytest.raises(DownloadInvalidError, match="HTML where rows were expected: 35 bytes, not quoted") as caught:
        await listed_users(replied("phone,name\n13800000000,Zhang Denied", content_type="text/html"))
    assert "13800000000" not in str(caught.value)


async def test_secret_in_error_line_is_masked_before_truncation() -> None:
    for begin in range(150, 420, 9):
        line = f'{{"error": "{"x" * begin} {CANARY} {"y" * 300}"}}'
        with pytest.raises(DownloadInvalidError) as caught:
            await listed_users(replied(line))
        assert CANARY[:7] not in str(caught.value)


@pytest.mark.parametrize("reply", [echoed])
async def test_secret_in_error_page_is_masked(reply: Reply) -> None:
    for options, secret in (({"token": CANARY}, CANARY), ({"api_key": API_KEY}, API_KEY)):
        async with ScriptedServer() as server, sensorsdata_driver(server, **options) as sensors:
            for path in (GROUP, STATUS, EXECUTE, GROUPS, SQL_V2, SQL_V3):
                server.on(path, reply)
            with pytest.raises(PlatformError) as caught:
                await sensors.submit(EXPORT)
            assert secret not in str(caught.value)
            assert "canary" not in str(caught.value)


@pytest.mark.parametrize("response", [{"error": "group is locked"}, {"code": "INVALID_ARGUMENT", "message": "no"}])
async def test_execute_response_with_error_and_status_200_raises_refused(response: dict[str, Any]) -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        server.on(GROUP, json_replied(DESCRIBED))
        server.on(STATUS, json_replied([]))
        server.on(EXECUTE, json_replied(response))
        with pytest.raises(PlatformRefusedError, match="execute"):
            await sensors.submit(EXPORT)


async def test_empty_execute_response_is_accepted() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        server.on(GROUP, json_replied(DESCRIBED))
        server.on(STATUS, json_replied([]))
        server.on(EXECUTE, replied(""))
        assert (await sensors.submit(EXPORT)).operation_id


async def test_group_with_unquotable_name_is_refused_before_execute() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        server.on(GROUP, json_replied({"id": 42, "name": "a` OR 1=1"}))
        with pytest.raises(PlatformRefusedError):
            await sensors.submit(EXPORT)
    assert [seen.method for seen in server.seen] == ["GET"]


async def test_group_that_was_never_computed_is_refused_without_execute() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        server.on(GROUP, json_replied({"id": 42, "name": "vip"}))
        with pytest.raises(OperationFailedError, match="execute"):
            await sensors.submit(SensorsdataUserGroupUsers(group_id=42, execute=False))


async def test_kind_of_other_platform_is_refused() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        with pytest.raises(PlatformRefusedError, match=r"growingio\.tag_users"):
            await sensors.submit(GrowingioTagUsers(tag_key="a"))


async def test_catalog_lists_user_groups_and_refuses_wrong_arguments() -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server) as sensors:
        server.on(GROUPS, json_replied([DESCRIBED]), json_replied({"data": []}), json_replied(["vip"]))
        assert await sensors.catalog("user-groups", None) == [DESCRIBED]
        for _ in range(2):
            with pytest.raises(PlatformMalformedError):
                await sensors.catalog("user-groups", None)
        for resource, project in (("tags", None), ("user-groups", "other")):
            with pytest.raises(InvalidRequestError):
                await sensors.catalog(resource, project)


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({}, "one of token"),
        ({"token": "t", "client_secret": "c"}, "client_secret"),
        ({"token": "t", "page_rows": -1}, "page_rows"),
        ({"token": "t", "table": "a`b"}, "table"),
        ({"token": "t", "group_column": "no_name"}, "group_column"),
        ({"token": "t", "columns": []}, "columns"),
        ({"token": "t", "sql_comment": "; DROP TABLE users"}, "sql_comment"),
        ({"token": "t", "sql_silence_s": 1800}, "sql_silence_s must exceed the limit in sql_comment"),
        ({"token": "t", "api_prefix": "api/"}, "api_prefix"),
        ({"token": "t", "tokn": "canary-misspelt"}, "tokn"),
        ({"api_key": "line\nend"}, "api_key"),
    ],
)
def test_wrong_setting_is_refused_with_its_name(options: dict[str, Any], setting: str) -> None:
    settings = ConnectionSettings.model_validate({"platform": "sensorsdata", "base_url": "http://a.cn", **options})
    with pytest.raises(ConfigError, match=r"connections\.sensors") as caught:
        SensorsdataDriver("sensors", settings, Redactor())
    assert setting in str(caught.value)
    assert "canary" not in str(caught.value)

"""Values of tags of each type, and members by texts: the driver's statements against the simulated tables."""

import csv
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from export_worker.contract.request import ThinkingdataClusterUsers
from export_worker.credentials import Redactor
from export_worker.lifecycle.observations import Ready, RemoteFile
from export_worker.platforms.settings import ConnectionSettings
from export_worker.platforms.thinkingdata.driver import ThinkingdataDriver
from export_worker.simulator.server import Simulator
from support.drivers import thinkingdata_driver
from support.scripted_server import ScriptedServer, json_replied, replied


async def exported(settings: dict[str, Any], **export: Any) -> list[dict[str, str]]:
    """Exports a cluster or tag of the simulator without a refresh, and returns its rows."""
    request = ThinkingdataClusterUsers(project_id=102, refresh=False, **export)
    async with Simulator.start() as simulator:
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": 0.0})
        own = {"platform": "thinkingdata", "base_url": simulator.url, "token": "sim-token", **settings}
        ta = ThinkingdataDriver("ta", ConnectionSettings.model_validate(own), Redactor())
        async with AsyncExitStack() as stack:
            stack.push_async_callback(ta.close)
            polled = await ta.poll(request, (await ta.submit(request)).operation_id)
            assert isinstance(polled, Ready)
            async with ta.open_result(request, polled.files[0]) as download:
                text = b"".join([chunk async for chunk in download.chunks()]).decode()
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.parametrize(
    ("name", "tag_type", "has_values"),
    [
        ("tag_20200615_1", None, True),
        ("tag_20200615_1", "text", True),
        ("tag_20200615_1", "number", False),
        ("tag_vip_level", "number", True),
        ("tag_vip_level", None, False),
        ("tag_last_pay", "time", True),
    ],
)
async def test_values_of_a_tag_come_from_the_column_of_their_type(
    name: str, tag_type: str | None, *, has_values: bool
) -> None:
    rows = await exported({}, cluster_name=name, catalog="tag", tag_type=tag_type)
    assert list(rows[0]) == ["#account_id", "#distinct_id", "#user_id", "tag_value"]
    assert all(bool(row["tag_value"]) is has_values and row["#user_id"] for row in rows)


@pytest.mark.parametrize(
    ("settings", "request_key", "finds"),
    [({}, None, False), ({}, "#account_id", True), ({"join_key": "#account_id"}, None, True)],
)
async def test_members_by_texts_are_found_by_the_join_key(
    settings: dict[str, Any], request_key: str | None, *, finds: bool
) -> None:
    rows = await exported(settings, cluster_name="cohort_uploaded", join_key=request_key)
    assert list(rows[0]) == ["#account_id", "#distinct_id", "#user_id"]
    assert all(all(row.values()) is finds for row in rows)


async def test_member_that_is_no_user_keeps_its_text() -> None:
    request = ThinkingdataClusterUsers(project_id=7, cluster_name="c", refresh=False, join_key="vip id", columns=["a"])
    async with ScriptedServer() as server, thinkingdata_driver(server) as ta:
        server.on("/open/submit-sql", json_replied({"return_code": 0, "data": {"taskId": "1"}}))
        await ta.submit(request)
    assert server.seen[0].form["sql"][0] == (
        'SELECT u."a", c."#varchar_id" AS "vip id", u."#user_id" FROM ta.user_result_cluster_7 c '
        'LEFT JOIN ta.v_user_7 u ON c."#varchar_id" = CAST(u."vip id" AS varchar) WHERE c.cluster_name = \'c\''
    )


@pytest.mark.parametrize(
    ("file_format", "page", "expected"),
    [
        ("csv", '1,"[""a"",""b""]"\n', b'#user_id,tag_value\n1,"[""a"",""b""]"\n'),
        ("json", '[1,["a","b"]]\n', b'{"#user_id":1,"tag_value":["a","b"]}\n'),
    ],
)
async def test_lists_are_values_of_one_column(file_format: Any, page: str, expected: bytes) -> None:
    request = ThinkingdataClusterUsers(
        project_id=7,
        cluster_name="c",
        refresh=False,
        catalog="tag",
        tag_type="list",
        columns=["#user_id"],
        file_format=file_format,
    )
    stat = {"rowCount": 1, "pageCount": 1, "pageSize": 1000}
    info = {"return_code": 0, "data": {"status": "FINISHED", "resultStat": stat}}
    async with ScriptedServer() as server, thinkingdata_driver(server, list_column="tag_value_list") as ta:
        server.on("/open/submit-sql", json_replied({"return_code": 0, "data": {"taskId": "1"}}))
        server.on("/open/sql-task-info", json_replied(info))
        server.on("/open/sql-result-page", replied(page))
        await ta.submit(request)
        async with ta.open_result(request, RemoteFile("/open/sql-result-page?taskId=1", "c.csv")) as download:
            assert b"".join([chunk async for chunk in download.chunks()]) == expected
    assert 'c."tag_value_list" AS tag_value FROM' in json.dumps(server.seen[0].form["sql"][0]).replace("\\", "")

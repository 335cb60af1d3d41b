"""Sensors Data's current OpenAPI: computations of segments and tags against a scripted server and the simulator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from export_worker.contract.request import ExportKind, SensorsdataSegmentUsers, SensorsdataTagUsers
from export_worker.contract.request import SensorsdataUserGroupUsers as UserGroupUsers
from export_worker.credentials import Redactor
from export_worker.errors import (
    ConfigError,
    OperationFailedError,
    PlatformMalformedError,
    PlatformNotFoundError,
    PlatformRefusedError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready
from export_worker.platforms.conformance import TOKEN, serve_simulator
from export_worker.platforms.sensorsdata.driver import SensorsdataDriver
from export_worker.platforms.sensorsdata.horizon_api import SEGMENT
from export_worker.platforms.sensorsdata.horizon_tasks import (
    Evaluation,
    Task,
    before_of,
    last_task,
    midnight_before,
    newest_version,
    outcome_of,
)
from export_worker.platforms.settings import ConnectionSettings
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support.drivers import sensorsdata_driver
from support.scripted_server import CANARY, ScriptedServer, json_replied

VIP = SensorsdataSegmentUsers(segment_name="user_segment_vip")
LEVEL = SensorsdataTagUsers(tag_name="user_tag_level")
ROOT = "/api/v3/horizon/v1/segment"
DEFINITION = {"code": "SUCCESS", "data": {"name": "user_segment_vip"}}


@asynccontextmanager
async def horizon(**options: Any) -> AsyncIterator[tuple[SensorsdataDriver, World]]:
    """A driver with a connection to the simulator, whose tasks take some polls."""
    async with serve_simulator(lambda app: None) as simulator:
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": 0.01, "rows": 6})
        settings = {"platform": "sensorsdata", "base_url": simulator.url, "api": "horizon", "api_key": TOKEN, **options}
        driver = SensorsdataDriver("sensors", ConnectionSettings.model_validate(settings), Redactor())
        try:
            yield driver, simulator.world
        finally:
            await driver.close()


async def ended(driver: SensorsdataDriver, export: ExportKind, operation_id: str) -> Polled:
    async with asyncio.timeout(20):
        while isinstance(polled := await driver.poll(export, operation_id), Pending):
            await asyncio.sleep(0.01)
    return polled


async def text_of(driver: SensorsdataDriver, export: ExportKind, ready: Polled) -> str:
    assert isinstance(ready, Ready)
    async with driver.open_result(export, ready.files[0]) as download:
        return b"".join([chunk async for chunk in download.chunks()]).decode()


@pytest.mark.parametrize("export", [VIP, LEVEL], ids=["segment", "tag"])
async def test_second_computation_does_not_end_with_the_task_of_the_first(export: ExportKind) -> None:
    async with horizon() as (driver, world):
        first = await driver.submit(export)
        await ended(driver, export, first.operation_id)
        second = await driver.submit(export)
        world.faults.add(Fault(on="poll", fault="stale_succeed", times=3))
        assert second.operation_id != first.operation_id
        assert await driver.poll(export, second.operation_id) == Pending(None)
        assert isinstance(ready := await ended(driver, export, second.operation_id), Ready)
        assert len((await text_of(driver, export, ready)).splitlines()) == 7
        assert len(world.jobs) == 2


async def test_tag_file_has_the_value_as_its_last_column() -> None:
    async with horizon() as (driver, _):
        submitted = await driver.submit(LEVEL)
        ready = await ended(driver, LEVEL, submitted.operation_id)
        assert isinstance(ready, Ready)
        assert ready.files[0].name == "user_tag_level.csv"
        header, *rows = (await text_of(driver, LEVEL, ready)).splitlines()
        assert header == "id,first_id,second_id,user_tag_level"
        assert [row.rpartition(",")[2] for row in rows] == [f"等级{number}" for number in range(6)]
        chosen = LEVEL.model_copy(update={"columns": ["user_tag_level", "id"]})
        assert (await text_of(driver, chosen, ready)).startswith("user_tag_level,id\n")


@pytest.mark.parametrize("export", [VIP, LEVEL], ids=["segment", "tag"])
async def test_export_without_evaluate_has_the_newest_version(export: ExportKind) -> None:
    export = export.model_copy(update={"evaluate": False})
    async with horizon() as (driver, world):
        submitted = await driver.submit(export)
        assert submitted.done
        ready = await driver.poll(export, submitted.operation_id)
        assert len((await text_of(driver, export, ready)).splitlines()) == 4
        assert len(world.jobs) == 0
        assert not await driver.cancel(export, submitted.operation_id)
        for wrong, message in (("user_segment_fresh", "set `evaluate`"), ("user_segment_vip", "the newest is 2019")):
            with pytest.raises(OperationFailedError, match=message):
                await driver.submit(
                    SensorsdataSegmentUsers(segment_name=wrong, evaluate=False, base_time="2018-01-01T16:00:00Z")
                )


async def test_computation_of_a_version_that_could_not_be_queried_is_not_requested() -> None:
    async with horizon() as (driver, world):
        with pytest.raises(OperationFailedError, match=r"newer version.*2019-03-04T16:00:00Z"):
            await driver.submit(VIP.model_copy(update={"base_time": "2019-03-03T16:00:00Z"}))
        assert len(world.jobs) == 0
        await driver.submit(VIP.model_copy(update={"base_time": "2019-03-05T16:00:00Z"}))
        [job] = world.jobs
        assert job.arguments["base_time"] == "2019-03-05T16:00:00Z"


@pytest.mark.parametrize("export", [VIP, LEVEL], ids=["segment", "tag"])
async def test_cancel_ends_the_task_of_this_computation_alone(export: ExportKind) -> None:
    async with horizon() as (driver, world):
        first = await driver.submit(export)
        await ended(driver, export, first.operation_id)
        world.scenario = world.scenario.model_copy(update={"stage_s": 600})
        second = await driver.submit(export)
        assert await driver.cancel(export, second.operation_id)
        polled = await driver.poll(export, second.operation_id)
        assert isinstance(polled, OperationFailed)
        assert "was cancelled" in polled.message
        assert not await driver.cancel(export, second.operation_id)
        cancels = [record.body for record in world.requests if record.target.endswith("/task/cancel")]
        assert cancels == [{"task_ids": [1001], "sync": False}]


async def test_failed_task_is_reported_with_the_reason_of_the_platform() -> None:
    async with horizon() as (driver, world):
        world.faults.add(Fault(on="submit", fault="error_stage"))
        submitted = await driver.submit(VIP)
        polled = await ended(driver, VIP, submitted.operation_id)
    assert polled == OperationFailed(
        "SEGMENT_TASK_FAILED",
        "the platform could not compute the segment: TASK_ERROR: simulated failure of the computation",
    )


async def test_catalog_and_preview() -> None:
    async with horizon() as (driver, _):
        assert [item["name"] for item in await driver.catalog("segments", None)] == [
            "user_segment_vip",
            "user_segment_lost",
            "user_segment_fresh",
        ]
        assert [item["name"] for item in await driver.catalog("tags", None)] == ["user_tag_level", "user_tag_fresh"]
        assert await driver.check() == "3 segments"
        preview = await driver.preview(LEVEL)
        assert (preview.found, preview.name, preview.users) == (True, "会员等级", 3)


async def test_listing_is_read_page_by_page() -> None:
    pages = [[{"name": f"s{number}"} for number in range(start, start + 100)] for start in (0, 100)]
    replies = [{"code": "SUCCESS", "data": {"segment_definitions": page}} for page in (*pages, [{"name": "last"}])]
    async with ScriptedServer() as server, sensorsdata_driver(server, api="horizon", api_key=CANARY) as sensors:
        server.on(f"{ROOT}/definition/list", *map(json_replied, replies))
        assert len(await sensors.catalog("segments", None)) == 201
    assert [seen.json["page"] for seen in server.seen] == [1, 2, 3]


@pytest.mark.parametrize(
    ("envelope", "error", "message"),
    [
        (
            {"code": "INTERNAL", "message": "no", "error_info": {"code": "HZ-1", "description": "rule is gone"}},
            PlatformRefusedError,
            "INTERNAL: no: HZ-1: rule is gone",
        ),
        ({"code": -4, "message": "no"}, PlatformMalformedError, "no envelope"),
        ({"data": {}}, PlatformMalformedError, "no envelope"),
        ([], PlatformMalformedError, "no envelope"),
    ],
)
async def test_envelope_without_success_raises(envelope: Any, error: type[Exception], message: str) -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server, api="horizon", api_key=CANARY) as sensors:
        server.on(f"{ROOT}/definition/get", json_replied(DEFINITION))
        server.on(f"{ROOT}/item/list", json_replied({"code": "SUCCESS", "data": {"items": []}}))
        server.on(f"{ROOT}/task/get", json_replied({"code": "SUCCESS"}))
        server.on(f"{ROOT}/definition/evaluate", json_replied(envelope))
        with pytest.raises(error, match=message) as caught:
            await sensors.submit(VIP)
    assert getattr(caught.value, "unclear", False) == (error is PlatformMalformedError)


def test_base_time_by_default_is_midnight_in_the_zone_of_the_platform() -> None:
    at = datetime(2026, 11, 30, 15, 59, 59, tzinfo=UTC)
    assert midnight_before(at, timedelta(hours=8)) == "2026-11-29T16:00:00Z"
    assert midnight_before(at + timedelta(seconds=1), timedelta(hours=8)) == "2026-11-30T16:00:00Z"
    assert midnight_before(at, timedelta(0)) == "2026-11-30T00:00:00Z"
    assert midnight_before(at, -timedelta(hours=3, minutes=30)) == "2026-11-30T03:30:00Z"


def test_evaluation_is_read_from_its_text() -> None:
    for evaluation in (
        Evaluation("2026-11-30T16:00:00Z", True),
        Evaluation("2026-11-30T16:00:00Z", True, (7, "2026")),
        Evaluation("2026-11-30T16:00:00Z", True, (7, None)),
        Evaluation("2026-11-30T16:00:00Z", False, users=12),
    ):
        assert Evaluation.parse(evaluation.text()) == evaluation
    restarted = Task(7, "SEGMENT_TASK_COMPUTING", "2027")
    assert Evaluation("", True, (7, "2026")).task_of(restarted) is restarted
    with pytest.raises(PlatformNotFoundError):
        Evaluation.parse('{"group_id": 42}')


@pytest.mark.parametrize("number", [7, 7.0, "7"])
def test_numbers_are_read_in_each_form(number: object) -> None:
    tasks = {"tasks": [{"id": number, "segment_task_report": {"count": number}}]}
    assert last_task(SEGMENT, tasks, "") == Task(7, users=7)


@pytest.mark.parametrize("status", ["segment_task_success", " SEGMENT_TASK_SUCCESS"])
def test_status_is_read_in_any_case(status: str) -> None:
    assert isinstance(outcome_of(SEGMENT, Task(7, status)), Task)
    assert before_of(SEGMENT, Task(7, status)) == (7, None)


@pytest.mark.parametrize("base_time", ["2026-11-30", "2026-11-30T16:00:00+08:00", "zzzz", 1764518400000])
def test_version_without_a_usable_base_time_is_refused(base_time: object) -> None:
    versions = {"items": [{"base_time": base_time, "segment_ready": True}]}
    with pytest.raises(PlatformMalformedError, match="base time"):
        newest_version(SEGMENT, versions, "")


async def test_kinds_of_the_other_api_are_refused_with_what_to_do() -> None:
    async with ScriptedServer() as server:
        async with sensorsdata_driver(server) as sensors:
            with pytest.raises(PlatformRefusedError, match=r"api v2.*sensorsdata\.segment_users.*`horizon`"):
                await sensors.submit(VIP)
            assert not await sensors.cancel(UserGroupUsers(group_id=1), "{}")
        async with sensorsdata_driver(server, api="horizon", api_key=CANARY) as sensors:
            with pytest.raises(PlatformRefusedError, match=r"api horizon.*sensorsdata\.user_group_users.*`v2`"):
                await sensors.submit(UserGroupUsers(group_id=1))
    assert server.seen == []


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"token": "t", "api": "horizon"}, "api_key is needed with api horizon"),
        ({"api_key": "k", "api": "v4"}, "api"),
        ({"api_key": "k", "api": "horizon", "utc_offset": "8"}, "utc_offset"),
        ({"api_key": "k", "api": "horizon", "segment_column": "x"}, "segment_column"),
        ({"api_key": "k", "api": "horizon", "segment_condition": "= 1 OR 1"}, "segment_condition"),
    ],
)
def test_wrong_setting_is_refused_with_its_name(options: dict[str, Any], setting: str) -> None:
    settings = ConnectionSettings.model_validate({"platform": "sensorsdata", "base_url": "http://a.cn", **options})
    with pytest.raises(ConfigError, match=r"connections\.sensors") as caught:
        SensorsdataDriver("sensors", settings, Redactor())
    assert setting in str(caught.value)

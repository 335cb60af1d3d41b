"""Exports of Sensors Data's segments and tags through a real worker, with the current OpenAPI (Horizon)."""

import asyncio
import csv
import io
import json
from typing import Any

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import Fault
from export_worker.simulator.sensorsdata.data import users_of
from export_worker.simulator.sensorsdata.horizon_state import HorizonStore
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.simulated_faults import add_fault
from support.worker_site import Site

SEGMENT = {"kind": "sensorsdata.segment_users", "segment_name": "user_segment_vip"}
TAG = {"kind": "sensorsdata.tag_users", "tag_name": "user_tag_level"}


@pytest.fixture
def site(site: Site) -> Site:
    """A site with a connection to Horizon, and few attempts."""
    connection = {
        "platform": "sensorsdata",
        "api": "horizon",
        "base_url": site.platform_url,
        "api_key": secret_canaries.TOKEN,
        "requests_per_second": 1000,
        "poll": worker_site.FAST_POLL,
    }
    retry = {"first_s": 0.02, "max_s": 0.1, "max_attempts": 4}
    site.settings = {"connections": {"horizon": connection}, "retry": retry}
    return site


def request(export: dict[str, Any], **more: Any) -> str:
    return json.dumps({"connection": "horizon", "export": export | more})


def set_scenario(world: World, **scenario: Any) -> None:
    world.scenario = world.scenario.model_copy(update=scenario)


@pytest.mark.parametrize("flaky", [False, True], ids=["good", "flaky"])
@pytest.mark.parametrize(("export", "column"), [(SEGMENT, None), (TAG, "user_tag_level")], ids=["segment", "tag"])
async def test_users_are_computed_and_stored(
    site: Site, world: World, export: dict[str, Any], column: str | None, flaky: bool
) -> None:
    set_scenario(world, flaky=flaky)
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(export))

    assert status.phase is Phase.SUCCEEDED, status.error
    marked = HorizonStore(world).marking(column or "user_segment_vip")
    assert marked is not None
    header, *rows = csv.reader(io.StringIO(site.objects()[status.objects[0].key].decode(), newline=""))
    assert header == ["id", "first_id", "second_id", *([column] if column else [])]
    assert [row[:3] for row in rows] == [
        [str(user["id"]), user["first_id"], user["second_id"] or ""] for user in users_of(marked)
    ]
    assert len(rows) == world.scenario.rows
    assert all(row[-1].startswith("等级") for row in rows) is bool(column)
    assert len(world.jobs) == 1
    assert bool(status.counters.retries) is flaky


@pytest.mark.parametrize(
    ("fault", "code", "step"),
    [
        (Fault(on="submit", fault="error_stage", times=None), ErrorCode.PLATFORM_ERROR, "poll"),
        (Fault(on="submit", fault="error_page", times=None), ErrorCode.SUBMIT_UNCLEAR, "submit"),
        (Fault(on="poll", fault="wrong_count", times=None), ErrorCode.DOWNLOAD_INTERRUPTED, "transfer"),
        (Fault(on="list", fault="unauthorized", times=None), ErrorCode.AUTH_FAILED, "submit"),
    ],
    ids=lambda value: value.fault if isinstance(value, Fault) else None,
)
async def test_failure_has_code_and_leaves_no_objects(
    site: Site, world: World, fault: Fault, code: ErrorCode, step: str
) -> None:
    add_fault(world, fault)
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(SEGMENT))
    assert status.error is not None
    assert (status.error.code, status.error.step) == (code, step)
    assert site.objects() == {}
    assert secret_canaries.TOKEN not in status.model_dump_json()


async def test_cancelling_an_export_cancels_the_task_of_the_platform(site: Site, world: World) -> None:
    set_scenario(world, hold_stage="SEGMENT_TASK_COMPUTING")
    async with worker_site.worker(site), site.queue() as queue:
        export_id = (await queue.enqueue(request(SEGMENT))).export_id
        async with asyncio.timeout(20):
            while (await queue.status(export_id)).platform_stage != "SEGMENT_TASK_COMPUTING":
                await asyncio.sleep(0.02)
        await queue.cancel(export_id)
        status = await queue.wait(export_id, 20)
        notes = [entry["note"] for entry in await queue.timeline(export_id)]
    [job] = world.jobs
    assert (status.phase, world.stage(job)) == (Phase.CANCELLED, "SEGMENT_TASK_CANCELLED")
    assert notes[-1] == f"cancelled; {status.operation_id} is cancelled on the platform"


async def test_catalog_and_calls_of_the_command_line(site: Site) -> None:
    listed = await asyncio.to_thread(site.command, "catalog", "horizon", "tags", "--json")
    assert [item["name"] for item in json.loads(listed.stdout)] == ["user_tag_level", "user_tag_fresh"]
    named = ("--param", "name=user_segment_vip", "--json")
    called = await asyncio.to_thread(site.command, "call", "horizon", "GetSegmentDefinition", *named)
    assert called.status == 0, called.stderr
    assert json.loads(called.stdout)["display_name"] == "高价值用户"
    refused = await asyncio.to_thread(site.command, "catalog", "horizon", "user-groups")
    assert (refused.status, "segments, tags" in refused.stderr) == (2, True)

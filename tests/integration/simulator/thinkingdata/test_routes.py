"""The simulated ThinkingData: each call of its document has its effect. The driver's operations send the calls."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from export_worker.credentials import Redactor
from export_worker.errors import AuthFailedError, PlatformRefusedError
from export_worker.platforms.settings import ConnectionSettings
from export_worker.platforms.thinkingdata.driver import ThinkingdataDriver
from export_worker.simulator.scenario import Fault
from export_worker.simulator.server import Simulator

PROJECT = {"projectId": 102}
NEW = {**PROJECT, "clusterName": "new_one", "displayName": "新分群", "clusterType": "cluster_by_static_condition"}


@asynccontextmanager
async def simulated(token: str = "sim-token") -> AsyncIterator[tuple[Simulator, "Caller"]]:
    async with Simulator.start() as simulator:
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": 0.0})
        settings = {"platform": "thinkingdata", "base_url": simulator.url, "token": token}
        ta = ThinkingdataDriver("ta", ConnectionSettings.model_validate(settings), Redactor())
        try:
            yield simulator, Caller(ta)
        finally:
            await ta.close()


class Caller:
    """Calls the driver's operations by their aliases."""

    def __init__(self, ta: ThinkingdataDriver) -> None:
        self.ta = ta

    async def __call__(self, alias: str, upload: Any = None, **arguments: Any) -> Any:
        operation = next(found for found in self.ta.operations.values() if alias in found.aliases)
        return await self.ta.call(operation, arguments, None if upload is None else pieces(upload))


async def pieces(upload: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(upload), 65_536):
        yield upload[start : start + 65_536]


@pytest.mark.parametrize("which", ["id", "name"])
async def test_cluster_is_added_updated_refreshed_and_deleted(which: str) -> None:
    by_name = which == "name"
    suffix = "-by-name" if by_name else ""
    async with simulated() as (_, call):
        added = await call("add", **NEW)
        one = {**PROJECT, **({"clusterName": "new_one"} if by_name else {"clusterId": added})}
        before = await call("detail", **one)
        assert (before["id"], before["displayName"]) == (added, "新分群")
        await call(f"update{suffix}", **one, displayName="改名", clusterType="cluster_by_dynamic_condition")
        await call(f"refresh{suffix}", **one)
        assert await call(f"progress{suffix}", **one) == {"progress": 100}
        after = await call("detail", **one)
        assert after["displayName"] == "改名"
        assert after["refreshTime"] > before["refreshTime"]
        await call(f"delete{suffix}", **one)
        with pytest.raises(PlatformRefusedError, match="分群不存在"):
            await call("detail", **one)


async def test_upload_is_streamed_and_its_ids_are_counted() -> None:
    ids = b"".join(b"id-%09d\r\n" % number for number in range(50_000))
    async with simulated() as (simulator, call):
        added = await call("upload-add", ids, **PROJECT, displayName="上传", mainColumnName="#account_id")
        assert added["uploadNum"] == 50_000
        one = {**PROJECT, "clusterId": added["clusterId"]}
        assert (await call("detail", **one))["usersNum"] == 50_000
        changed = await call("upload-modify", b"a\r\nb", **one, displayName="少了")
        assert changed["userNum"] == 2
        name = (await call("detail", **one))["clusterName"]
        await call("upload-modify-by-name", b"a\r\n", **PROJECT, clusterName=name)
        detail = await call("detail", **one)
        assert (detail["usersNum"], detail["displayName"], detail["clusterType"]) == (1, "少了", "cluster_by_import")
    upload = next(record for record in simulator.world.requests if "import-id-cluster-add" in record.target)
    assert "Transfer-Encoding" in upload.headers
    assert "mainColumnName=%23account_id" in upload.target


async def test_listing_is_paged_and_filtered() -> None:
    async with simulated() as (_, call):
        arguments = {**PROJECT, "clusterCatalog": "catalog_cluster", "clusterTypes": ["cluster_by_static_condition"]}
        data = await call("list", **arguments, pagerHeader={"pageNum": 2, "pageSize": 1})
        assert data["pagerResult"] == {"pageNum": 2, "pageSize": 1, "totalNum": 2}
        assert [item["clusterName"] for item in data["userClusters"]] == ["xuzz_ces"]
        names = [
            item["clusterName"] for item in (await call("list", **arguments, clusterName="recent"))["userClusters"]
        ]
        assert names == ["recent_7_days_consume"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"displayName": ""}, "displayName"),
        ({"clusterName": "x" * 25}, "clusterName"),
        ({"displayName": "字" * 51}, "过长"),
    ],
)
async def test_add_with_invalid_field_is_refused(change: dict[str, Any], message: str) -> None:
    async with simulated() as (_, call):
        with pytest.raises(PlatformRefusedError, match=message):
            await call("add", **{**NEW, **change})


async def test_reset_restores_the_initial_clusters() -> None:
    async with simulated() as (simulator, call):
        await call("delete", **PROJECT, clusterId=970)
        simulator.world.reset()
        assert (await call("detail", **PROJECT, clusterId=970))["id"] == 970


async def test_wrong_or_missing_token_is_refused_with_status_200() -> None:
    async with simulated(token="wrong") as (simulator, call):
        with pytest.raises(AuthFailedError):
            await call("detail", **PROJECT, clusterId=970)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{simulator.url}/open/user-cluster-detail") as answer,
        ):
            assert answer.status == 200
            assert await answer.json() == {"return_code": -1008, "return_message": "参数(token)为空"}


async def test_progress_is_the_previous_one_until_refresh_starts_and_minus_one_after_failure() -> None:
    async with simulated() as (simulator, call):
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"hold_stage": "BEFORE"})
        one = {**PROJECT, "clusterId": 970}
        before = await call("detail", **one)
        await call("refresh", **one)
        assert await call("progress", **one) == {"progress": 100}
        assert await call("detail", **one) == before
        simulator.world.faults.add(Fault(on="poll", fault="error_stage"))
        assert await call("progress", **one) == {"progress": -1}
        assert (await call("detail", **one))["refreshTime"] == before["refreshTime"]

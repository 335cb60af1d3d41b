"""The page Workers and `GET /v1/workers`: who runs, which steps, to whom they are shown, and the queue."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_worker.contract.worker_record import RunningStep, WorkerRecord
from export_worker.redis.claims import ConnectionLimits
from export_worker.redis.transfers import TransferProgress
from export_worker.telemetry.health import Health
from export_worker.telemetry.metrics import Metrics
from export_worker.telemetry.queue_stats import QueueStats
from support.gateway_site import OPTIONS, GatewaySite, open_gateway
from support.redis_monitor import commands_during
from support.redis_site import QueueSite
from support.scripted_worker import Parts, ScriptedDriver

KEYS = (
    NamedKey("viewer", "secret-of-viewer", Role.VIEWER),
    NamedKey("ta", "secret-of-ta", Role.VIEWER, frozenset({"ta"})),
)
ID, OTHER_ID = "a" * 32, "b" * 32


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with (
        open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, keys=KEYS), connections=("gio", "ta")) as site,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        yield replace(site, client=client)


async def report(site: QueueSite, owner: str, **more: Any) -> None:
    """Writes the record of a worker."""
    now = datetime.now(UTC)
    record = {"owner": owner, "version": "9.1", "started_at": now - timedelta(hours=1), "seen_at": now} | more
    text = WorkerRecord(**record).model_dump_json(exclude_unset=True)
    await site.redis.set(site.keys.worker(owner), text, px=15_000)
    await site.redis.zadd(site.keys.workers, {owner: site.now_ms})


async def page(console: GatewaySite, key: str, query: str = "") -> str:
    await console.call("POST", "/console/login", data={"key": f"secret-of-{key}"}, allow_redirects=False)
    answer = await console.call("GET", f"/console/workers{query}")
    assert answer.status == 200, answer.body
    return answer.body.decode()


def steps_of(page: str) -> list[str]:
    return re.findall(r'href="/console/exports/(\w+)"', page)


async def test_page_has_workers_with_their_steps_and_the_queue(console: GatewaySite) -> None:
    assert "No worker is running" in await page(console, "viewer")
    site = console.site
    site.limits = {"gio": ConnectionLimits(1, 1000.0)}
    for _ in range(3):
        await site.enqueue()
    await site.submit(await site.one())
    steps = [
        RunningStep(export_id=ID, connection="gio", role="control"),
        RunningStep(export_id=OTHER_ID, connection="ta", role="transfer"),
    ]
    running = {"control": 30, "transfer": 1}
    problems = {"gio": "<script>no bucket", "ta": "no bucket"}
    await report(site, "w1", running=running, exports=steps, leases_lost=7, store_problems=problems)
    await report(site, "w2", running={"control": 2}, seen_at=datetime.now(UTC) - timedelta(seconds=12))
    console.now_s[0] += 60
    shown = await page(console, "viewer")
    assert steps_of(shown) == [ID, OTHER_ID]
    assert "and 29 more" in shown
    assert "not reported by this version" in shown
    assert ">7</td>" in shown
    assert "✕ 12 s ago" in shown
    assert "&lt;script&gt;no bucket" in shown
    assert re.search(r'Control</th>\s*<td data-label="Due">\d+</td>.*?slot or a worker">2<', shown, re.DOTALL)
    limited = await page(console, "ta", "?lang=zh")
    assert steps_of(limited) == [OTHER_ID]
    assert "gio: " not in limited
    assert "正在执行" in limited
    fleet = (await console.call("GET", "/v1/workers", headers={"Authorization": "Bearer secret-of-ta"})).json
    assert [(each["id"], each["leases_lost"]) for each in fleet["workers"]] == [("w2", None), ("w1", None)]
    assert fleet["workers"][1]["steps"] == {"control": 0, "transfer": 1}
    assert ID not in json.dumps(fleet)
    assert fleet["queue"]["control"]["waiting"] == 0, "both that wait are of another connection"
    assert fleet["queue"]["control"]["due"] is None


async def test_visitors_of_one_second_share_the_reads(console: GatewaySite, redis_url: str) -> None:
    await report(console.site, "w1", running={"control": 0})
    await page(console, "viewer")
    console.now_s[0] += 60
    key = {"Authorization": "Bearer secret-of-viewer"}

    async def visits() -> None:
        await asyncio.gather(*(console.call("GET", "/v1/workers", headers=key) for _ in range(20)))

    # Not a gathered future: its calls would begin before the commands are watched.
    assert sorted(await commands_during(redis_url, visits())) == ["EVALSHA", "GET", "ZREVRANGE"]


async def test_running_worker_reports_its_steps_and_lost_leases(queue_site: QueueSite) -> None:
    def clock() -> datetime:
        return datetime.now(UTC)

    driver = ScriptedDriver()
    driver.gate.clear()
    keys = queue_site.keys
    stats = QueueStats(queue_site.redis, keys, (), (), TransferProgress(queue_site.redis, keys).read)
    health = Health(queue_site.redis, keys, "w1", queue_stats=stats, metrics=Metrics(), clock=clock)
    async with Parts(queue_site, driver, clock).running() as worker:
        export_id = await queue_site.enqueue()
        async with asyncio.timeout(20):
            while not driver.submits:
                await asyncio.sleep(0.02)
        health.watch([worker], worker._runner.leases)
        await health.beat()
        record = WorkerRecord.model_validate_json(await queue_site.redis.get(keys.worker("w1")))
        assert [(step.export_id, step.connection, step.role) for step in record.exports] == [
            (export_id, "gio", "control")
        ]
        assert record.leases_lost == 0
        driver.gate.set()
        async with asyncio.timeout(20):
            while worker.steps:
                await asyncio.sleep(0.02)

"""Clocks of the gateway's host, of Redis and of browsers that differ by minutes."""

import re
from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from export_worker.contract.redis_keys import Keys
from export_worker.contract.worker_record import WorkerRecord
from export_worker.errors import PlatformUnavailableError
from export_worker.redis.client import commands
from support.console_browser import drive, waiting
from support.gateway_site import GatewaySite, open_gateway

DIFFERENCE_MS = 600_000


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    """A gateway whose host is ten minutes ahead of the clock that all processes share."""
    await commands(arq_redis).hset(Keys(namespace).clock, mapping={"seen": "0", "offset": str(-DIFFERENCE_MS)})
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


async def test_ages_are_of_the_clock_that_all_processes_share(console: GatewaySite) -> None:
    site, now = console.site, await console.site.queue.storage.now()
    export_id = await console.enqueue()
    record = WorkerRecord(owner="w1", version="9", started_at=now, seen_at=now, running={"control": 0})
    await site.redis.zadd(site.keys.workers, {"w1": int(now.timestamp() * 1000)})
    await site.redis.set(site.keys.worker("w1"), record.model_dump_json())
    for path in ("exports", f"exports/{export_id}", "workers", "connections/gio", ""):
        page = (await console.call("GET", f"/console/{path}")).body.decode()
        assert not re.search(r"\b10 min", page), path
    assert "w1" in (await console.call("GET", "/console/workers")).body.decode()
    headers = (await console.call("GET", f"/v1/exports/{export_id}")).headers
    assert int(headers["Retry-After"]) < 60


async def test_browser_counts_down_by_the_clock_of_the_gateway(
    arq_redis: ArqRedis, redis_url: str, namespace: str, driver: Chrome
) -> None:
    async with open_gateway(arq_redis, redis_url, namespace) as console:
        export_id = await console.enqueue()
        await console.site.fail(await console.site.one(), PlatformUnavailableError("HTTP 503"))
        status = await console.site.queue.status(export_id)
        assert status.due_at is not None
        late = status.model_copy(update={"due_at": status.due_at.replace(year=status.due_at.year + 1)})
        await console.site.redis.hset(console.site.keys.export(export_id), "status", late.model_dump_json())
        ahead = f"const now = Date.now; Date.now = () => now() + {DIFFERENCE_MS};"
        script = {"source": ahead}
        seconds: list[int] = []

        def journey() -> None:
            added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
            try:
                driver.get(f"{console.url}/console/exports/{export_id}")
                waiting(driver).until(
                    lambda page: re.search(r"\d", page.find_element(By.CSS_SELECTOR, "[data-due]").text)
                )
                text = driver.find_element(By.CSS_SELECTOR, "[data-due]").text
                seconds.append(int("".join(re.findall(r"\d", text))))
            finally:
                driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

        await drive(journey)
        assert late.due_at is not None
        left_s = (late.due_at - await console.site.queue.storage.now()).total_seconds()
        assert abs(seconds[0] - left_s) < DIFFERENCE_MS / 2000, "minutes of a loaded machine are less"

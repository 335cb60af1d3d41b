"""A worker's health, readiness and metrics pages, requested over HTTP as Kubernetes and Prometheus request them."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from prometheus_client.parser import text_string_to_metric_families

from export_worker.contract.status import Phase
from export_worker.contract.worker_record import WorkerRecord
from export_worker.demo.processes import child, free_port, redis_binary
from export_worker.redis.client import close_redis, open_redis
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import worker_site
from support.redis_process import wait_until_ready
from support.worker_site import Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
WAIT_TIMEOUT_S = 60.0
"""For a machine under load. On an idle machine each wait takes a few seconds."""


def enable_pages(site: Site) -> str:
    """Configures the site's workers to serve their pages, and returns the URL."""
    port = free_port()
    site.settings = {"worker": {"sweep_s": 0.5, "lease_s": 3.0, "drain_s": 2.0, "health_port": port}}
    return f"http://127.0.0.1:{port}"


async def page(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
        return response.status, text if url.endswith("/metrics") else json.loads(text)


async def wait_for_status(url: str, status: int) -> Any:
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while True:
            try:
                found, body = await page(url)
            except aiohttp.ClientError:
                found, body = 0, None
            if found == status:
                return body
            await asyncio.sleep(0.1)


async def samples(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    status, text = await page(f"{url}/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(found: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (sample, has), value in found.items() if sample == name and wanted <= set(has))


async def test_metrics_count_exports_polls_errors_and_bytes_of_a_worker(site: Site, world: World) -> None:
    url = enable_pages(site)
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.3})
    async with worker_site.worker(site):
        await wait_for_status(f"{url}/readyz", 200)
        done = await worker_site.export(site, REQUEST)
        await site.events(done.export_id)
        world.faults.add(Fault(on="submit", fault="error5xx"))
        again = await worker_site.export(site, REQUEST)
        found = await samples(url)
        assert await page(f"{url}/healthz")

    assert (done.phase, again.phase) == (Phase.SUCCEEDED, Phase.SUCCEEDED)
    kind = {"connection": "gio", "kind": "growingio.segment_users"}
    assert total(found, "export_worker_exports_ended_total", **kind, phase="succeeded", code="") == 2
    assert total(found, "export_worker_export_polls_count", **kind) == 2
    polls = done.counters.polls + again.counters.polls
    assert total(found, "export_worker_export_polls_sum", **kind) == polls > 2
    assert total(found, "export_worker_platform_call_duration_seconds_count", call="poll") == polls
    assert total(found, "export_worker_platform_errors_total", call="poll") == 0
    assert total(found, "export_worker_platform_errors_total", call="submit", code="platform_unavailable") == 1
    assert total(found, "export_worker_step_retries_total", connection="gio") == 1
    assert total(found, "export_worker_unclear_submits_total", connection="gio", outcome="resubmitted") == 1
    assert total(found, "export_worker_unclear_submits_total", connection="gio", outcome="failed") == 0
    assert total(found, "export_worker_transfer_bytes_total", **kind) == sum(
        item.bytes for status in (done, again) for item in status.objects
    )
    assert total(found, "export_worker_files_stored_total", **kind) == len(done.objects) + len(again.objects)
    assert total(found, "export_worker_storage_errors_total") == 0
    assert total(found, "export_worker_event_age_seconds_count", sink="stream") >= 1
    assert total(found, "export_worker_lease_losses_total") == 0
    assert total(found, "export_worker_exports", phase="succeeded") == 2
    assert found["export_worker_events_undelivered", (("sink", "stream"),)] == 0
    assert total(found, "export_worker_redis_up") == 1
    assert total(found, "export_worker_workers") == 1
    assert total(found, "process_resident_memory_bytes") > 0
    assert not any(done.export_id in str(labels) for labels in found)


async def test_queue_metrics_count_due_steps_and_not_waiting_ones(site: Site, world: World, redis_url: str) -> None:
    """Three exports are due before a worker starts. After their submit they wait for a later poll, and none is due."""
    url = enable_pages(site)
    world.scenario = world.scenario.model_copy(update={"stage_s": 600.0})
    site.connection = {"poll": {"first_s": 300.0, "max_s": 300.0, "deadline_s": 3600}}
    async with site.queue() as queue:
        for _ in range(3):
            await queue.enqueue(REQUEST)
    client = open_redis(redis_url)
    assert await client.zcount(f"{site.namespace}:queue:control", "-inf", "+inf") == 3
    async with worker_site.worker(site):
        await wait_for_status(f"{url}/readyz", 200)
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while total(found := await samples(url), "export_worker_exports", phase="running") < 3 or total(
                found, "export_worker_queue_due", role="control"
            ):
                await asyncio.sleep(0.1)
        assert total(found, "export_worker_queue_oldest_due_age_seconds") == 0
        assert total(found, "export_worker_transfer_left_bytes") == 0
        record = await client.zrange(f"{site.namespace}:workers", 0, -1)
        announced = WorkerRecord.model_validate_json(await client.get(f"{site.namespace}:worker:{record[0].decode()}"))
        assert set(announced.running) == {"control", "transfer"}
    # A worker that stops regularly removes its record.
    assert await client.zcard(f"{site.namespace}:workers") == 0
    await close_redis(client)


@asynccontextmanager
async def own_redis(site: Site, directory: Path) -> AsyncIterator[tuple[redis.asyncio.Redis, int]]:
    """Starts a Redis that the test may stop. Yields a client and the process id."""
    port = free_port()
    command = [redis_binary(), "--port", str(port), "--dir", str(directory), "--bind", "127.0.0.1", "--save", ""]
    async with child(command, name="redis", directory=directory) as process:
        await wait_until_ready(process, port, name="redis", directory=directory)
        site.redis_url = f"redis://127.0.0.1:{port}/0"
        client = redis.asyncio.Redis(port=port)
        yield client, process.pid
        await client.aclose()


async def test_worker_is_not_ready_while_redis_hangs(site: Site, tmp_path: Path) -> None:
    url = enable_pages(site)
    async with own_redis(site, tmp_path) as (_, pid), worker_site.worker(site):
        await wait_for_status(f"{url}/readyz", 200)
        os.kill(pid, signal.SIGSTOP)
        try:
            body = await wait_for_status(f"{url}/readyz", 503)
            assert (await page(f"{url}/healthz"))[0] == 200
            assert total(await samples(url), "export_worker_redis_up") == 0
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "redis" in body["problems"]
        await wait_for_status(f"{url}/readyz", 200)


async def test_worker_is_not_ready_while_redis_is_read_only(site: Site, tmp_path: Path) -> None:
    url = enable_pages(site)
    async with own_redis(site, tmp_path) as (client, _), worker_site.worker(site):
        await wait_for_status(f"{url}/readyz", 200)
        await client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            # The first failure can be that of a claim, whose message does not name the reason.
            while "read only" not in str((await wait_for_status(f"{url}/readyz", 503))["problems"]).lower():
                await asyncio.sleep(0.1)
        found = await samples(url)
        assert total(found, "export_worker_redis_up") == 0
        assert "export_worker_workers" in {name for name, *_ in found}
        await client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        await wait_for_status(f"{url}/readyz", 200)


def test_health_port_in_use_exits_2_and_names_the_setting(site: Site) -> None:
    port = site.redis_url.rpartition(":")[2].partition("/")[0]
    ran = site.command("run", "--burst", EXPORT_WORKER__HEALTH_PORT=port)
    assert ran.status == 2
    assert "worker.health_port: cannot listen on 127.0.0.1" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("port", ["70000", "-1", "x"])
def test_invalid_health_port_exits_2_and_names_the_setting(site: Site, port: str) -> None:
    ran = site.command("run", "--burst", EXPORT_WORKER__HEALTH_PORT=port)
    assert ran.status == 2
    assert "worker.health_port" in ran.stderr

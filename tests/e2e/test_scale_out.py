"""Scale-out on one machine: the number of due steps, scraped as KEDA does it, scales transfer workers 1 → 4 → 1.

`make scale` runs it with ten times the exports and prints the figures.
"""

import asyncio
import json
import logging
import math
import os
import re
import signal
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import yaml  # type: ignore[import-untyped]  # comes with moto; its stubs are not among our tools
from prometheus_client.parser import text_string_to_metric_families

from export_worker.contract.event import Event
from export_worker.contract.status import Phase, Status
from export_worker.demo.processes import free_port
from export_worker.redis.client import close_redis, open_redis
from export_worker.simulator.world import World
from support import leftovers
from support.deployment import read
from support.worker_site import Running, Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
EXPORTS = int(os.environ.get("SCALE_EXPORTS", "56"))
ALONE = 8
"""Exports that one worker completes before scaling starts, as the basis of comparison."""
TOGETHER = EXPORTS // 2
"""Exports that are enqueued after all workers have started, so that there is work for each of them."""
WORKERS_MAX = 4
STABLE_S = 2.0
"""`stabilizationWindowSeconds`, shortened for a test."""
SYNC_S = 0.5
"""The interval of the scrapes; 15 s in a cluster."""
WAIT_TIMEOUT_S = 120.0 + EXPORTS

_log = logging.getLogger(__name__)


def due_trigger() -> dict[str, str]:
    """Returns the metadata of the trigger in the transfer workers' ScaledObject."""
    scaled = yaml.safe_load_all(read("k8s/components/keda/scaledobjects.yaml"))
    (transfer,) = (item for item in scaled if item["metadata"]["name"] == "transfer")
    found: dict[str, str] = next(each["metadata"] for each in transfer["spec"]["triggers"] if each["name"] == "due")
    return found


async def scrape(url: str, location: str) -> float:
    """Returns the value of `name{label="value"}` on a metrics page."""
    name, labels = location.split("{")
    wanted = set(re.findall(r'(\w+)="([^"]*)"', labels))
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
    (value,) = (
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and wanted <= set(sample.labels.items())
    )
    return float(value)


@dataclass
class Autoscaler:
    """Acts as a HorizontalPodAutoscaler with an average value: ceil(metric / target), scaled down only after a delay.

    Args:
        site: Has the services of the workers.
        stack: Stops the workers.
        url: The metrics page.
        fleet: The running transfer workers.
    """

    site: Site
    stack: ExitStack
    url: str
    fleet: list[Running] = field(default_factory=list)
    sizes: list[tuple[float, int]] = field(default_factory=list)
    """The time (seconds since the epoch) and the new number of workers of each change."""

    async def resize(self, size: int) -> None:
        """Starts missing workers, or stops the newest superfluous ones."""
        missing = range(size - len(self.fleet))
        new = [self.stack.enter_context(self.site.process("run", "--role", "transfer")) for _ in missing]
        for running in new:
            await asyncio.to_thread(running.until_logged, "worker.started", WAIT_TIMEOUT_S)
        leaving = self.fleet[size:]
        self.fleet = (self.fleet + new)[:size]
        self.sizes.append((time.time(), size))
        for running in leaving:
            running.process.send_signal(signal.SIGTERM)
        for running in leaving:
            assert await asyncio.to_thread(running.process.wait, 25) == 0

    async def run(self) -> None:
        """Follows the metric until cancelled."""
        trigger = due_trigger()
        recent: deque[int] = deque(maxlen=math.ceil(STABLE_S / SYNC_S))
        while True:
            due = await scrape(self.url, trigger["valueLocation"])
            recent.append(min(WORKERS_MAX, max(1, math.ceil(due / float(trigger["targetValue"])))))
            if (size := max(recent)) != len(self.fleet):
                _log.info("%s = %d: %d -> %d workers", trigger["valueLocation"], due, len(self.fleet), size)
                await self.resize(size)
            await asyncio.sleep(SYNC_S)


async def wait_for_succeeded(site: Site, count: int) -> None:
    async with site.queue() as queue, asyncio.timeout(WAIT_TIMEOUT_S):
        while len((await queue.page(phase=Phase.SUCCEEDED, limit=count)).statuses) < count:
            await asyncio.sleep(0.1)


async def subjects(site: Site) -> list[str]:
    client = open_redis(site.redis_url)
    try:
        entries: list[Any] = await client.xrange(site.stream)
    finally:
        await close_redis(client)
    return [Event.model_validate_json(fields[b"event"]).subject for _, fields in entries]


def rate(statuses: list[Status], since: float, count: int) -> float:
    """Returns exports per second: of the first `count` exports that ended after a time (seconds since the epoch).

    So the rate includes neither the start of further workers nor the end, when there is not enough work for all.
    """
    ends = sorted(status.finished_at.timestamp() for status in statuses if status.finished_at is not None)
    return count / ([end for end in ends if end > since][count - 1] - since)


@pytest.mark.timeout(180 + 3 * EXPORTS)
async def test_due_steps_scale_workers_from_one_to_four_to_one_and_throughput_grows(site: Site, world: World) -> None:
    # The platform's rate limits a transfer, not the processor, because a test machine may have only two.
    world.scenario = world.scenario.model_copy(update={"file_bytes": 30_000, "bytes_per_s": 10_000})
    site.settings = {"worker": {"drain_s": 4.0, "lease_s": 30.0, "transfers": int(due_trigger()["targetValue"])}}
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(site.process("run", "--role", "control", EXPORT_WORKER__HEALTH_PORT=str(port)))
        scaler = Autoscaler(site, stack, f"http://127.0.0.1:{port}/metrics")
        async with site.queue() as queue:
            ids = [(await queue.enqueue(REQUEST)).export_id for _ in range(EXPORTS - TOGETHER)]
            await scaler.resize(1)
            await wait_for_succeeded(site, ALONE)
            scaling = asyncio.create_task(scaler.run())
            await wait_until_scaled(scaler, scaling)
            ids += [(await queue.enqueue(REQUEST)).export_id for _ in range(TOGETHER)]
            statuses = [await queue.wait(export_id, WAIT_TIMEOUT_S) for export_id in ids]
        await wait_until_one(scaler, scaling)
        left = await leftovers.in_redis(site)

    assert [status.phase for status in statuses] == [Phase.SUCCEEDED] * EXPORTS
    assert len(world.jobs) == EXPORTS
    assert sorted(await subjects(site)) == sorted(ids)
    assert (left, site.open_uploads()) == ([], [])
    compare(statuses, scaler.sizes)


async def wait_until_scaled(scaler: Autoscaler, scaling: asyncio.Task[None]) -> None:
    """Waits until the backlog has changed the number of workers."""
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while len(scaler.sizes) < 2 and not scaling.done():
            await asyncio.sleep(0.05)


async def wait_until_one(scaler: Autoscaler, scaling: asyncio.Task[None]) -> None:
    """Waits until one worker is left, because the backlog is empty."""
    try:
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while len(scaler.fleet) > 1 and not scaling.done():
                await asyncio.sleep(0.1)
    finally:
        scaling.cancel()
        await asyncio.wait([scaling])
    if not scaling.cancelled():
        await scaling


def compare(statuses: list[Status], sizes: list[tuple[float, int]]) -> None:
    """Checks that the fleet grew to its maximum and shrank to one, and that four workers were faster than one."""
    assert [size for _, size in sizes][:2] == [1, WORKERS_MAX]
    assert sizes[-1][1] == 1
    (started, _), (grown, _) = sizes[:2]
    alone, together = rate(statuses, started, ALONE), rate(statuses, grown, TOGETHER)
    _log.info("%.1f exports/s with one worker, %.1f with %d", alone, together, WORKERS_MAX)
    assert together > 2 * alone

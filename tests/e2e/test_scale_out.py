"""Scale-out on one machine: what is due, scraped as KEDA scrapes it, drives 1 → 4 → 1 transfer workers.

`make scale` runs it with ten times the exports and tells the figures.
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
"""Exports that one worker does before anybody scales, to have something to compare with."""
TOGETHER = EXPORTS // 2
"""Exports that are asked for once all workers run: however long those take to start, there is enough for each."""
WORKERS_MAX = 4
STABLE_S = 2.0
"""`stabilizationWindowSeconds`, at the pace of a test."""
SYNC_S = 0.5
"""Between looks; 15 s in a cluster."""
PATIENCE_S = 120.0 + EXPORTS

_log = logging.getLogger(__name__)


def due_trigger() -> dict[str, str]:
    """What the ScaledObject of the transfer workers asks for."""
    scaled = yaml.safe_load_all(read("k8s/components/keda/scaledobjects.yaml"))
    (transfer,) = (item for item in scaled if item["metadata"]["name"] == "transfer")
    found: dict[str, str] = next(each["metadata"] for each in transfer["spec"]["triggers"] if each["name"] == "due")
    return found


async def scrape(url: str, location: str) -> float:
    """The value that stands at `name{label="value"}` of a page."""
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
    """As a HorizontalPodAutoscaler with an average value: ceil(metric / target), down only after a while.

    Args:
        url: The page that is scraped.
    """

    site: Site
    stack: ExitStack
    url: str
    fleet: list[Running] = field(default_factory=list)
    sizes: list[tuple[float, int]] = field(default_factory=list)
    """When (seconds since the epoch) there were how many; one entry a change."""

    async def resize(self, size: int) -> None:
        """Start what is missing, and tell the newest ones too many to stop."""
        missing = range(size - len(self.fleet))
        new = [self.stack.enter_context(self.site.process("run", "--role", "transfer")) for _ in missing]
        for running in new:
            await asyncio.to_thread(running.until_logged, "worker.started", PATIENCE_S)
        leaving = self.fleet[size:]
        self.fleet = (self.fleet + new)[:size]
        self.sizes.append((time.time(), size))
        for running in leaving:
            running.process.send_signal(signal.SIGTERM)
        for running in leaving:
            assert await asyncio.to_thread(running.process.wait, 25) == 0

    async def run(self) -> None:
        """Follow the metric until cancelled."""
        asked = due_trigger()
        recent: deque[int] = deque(maxlen=math.ceil(STABLE_S / SYNC_S))
        while True:
            due = await scrape(self.url, asked["valueLocation"])
            recent.append(min(WORKERS_MAX, max(1, math.ceil(due / float(asked["targetValue"])))))
            if (size := max(recent)) != len(self.fleet):
                _log.info("%s = %d: %d -> %d workers", asked["valueLocation"], due, len(self.fleet), size)
                await self.resize(size)
            await asyncio.sleep(SYNC_S)


async def until_ended(site: Site, count: int) -> None:
    async with site.queue() as queue, asyncio.timeout(PATIENCE_S):
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
    """Exports that ended in a second: the first so many after a time (seconds since the epoch).

    So neither the start of further workers nor an end, at which there is not enough for all of them, is in it.
    """
    ends = sorted(status.finished_at.timestamp() for status in statuses if status.finished_at is not None)
    return count / ([end for end in ends if end > since][count - 1] - since)


@pytest.mark.timeout(180 + 3 * EXPORTS)
async def test_what_is_due_drives_one_to_four_to_one_workers_and_throughput_follows(site: Site, world: World) -> None:
    # A transfer waits for the platform's bytes, not for a processor: this machine may have two.
    world.scenario = world.scenario.model_copy(update={"file_bytes": 30_000, "bytes_per_s": 10_000})
    site.settings = {"worker": {"drain_s": 4.0, "lease_s": 30.0, "transfers": int(due_trigger()["targetValue"])}}
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(site.process("run", "--role", "control", EXPORT_WORKER__HEALTH_PORT=str(port)))
        scaler = Autoscaler(site, stack, f"http://127.0.0.1:{port}/metrics")
        async with site.queue() as queue:
            ids = [(await queue.enqueue(REQUEST)).export_id for _ in range(EXPORTS - TOGETHER)]
            await scaler.resize(1)
            await until_ended(site, ALONE)
            scaling = asyncio.create_task(scaler.run())
            await until_scaled(scaler, scaling)
            ids += [(await queue.enqueue(REQUEST)).export_id for _ in range(TOGETHER)]
            statuses = [await queue.wait(export_id, PATIENCE_S) for export_id in ids]
        await until_one(scaler, scaling)
        left = await leftovers.in_redis(site)

    assert [status.phase for status in statuses] == [Phase.SUCCEEDED] * EXPORTS
    assert len(world.jobs) == EXPORTS
    assert sorted(await subjects(site)) == sorted(ids)
    assert (left, site.open_uploads()) == ([], [])
    compare(statuses, scaler.sizes)


async def until_scaled(scaler: Autoscaler, scaling: asyncio.Task[None]) -> None:
    """Wait until the backlog has brought the fleet to another size."""
    async with asyncio.timeout(PATIENCE_S):
        while len(scaler.sizes) < 2 and not scaling.done():
            await asyncio.sleep(0.05)


async def until_one(scaler: Autoscaler, scaling: asyncio.Task[None]) -> None:
    """Wait until the backlog's end has brought the fleet back to one."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(scaler.fleet) > 1 and not scaling.done():
                await asyncio.sleep(0.1)
    finally:
        scaling.cancel()
        await asyncio.wait([scaling])
    if not scaling.cancelled():
        await scaling


def compare(statuses: list[Status], sizes: list[tuple[float, int]]) -> None:
    """The fleet grew to its most and went back to one; with four there was more done in a second."""
    assert [size for _, size in sizes][:2] == [1, WORKERS_MAX]
    assert sizes[-1][1] == 1
    (begun, _), (grown, _) = sizes[:2]
    alone, together = rate(statuses, begun, ALONE), rate(statuses, grown, TOGETHER)
    _log.info("%.1f exports/s with one worker, %.1f with %d", alone, together, WORKERS_MAX)
    assert together > 2 * alone

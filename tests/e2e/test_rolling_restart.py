"""A rolling restart under load: each worker is replaced in the way of a Deployment with `maxSurge: 1`."""

import asyncio
import json
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

from export_worker.contract.event import Event
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Phase
from export_worker.redis.client import close_redis, open_redis
from export_worker.simulator.world import World
from support import leftovers
from support.worker_site import Running, Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
ROLES = ("control", "transfer")
DRAIN_S = 2.0
STOP_TIMEOUT_S = DRAIN_S + 15.0
"""The difference between stop and drain in the manifests: 25 s with a drain of 10 s."""
LEASE_S = 240.0
"""Longer than every timeout of this test. So a step that a stopping worker does not hand back cannot end in time."""
EXPORTS_MIN = 36
ENQUEUE_EVERY_S = 0.4
STARTED_EXPORTS = 8
"""The number of submitted exports at which the first worker gets SIGTERM."""
WAIT_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Arrival:
    """An event and the time at which it was added to the stream."""

    event: Event
    at_ms: int

    @property
    def late_s(self) -> float:
        """The time from the export's end to the event's arrival."""
        ended_at = self.event.data.finished_at
        assert ended_at is not None
        return (self.at_ms - epoch_ms(ended_at)) / 1000


async def enqueue_until(site: Site, stop: asyncio.Event) -> list[str]:
    """Enqueues exports one after the other while workers are replaced, and returns their ids."""
    ids: list[str] = []
    async with site.queue() as queue:
        for number in count():
            if stop.is_set() and number >= EXPORTS_MIN:
                return ids
            ids.append((await queue.enqueue(REQUEST)).export_id)
            await asyncio.sleep(ENQUEUE_EVERY_S)
    raise AssertionError("not reached: the count is endless")


async def start(site: Site, stack: ExitStack, role: str) -> Running:
    running = stack.enter_context(site.process("run", "--role", role))
    await asyncio.to_thread(running.until_logged, "worker.started", WAIT_TIMEOUT_S)
    return running


async def replace_workers(site: Site, stack: ExitStack, role: str, fleet: list[Running]) -> None:
    """Replaces the workers of one Deployment. Each new worker has started before the old one gets SIGTERM."""
    for old in fleet:
        await start(site, stack, role)
        old.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(old.process.wait, STOP_TIMEOUT_S) == 0
        assert "Traceback" not in old.log.read_text(encoding="utf-8")


async def arrivals(site: Site) -> list[Arrival]:
    client = open_redis(site.redis_url)
    try:
        entries = await client.xrange(site.stream)
    finally:
        await close_redis(client)
    return [
        Arrival(Event.model_validate_json(fields[b"event"]), int(entry_id.partition(b"-")[0]))
        for entry_id, fields in entries
    ]


async def test_rolling_restart_under_load_loses_no_export_and_delays_no_event(site: Site, world: World) -> None:
    # A transfer takes three times as long as a drain, so each stopping transfer worker has transfers to hand back.
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.2, "file_bytes": 36_000, "bytes_per_s": 6_000})
    site.settings = {"worker": {"drain_s": DRAIN_S, "lease_s": LEASE_S, "transfers": 16}}
    replaced = asyncio.Event()
    with ExitStack() as stack:
        fleets = await asyncio.gather(*(start(site, stack, role) for role in ROLES * 2))
        enqueuing = asyncio.create_task(enqueue_until(site, replaced))
        while len(world.jobs) < STARTED_EXPORTS:
            await asyncio.sleep(0.05)
        await asyncio.gather(*(replace_workers(site, stack, role, fleets[at::2]) for at, role in enumerate(ROLES)))
        world.scenario = world.scenario.model_copy(update={"bytes_per_s": None})
        replaced.set()
        ids = await enqueuing
        async with site.queue() as queue:
            statuses = [await queue.wait(export_id, WAIT_TIMEOUT_S) for export_id in ids]
            notes = [entry["note"] for export_id in ids for entry in await queue.timeline(export_id)]
        left = await leftovers.in_redis(site)

    assert [status.phase for status in statuses] == [Phase.SUCCEEDED] * len(ids)
    assert len(world.jobs) == len(ids) >= EXPORTS_MIN, "one operation for each export"
    handed_back = any("its previous worker shut down" in note for note in notes)
    assert handed_back, "no worker had a running step when it got SIGTERM"
    assert left == []
    assert site.open_uploads() == []
    arrived = await arrivals(site)
    assert sorted(arrival.event.subject for arrival in arrived) == sorted(ids)
    assert len({arrival.event.id for arrival in arrived}) == len(ids)
    # A busy machine delays every event equally. A restart may add the time of a drain.
    late_s = sorted(arrival.late_s for arrival in arrived)
    assert late_s[-1] < late_s[len(late_s) // 2] + DRAIN_S

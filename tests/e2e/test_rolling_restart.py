"""A rolling restart under load: each worker is replaced as a Deployment with `maxSurge: 1` does it."""

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
STOP_S = DRAIN_S + 15.0
"""What the manifests grant: 25 s with a drain of 10 s."""
LEASE_S = 240.0
"""Longer than anything is waited for: a step that a worker kept instead of giving it back would not end in time."""
EXPORTS_MIN = 36
ENQUEUE_EVERY_S = 0.4
UNDER_WAY = 8
"""Of the exports, when the first worker is told to stop."""
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Arrival:
    """An event as it came to the stream."""

    event: Event
    at_ms: int

    @property
    def late_s(self) -> float:
        """How long after the export's end it came."""
        ended_at = self.event.data.finished_at
        assert ended_at is not None
        return (self.at_ms - epoch_ms(ended_at)) / 1000


async def enqueue_until(site: Site, stop: asyncio.Event) -> list[str]:
    """Ask for one export after the other, for as long as workers are replaced."""
    ids: list[str] = []
    async with site.queue() as queue:
        for number in count():
            if stop.is_set() and number >= EXPORTS_MIN:
                return ids
            ids.append((await queue.enqueue(REQUEST)).export_id)
            await asyncio.sleep(ENQUEUE_EVERY_S)
    raise AssertionError("the count has no end")


async def start(site: Site, stack: ExitStack, role: str) -> Running:
    running = stack.enter_context(site.process("run", "--role", role))
    await asyncio.to_thread(running.until_logged, "worker.started", PATIENCE_S)
    return running


async def roll(site: Site, stack: ExitStack, role: str, fleet: list[Running]) -> None:
    """Replace the workers of one Deployment: a new one is there before an old one is told to stop."""
    for old in fleet:
        await start(site, stack, role)
        old.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(old.process.wait, STOP_S) == 0
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


async def test_a_rolling_restart_under_load_loses_nothing_and_holds_up_no_event(site: Site, world: World) -> None:
    # A transfer takes three times as long as a drain, so each transfer worker has some to give back.
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.2, "file_bytes": 36_000, "bytes_per_s": 6_000})
    site.settings = {"worker": {"drain_s": DRAIN_S, "lease_s": LEASE_S, "transfers": 16}}
    replaced = asyncio.Event()
    with ExitStack() as stack:
        fleets = await asyncio.gather(*(start(site, stack, role) for role in ROLES * 2))
        asking = asyncio.create_task(enqueue_until(site, replaced))
        while len(world.jobs) < UNDER_WAY:
            await asyncio.sleep(0.05)
        await asyncio.gather(*(roll(site, stack, role, fleets[at::2]) for at, role in enumerate(ROLES)))
        world.scenario = world.scenario.model_copy(update={"bytes_per_s": None})
        replaced.set()
        ids = await asking
        async with site.queue() as queue:
            statuses = [await queue.wait(export_id, PATIENCE_S) for export_id in ids]
            notes = [entry["note"] for export_id in ids for entry in await queue.timeline(export_id)]
        left = await leftovers.in_redis(site)

    assert [status.phase for status in statuses] == [Phase.SUCCEEDED] * len(ids)
    assert len(world.jobs) == len(ids) >= EXPORTS_MIN, "one operation an export"
    assert any("handed over" in note for note in notes), "no step was under way when its worker was told to stop"
    assert left == []
    assert site.open_uploads() == []
    came = await arrivals(site)
    assert sorted(arrival.event.subject for arrival in came) == sorted(ids)
    assert len({arrival.event.id for arrival in came}) == len(ids)
    # What a busy machine costs, it costs every event; a restart may cost a drain on top.
    late_s = sorted(arrival.late_s for arrival in came)
    assert late_s[-1] < late_s[len(late_s) // 2] + DRAIN_S

"""Downloads that hardly move: other connections still get a slot, and deadlines end exports that have none."""

import asyncio
import json
import time

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import Fault
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings, World
from export_worker.transfer import minimum_rate
from support import secret_canaries, worker_site
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
STALLED = Fault(on="download", fault="slow", times=None, after_bytes=10, delay_s=600.0)
"""The server sends the head and ten bytes of the file, and then nothing for minutes."""
SLOTS = 4
SOON_S = 12.0
"""A claim a second, an export of a second, and what a busy machine adds."""


def request(connection: str = "gio", **more: object) -> str:
    return json.dumps({"connection": connection, "export": SEGMENT, **more})


async def downloads(world: World, count: int) -> None:
    """Waits until the platform sends this many files."""
    async with asyncio.timeout(30):
        while sum("/download" in record.target for record in world.requests) < count:
            await asyncio.sleep(0.05)


async def test_transfer_of_another_connection_begins_beside_stalled_ones(site: Site, world: World) -> None:
    world.faults.add(STALLED)
    connection = site.tree()["connections"]["gio"]
    async with Simulator.start(settings=SimulatorSettings(tokens=(secret_canaries.TOKEN,))) as other:
        other.world.scenario = other.world.scenario.model_copy(update={"stage_s": 0.05})
        site.settings = {"connections": {"gio": connection, "other": connection | {"base_url": other.url}}}
        async with worker_site.worker(site), site.queue() as queue:
            for _ in range(SLOTS + 2):
                await queue.enqueue(request())
            await downloads(world, SLOTS - 1)
            accepted = await queue.enqueue(request("other"))
            assert (await queue.wait(accepted.export_id, SOON_S)).phase is Phase.SUCCEEDED
            assert sum("/download" in record.target for record in world.requests) == SLOTS - 1


async def test_deadline_ends_a_transfer_that_has_no_slot(site: Site, world: World) -> None:
    world.faults.add(STALLED)
    async with worker_site.worker(site), site.queue() as queue:
        for _ in range(SLOTS):
            await queue.enqueue(request())
        await downloads(world, SLOTS)
        started_s = time.monotonic()
        accepted = await queue.enqueue(request(deadline_s=5.0))
        ended = await queue.wait(accepted.export_id, 5.0 + SOON_S)
        assert time.monotonic() - started_s >= 5.0
    assert ended.phase is Phase.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.error.step) == (ErrorCode.DEADLINE_EXCEEDED, "transfer")
    assert sum("/download" in record.target for record in world.requests) == SLOTS


async def test_download_below_the_minimum_rate_is_interrupted_and_retried(
    site: Site, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minimum_rate, "WINDOW_S", 2.0)
    world.faults.add(STALLED.model_copy(update={"times": 1}))
    async with worker_site.worker(site), site.queue() as queue:
        accepted = await queue.enqueue(request())
        assert (await queue.wait(accepted.export_id, 2.0 + SOON_S)).phase is Phase.SUCCEEDED
        notes = [entry["note"] for entry in await queue.timeline(accepted.export_id)]
    assert [note for note in notes if "download_interrupted" in note and "transfer.min_kib_per_s" in note]

"""Large files in little memory, killed workers, stop signals, and lost queue entries."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from export_worker.contract.status import Phase
from export_worker.redis.client import close_redis, open_redis
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import worker_site
from support.worker_site import Running, Site, memory_mib

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
MIB = 2**20
MEMORY_GROWTH_MAX_MIB = 96


@pytest.fixture
def running(site: Site) -> Iterator[Running]:
    """A worker in its own process."""
    with site.process("run") as running:
        running.until_logged("worker.started")
        yield running


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc, Linux only")
@pytest.mark.timeout(180)
async def test_file_of_300_mib_and_unknown_length_is_transferred_in_little_memory(
    site: Site, world: World, running: Running
) -> None:
    # A small export first, so that modules and objects that are loaded once do not count as growth of the transfer.
    await worker_site.export(site, REQUEST)
    before_mib = memory_mib(running.pid, "VmRSS")
    world.scenario = world.scenario.model_copy(update={"file_bytes": 300 * MIB, "framing": "chunked"})

    status = await worker_site.export(site, REQUEST, timeout_s=150)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.objects[0].bytes == 300 * MIB
    growth_mib = memory_mib(running.pid, "VmHWM") - before_mib
    assert growth_mib < MEMORY_GROWTH_MAX_MIB
    client = site.s3()
    client.delete_object(Bucket=site.bucket, Key=status.objects[0].key)
    client.close()


async def test_export_of_a_worker_killed_in_a_transfer_succeeds_and_leaves_no_upload(
    site: Site, world: World, running: Running
) -> None:
    # The download hangs after the first parts, so an upload is open when the worker is killed.
    world.scenario = world.scenario.model_copy(update={"file_bytes": 40 * MIB, "framing": "chunked"})
    world.faults.add(Fault(on="download", fault="slow", delay_s=60, after_bytes=20 * MIB))
    async with site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        while not await asyncio.to_thread(site.open_uploads):
            await asyncio.sleep(0.05)
        running.process.send_signal(signal.SIGKILL)
        with site.process("run"):
            status = await queue.wait(accepted.export_id, 30)
            events = await site.events(accepted.export_id)
        timeline = await queue.timeline(accepted.export_id)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.objects[0].bytes == 40 * MIB
    assert site.open_uploads() == []
    assert len(world.jobs) == 1
    assert len(events) == 1
    assert any("resumed: its previous worker stopped responding" in entry["note"] for entry in timeline)


async def test_export_of_a_worker_killed_in_a_submit_is_submitted_again_with_a_note(
    site: Site, world: World, running: Running
) -> None:
    world.faults.add(Fault(on="submit", fault="slow", delay_s=30, executed=True))
    async with site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        while not world.requests:
            await asyncio.sleep(0.02)
        running.process.send_signal(signal.SIGKILL)
        with site.process("run"):
            status = await queue.wait(accepted.export_id, 30)
        notes = [entry["note"] for entry in await queue.timeline(accepted.export_id)]

    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.counters.submits == 2
    assert any("submitted again" in note for note in notes), notes


async def test_worker_that_gets_a_stop_signal_hands_its_transfer_over_and_exits_0(
    site: Site, world: World, running: Running
) -> None:
    world.scenario = world.scenario.model_copy(update={"file_bytes": 40 * MIB, "framing": "chunked"})
    world.faults.add(Fault(on="download", fault="slow", delay_s=60, after_bytes=20 * MIB))
    async with site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        while not await asyncio.to_thread(site.open_uploads):
            await asyncio.sleep(0.05)
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.process.wait, 25) == 0
        assert site.open_uploads() == []
        with site.process("run"):
            status = await queue.wait(accepted.export_id, 30)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert "Traceback" not in running.log.read_text(encoding="utf-8")


async def test_export_whose_queue_entry_is_lost_is_enqueued_again(site: Site, world: World) -> None:
    async with site.queue() as queue, worker_site.worker(site):
        world.scenario = world.scenario.model_copy(update={"hold_stage": "RUNNING"})
        accepted = await queue.enqueue(REQUEST)
        while (await queue.status(accepted.export_id)).counters.polls < 2:
            await asyncio.sleep(0.02)
    await drop_queue(site)
    async with site.queue() as queue, worker_site.worker(site):
        world.scenario = world.scenario.model_copy(update={"hold_stage": None})
        status = await queue.wait(accepted.export_id, 30)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert len(world.jobs) == 1


async def drop_queue(site: Site) -> None:
    """Deletes every queue entry of the namespace, as if Redis had lost the queue's keys."""
    client = open_redis(site.redis_url)
    for pattern in (f"{site.namespace}:queue:*", f"arq:*{site.namespace}:*"):
        keys = await client.keys(pattern)
        if keys:
            await client.delete(*keys)
    await close_redis(client)


async def test_many_exports_wait_at_the_same_time_in_one_worker(site: Site, world: World) -> None:
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.5, "rows": 5})
    async with worker_site.worker(site), site.queue() as queue:
        accepted = [await queue.enqueue(REQUEST) for _ in range(100)]
        ended = [await queue.wait(answer.export_id, 50) for answer in accepted]

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 100
    assert len(world.jobs) == 100


async def test_export_of_a_killed_worker_is_resumed_within_30_s_by_default(site: Site, world: World) -> None:
    site.settings = {"worker": {}}
    world.faults.add(Fault(on="poll", fault="slow", delay_s=300))
    async with site.queue() as queue:
        with site.process("run") as first:
            export_id = (await queue.enqueue(REQUEST)).export_id
            while (await queue.status(export_id)).phase is not Phase.RUNNING or world.requests[-1].status is not None:
                await asyncio.sleep(0.02)
            with site.process("run") as second:
                second.until_logged("worker.started")
                first.process.kill()
                killed_s = time.monotonic()
                status = await queue.wait(export_id, 60)
                took_s = time.monotonic() - killed_s
            assert len(world.jobs) == 1

    assert status.phase is Phase.SUCCEEDED, status.error
    assert took_s < 30

"""A worker stops while S3 or Redis does not answer: its leases end about when it exits, not a whole lease later."""

import asyncio
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from export_producers.client import ExportQueue
from export_worker.contract.status import Phase
from export_worker.demo.processes import child, free_port, redis_binary
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from export_worker.worker.claim_loop import CLEANUP_TIMEOUT_S
from support import s3_server, worker_site
from support.redis_process import wait_until_ready
from support.s3_server import Call
from support.worker_site import Running, Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": SEGMENT})
DRAIN_S, LEASE_S = 1.0, 15.0
SPARE_S = 8.0
"""For a claim, its log line, and a busy machine. Less than a lease."""


def settings() -> dict[str, dict[str, float]]:
    return {"worker": {"sweep_s": 0.5, "lease_s": LEASE_S, "drain_s": DRAIN_S}}


async def resumed(queue: ExportQueue, export_id: str) -> str:
    """Waits until another worker has resumed the export, and returns the note about it."""
    async with asyncio.timeout(60):
        while True:
            notes = [entry["note"] for entry in await queue.timeline(export_id)]
            if found := [note for note in notes if note.startswith("resumed")]:
                return str(found[0])
            await asyncio.sleep(0.05)


async def exited(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.process.wait, 30) == 0


@contextmanager
def hanging_s3(upstream: str) -> Iterator[tuple[str, threading.Event]]:
    """Yields the URL of an S3 that answers until a transfer writes, and an event that is set from then on."""
    hanging, ended = threading.Event(), threading.Event()

    def hang(call: Call) -> None:
        # Checks of the store and the sweep of uploads only read.
        if hanging.is_set() or call.method in {"PUT", "POST"}:
            hanging.set()
            ended.wait()

    with s3_server.s3_proxy(upstream) as proxy:
        proxy.rule = hang
        yield proxy.endpoint_url, hanging
        ended.set()


async def test_transfer_of_a_worker_that_cannot_leave_s3_is_resumed_before_a_lease_has_passed(site: Site) -> None:
    site.settings = settings()
    with hanging_s3(site.s3_url) as (hanging_url, hanging):
        async with site.queue() as queue:
            with replace(site, s3_url=hanging_url).process("run") as running:
                export_id = (await queue.enqueue(REQUEST)).export_id
                assert await asyncio.to_thread(hanging.wait, 60)
                stopped_s, exiting = time.monotonic(), asyncio.create_task(exited(running))
                async with worker_site.worker(site):
                    note = await resumed(queue, export_id)
                    took_s = time.monotonic() - stopped_s
                    status = await queue.wait(export_id, 60)
                await exiting
                assert "worker.stop_forced" in running.log.read_text(encoding="utf-8")
    assert status.phase is Phase.SUCCEEDED, status.error
    assert took_s < DRAIN_S + CLEANUP_TIMEOUT_S + SPARE_S
    assert note == "resumed: its previous worker shut down"


async def test_step_of_a_worker_that_cannot_reach_redis_is_resumed_soon_after_redis_is_back(
    site: Site, world: World, tmp_path: Path
) -> None:
    site.settings, port = settings(), free_port()
    site.redis_url = f"redis://127.0.0.1:{port}/0"
    command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path), "--save", ""]
    world.faults.add(Fault(on="poll", fault="slow", delay_s=300))
    async with child(command, name="redis", directory=tmp_path) as server, site.queue() as queue:
        await wait_until_ready(server, port, name="redis", directory=tmp_path)
        with site.process("run") as running:
            export_id = (await queue.enqueue(REQUEST)).export_id
            while (await queue.status(export_id)).phase is not Phase.RUNNING or world.requests[-1].status is not None:
                await asyncio.sleep(0.02)
            server.send_signal(signal.SIGSTOP)
            await exited(running)
        server.send_signal(signal.SIGCONT)
        back_s = time.monotonic()
        async with worker_site.worker(site):
            await resumed(queue, export_id)
            took_s = time.monotonic() - back_s
            status = await queue.wait(export_id, 60)
    assert status.phase is Phase.SUCCEEDED, status.error
    assert took_s < SPARE_S

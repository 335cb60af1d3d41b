"""A worker whose log is not read ends its exports, and signals end a process whatever its event loop does."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from export_worker.contract.status import Phase
from export_worker.simulator.world import World
from support.command_forks import COMMAND
from support.worker_site import Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
PIPE_BYTES = 4096
"""Full after a dozen lines."""
EXPORTS = 15
HANGS = """
import asyncio, time
from export_worker.commands.stopping import stop_on_signals

async def main():
    stop_on_signals("worker.stop_forced", 1.0, "the loop hangs")
    print("ready", flush=True)
    time.sleep(60)

asyncio.run(main())
"""


@contextmanager
def unread_worker(site: Site) -> Iterator["subprocess.Popen[bytes]"]:
    """Starts a worker that logs much, into a small pipe whose reader reads nothing."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    command = [*COMMAND, "run", "--log-level", "DEBUG"]
    process = subprocess.Popen(command, stdout=writer, stderr=writer, env=site.environment())
    os.close(writer)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(reader)


@pytest.mark.timeout(90)
async def test_worker_whose_log_is_not_read_ends_every_export_once_and_stops_on_sigterm(
    site: Site, world: World
) -> None:
    async with site.queue() as queue:
        with unread_worker(site) as process:
            accepted = [await queue.enqueue(REQUEST) for _ in range(EXPORTS)]
            ended = [await queue.wait(each.export_id, 40) for each in accepted]
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0
    assert {each.phase for each in ended} == {Phase.SUCCEEDED}
    assert len(world.jobs) == EXPORTS


@pytest.mark.timeout(40)
def test_sigterm_ends_a_process_whose_event_loop_hangs() -> None:
    process = subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - started >= 1.0, "the process had no time to stop in order"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

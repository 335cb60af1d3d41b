"""Starts workers that kill themselves at a chosen point; see `crash_worker`."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from uuid import uuid4

from support import crash_worker
from support.worker_forks import forked
from support.worker_site import Site

TIMEOUT_S = 120.0
"""Detects a hang: even a slow machine needs less."""


@asynccontextmanager
async def crashing_worker(site: Site, point: str, log: Path) -> AsyncIterator[ForkServerProcess]:
    """Starts a worker process that kills itself at one point. It is killed at the end in any case."""
    # Without the sweep of uploads: it runs at intervals, and its effects look like those of a resumed transfer.
    environment = site.environment() | {"EXPORT_S3__SWEEP_UPLOADS": "false"}
    process = await asyncio.to_thread(forked, crash_worker.main, environment, point, log, log.with_suffix(".log"))
    try:
        yield process
    finally:
        process.kill()
        await ended(process)


async def ended(process: ForkServerProcess) -> None:
    """Waits for a process without a thread, since many processes are waited for at the same time."""
    exited = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


async def killed_at(site: Site, point: str) -> bool:
    """Runs a worker until it has killed itself. Returns False if it never reached the point."""
    async with crashing_worker(site, point, site.outputs / f"crash-{uuid4().hex}") as process:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await ended(process)
        except TimeoutError:
            return False
        return process.exitcode == -signal.SIGKILL

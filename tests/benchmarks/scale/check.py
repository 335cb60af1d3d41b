"""Runs slices of a load, and compares what they use with what the model computes from the costs.

One slice has a hundred thousand waiting exports while two thousand a minute are accepted and end. The other has very
many ended exports: copies of some that the project's own scripts have written.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.console.__main__ import redis_in_memory
from benchmarks.console.kept import NAMESPACE, fill
from benchmarks.scale.model import MIB, Costs
from export_producers.client import ExportQueue
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.credentials import Redactor
from export_worker.demo.processes import redis_server
from export_worker.redis.claims import ConnectionLimits
from export_worker.redis.client import close_redis, open_redis
from export_worker.telemetry.logs import configure_logging
from support.redis_site import QueueSite, request_of
from support.scripted_worker import Parts, ScriptedDriver

WAITING = 100_000
A_MINUTE = 2_000
FLOW_S = 30
EXPORTS = 1_000_000
"""A day's records. On a busy machine, fewer are enough (`--records`)."""
AT_ONCE = 1_000
"""Entries of a sorted set that one command moves."""
READS = 20
ENDED_S = 60.0
"""Limit for the last exports of the flow."""

Compared = tuple[str, float, float, str]
"""What was measured, predicted, seen, and the unit."""


async def check(console: Console, costs: Costs, records: int) -> None:
    """Runs the slices, and prints what was predicted and what was seen."""
    logging.disable(logging.WARNING)
    with TemporaryDirectory() as directory:
        async with redis_server(Path(directory)) as url:
            compared = [*await _flow(url, costs)]
        async with redis_in_memory(Path(directory)) as url:
            compared += await _records(url, costs, records)
    table = Table("slice", "predicted", "seen", "unit", "seen / predicted")
    for what, predicted, seen, unit in compared:
        ratio = "" if not predicted else f"{seen / predicted:.2f}"
        table.add_row(what, f"{predicted:,.2f}" if predicted else "", f"{seen:,.2f}", unit, ratio)
    console.print(table)


async def _flow(url: str, costs: Costs) -> Sequence[Compared]:
    """Accepts and ends exports beside a hundred thousand that wait."""
    redis: Any = open_redis(url)
    keys, count = Keys("flow"), A_MINUTE * FLOW_S // 60
    async with ExportQueue(url, namespace="flow") as queue:
        before, enqueued = await _memory(redis), await _used_s(redis)
        await queue.enqueue_many([request_of()] * WAITING)
        enqueued = await _used_s(redis) - enqueued
        waiting = (await _memory(redis) - before) / WAITING
        await _put_off(redis, keys)
        async with _worker(url, "flow") as process:
            used = await _used_s(redis)
            for _ in range(FLOW_S):
                began = time.monotonic()
                await queue.enqueue_many([request_of()] * (count // FLOW_S))
                await asyncio.sleep(max(0.0, 1 - (time.monotonic() - began)))
            await _until_ended(queue, count // FLOW_S * FLOW_S)
            used = await _used_s(redis) - used
            worker_s = await _stopped(process)
        await redis.flushall()
    await close_redis(redis)
    done, cost = count // FLOW_S * FLOW_S, costs["redis"]
    return [
        ("a waiting export", cost["waiting_bytes"], waiting, "bytes of Redis"),
        ("an accepted export", cost["enqueue_ms"], 1000 * enqueued / WAITING, "ms of Redis"),
        (
            f"a submit and a poll, {A_MINUTE:,} exports a minute, {WAITING:,} waiting",
            cost["enqueue_ms"] + 2 * cost["step_ms"],
            1000 * used / done,
            "ms of Redis, an export",
        ),
        ("the same", 2 * costs["control"]["step_ms"], 1000 * worker_s / done, "ms of control, an export"),
    ]


async def _records(url: str, costs: Costs, exports: int) -> Sequence[Compared]:
    """Writes ended exports, and reads pages and the overview of few and of many."""
    redis: Any = open_redis(url)
    async with ExportQueue(url, namespace=NAMESPACE) as queue:
        await fill(url, AT_ONCE, 0)
        few = [await _read_ms(redis, queue, overview=each) for each in (False, True)]
        await redis.flushall()
        before = await _memory(redis)
        await fill(url, exports, 0)
        stored = sum((await queue.reads.overview()).phases.values())
        size = (await _memory(redis) - before) / stored
        many = [await _read_ms(redis, queue, overview=each) for each in (False, True)]
        whole = await _memory(redis)
    await close_redis(redis)
    predicted_mib = stored * costs["redis"]["ended_bytes"] / MIB
    return [
        ("an ended export", costs["redis"]["ended_bytes"], size, "bytes of Redis"),
        (f"{stored:,} ended exports", predicted_mib, (whole - before) / MIB, "MiB of Redis"),
        (f"a page of 50 of {stored:,}, and of {AT_ONCE:,}", few[0], many[0], "ms of Redis"),
        (f"the overview of {stored:,}, and of {AT_ONCE:,}", few[1], many[1], "ms of Redis"),
    ]


async def _read_ms(redis: Any, queue: ExportQueue, *, overview: bool) -> float:
    """Returns the processor time that Redis needs for a page, or for the overview."""
    used = await _used_s(redis)
    for _ in range(READS):
        await (queue.reads.overview() if overview else queue.page(limit=50))
    return 1000 * (await _used_s(redis) - used) / READS


async def _put_off(redis: Any, keys: Keys) -> None:
    """Makes every export due tomorrow."""
    tomorrow_ms = time.time() * 1000 + 86_400_000
    for key in (keys.queue("control"), keys.open):
        members = await redis.zrange(key, 0, -1)
        for first in range(0, len(members), AT_ONCE):
            await redis.zadd(key, dict.fromkeys(members[first : first + AT_ONCE], tomorrow_ms))


async def _until_ended(queue: ExportQueue, count: int) -> None:
    async with asyncio.timeout(ENDED_S):
        while (await queue.reads.overview()).phases[Phase.FAILED] < count:
            await asyncio.sleep(0.5)


async def _memory(redis: Any) -> int:
    memory: int = (await redis.info("memory"))["used_memory"]
    return memory


async def _used_s(redis: Any) -> float:
    used = await redis.info("cpu")
    return float(used["used_cpu_sys"] + used["used_cpu_user"])


@asynccontextmanager
async def _worker(url: str, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a control worker, whose platform answers at once, and refuses each operation at its first poll."""
    command = [sys.executable, str(Path(__file__).parent), "worker", url, name]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _stopped(process: asyncio.subprocess.Process) -> float:
    """Ends a worker, and returns its processor time since its start."""
    out, _ = await process.communicate(b"")
    return float(out)


def work(url: str, name: str) -> None:
    """Runs the worker process until its standard input ends. It prints its processor time."""
    configure_logging(Redactor(), "ERROR")

    async def run() -> float:
        redis: Any = open_redis(url)
        async with ExportQueue(url, namespace=name) as queue:
            site = QueueSite(redis, queue, Keys(name), limits={"gio": ConnectionLimits(10**6, 1e6)})
            async with Parts(site, ScriptedDriver(), lambda: datetime.now(UTC)).running(max_jobs=50):
                started_s = time.process_time()
                sys.stdout.write("ready\n")
                sys.stdout.flush()
                await asyncio.to_thread(sys.stdin.read)
                used_s = time.process_time() - started_s
        await close_redis(redis)
        return used_s

    sys.stdout.write(f"{asyncio.run(run())}\n")

"""Compares export steps with arq's no-op jobs: throughput with 1, 2 and 4 workers, calls to Redis, and pick-up time.

Each export has two steps, a submit and a final poll, with a platform that answers at once. So the benchmark measures
claims, decisions and commits. arq's jobs do nothing. Both run up to 50 jobs concurrently and log only warnings. Rounds
take turns, so the ratio is more precise than the rates. Run it with `make bench-queue`; it takes some minutes.
"""

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from export_producers.client import ExportQueue
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor
from export_worker.demo.processes import redis_server
from export_worker.lifecycle.observations import Submitted
from export_worker.redis.claims import ConnectionLimits
from export_worker.redis.client import close_redis, open_redis
from export_worker.telemetry.logs import configure_logging
from support.redis_site import QueueSite, request_of
from support.scripted_worker import Parts, ScriptedDriver

STEPS = 6_000
MAX_JOBS = 50
WORKERS = (1, 2, 4)
ROUNDS = 3
WAITING = 100_000
PICK_UPS = 200
POLL_DELAY_S = 0.02
"""arq's interval between two reads of its queue. The default of 0.5 s limits it to 100 jobs/s here."""

CONSOLE = Console(width=110)


class InstantDriver(ScriptedDriver):
    """A platform that accepts every job, and has finished it at the first poll."""

    async def submit(self, export: Any) -> Submitted:
        """See `ScriptedDriver`."""
        await super().submit(export)
        return Submitted("op", "CREATED", done=True)


@dataclass(frozen=True)
class Round:
    """The figures of one round, for arq or for export-worker.

    Args:
        rate: Steps or jobs per second.
        cpu_ms: Processor time of the workers for each step or job.
        round_trips: Calls to Redis for each step or job.
    """

    rate: float
    cpu_ms: float
    round_trips: float


# --- the worker processes ----------------------------------------------------------------------------------------


async def no_op(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:
    """The job that arq runs."""


async def wait_for_start(redis: Any, name: str) -> None:
    """Reports that this process is ready, and waits for the start signal."""
    await redis.rpush(f"{name}:ready", os.getpid())
    await redis.blpop([f"{name}:go"], 0)


async def work_as_arq(url: str, name: str) -> None:
    """Runs the jobs in arq's queue until it is empty."""
    redis = open_redis(url)
    worker = Worker(
        functions=[func(no_op, name="no_op")],
        queue_name=f"{name}:queue",
        redis_pool=redis,
        burst=True,
        max_jobs=MAX_JOBS,
        poll_delay=POLL_DELAY_S,
        keep_result=0,
        handle_signals=False,
        job_serializer=redis.job_serializer,
        job_deserializer=redis.job_deserializer,
    )
    await wait_for_start(redis, name)
    await worker.async_run()
    await close_redis(redis)


async def work_as_export_worker(url: str, name: str) -> None:
    """Runs steps until no step is due within a minute."""
    redis: Any = open_redis(url)
    async with ExportQueue(url, namespace=name) as queue:
        site = QueueSite(redis, queue, Keys(name), limits={"gio": ConnectionLimits(10**6, 1e6)})
        parts = Parts(site, InstantDriver(), lambda: datetime.now(UTC), draw=random.random)
        async with parts.running(max_jobs=MAX_JOBS):
            await wait_for_start(redis, name)
            while await redis.zcount(site.keys.queue("control"), "-inf", time.time() * 1000 + 60_000):
                await asyncio.sleep(0.02)
    await close_redis(redis)


async def work_until_killed(url: str, name: str) -> None:
    """Runs steps, and reports the start time of each submit."""
    redis: Any = open_redis(url)

    class ReportingDriver(InstantDriver):
        async def submit(self, export: Any) -> Submitted:
            await redis.rpush(f"{name}:submits", time.time())
            return await super().submit(export)

    async with ExportQueue(url, namespace=name) as queue:
        site = QueueSite(redis, queue, Keys(name), limits={"gio": ConnectionLimits(10**6, 1e6)})
        async with Parts(site, ReportingDriver(), lambda: datetime.now(UTC)).running(max_jobs=MAX_JOBS):
            await wait_for_start(redis, name)
            await asyncio.sleep(3600)


ROLES: dict[str, Callable[[str, str], Awaitable[None]]] = {
    "arq": work_as_arq,
    "ours": work_as_export_worker,
    "idle": work_until_killed,
}


def work(role: str, url: str, name: str) -> None:
    """Runs one worker process. It prints its processor time at the end."""
    configure_logging(Redactor(), "WARNING")
    logging.getLogger("arq").setLevel(logging.WARNING)

    async def run() -> None:
        await ROLES[role](url, name)

    started_s = time.process_time()
    asyncio.run(run())
    sys.stdout.write(f"{time.process_time() - started_s}\n")


@asynccontextmanager
async def processes(role: str, count: int, url: str, name: str) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Starts worker processes, and yields them when all are ready."""
    command = [sys.executable, __file__, role, url, name]
    started = [
        await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env={**os.environ})
        for _ in range(count)
    ]
    redis: Any = Redis.from_url(url)
    try:
        for _ in started:
            await redis.blpop([f"{name}:ready"], 60)
        yield started
    finally:
        await redis.aclose()
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


# --- the measurements --------------------------------------------------------------------------------------------


async def fill_for_arq(url: str, name: str) -> None:
    """Enqueues as many no-op jobs as there are steps."""
    redis: ArqRedis = open_redis(url)
    for _ in range(STEPS // MAX_JOBS):
        await asyncio.gather(*(redis.enqueue_job("no_op", _queue_name=f"{name}:queue") for _ in range(MAX_JOBS)))
    await close_redis(redis)


async def fill_for_export_worker(url: str, name: str) -> None:
    """Enqueues exports of two steps each."""
    async with ExportQueue(url, namespace=name) as queue:
        await queue.enqueue_many([request_of()] * (STEPS // 2))


async def round_trips(redis: Any) -> int:
    """Returns the workers' calls: of export-worker the scripts without the commands in them, of arq all commands."""
    stats = await redis.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
    return calls.get("evalsha", 0) or sum(calls.values())


async def one_round(role: str, count: int, url: str) -> Round:
    """Fills the queue, starts the workers, and waits until they end."""
    name = f"b{uuid4().hex[:8]}"
    await (fill_for_arq if role == "arq" else fill_for_export_worker)(url, name)
    redis: Any = Redis.from_url(url)
    async with processes(role, count, url, name) as started:
        await redis.config_resetstat()
        started_s = time.perf_counter()
        await redis.rpush(f"{name}:go", *range(count))
        outputs = await asyncio.gather(*(process.communicate() for process in started))
        took_s = time.perf_counter() - started_s
        trips = await round_trips(redis)
    await redis.aclose()
    cpu_s = sum(float(out) for out, _ in outputs)
    return Round(STEPS / took_s, 1000 * cpu_s / STEPS, trips / STEPS)


async def throughput(url: str) -> None:
    """Measures arq and export-worker in turn, for each number of workers."""
    table = Table("workers", "arq jobs/s", "our steps/s", "ratio", "CPU ms arq", "ours", "calls arq", "ours")
    for count in WORKERS:
        pairs = [(await one_round("arq", count, url), await one_round("ours", count, url)) for _ in range(ROUNDS)]
        arq, ours = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        table.add_row(
            str(count),
            f"{median(each.rate for each in arq):,.0f}",
            f"{median(each.rate for each in ours):,.0f}",
            f"{median(b.rate / a.rate for a, b in pairs):.2f}",
            f"{median(each.cpu_ms for each in arq):.2f}",
            f"{median(each.cpu_ms for each in ours):.2f}",
            f"{median(each.round_trips for each in arq):.1f}",
            f"{median(each.round_trips for each in ours):.1f}",
        )
    CONSOLE.print(table)


async def pick_up(url: str) -> None:
    """Measures the time from `enqueue` in the producer to the submit in an idle worker."""
    name = f"b{uuid4().hex[:8]}"
    redis: Any = Redis.from_url(url)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(processes("idle", 1, url, name))
        queue = await stack.enter_async_context(ExportQueue(url, namespace=name))
        await redis.rpush(f"{name}:go", "")
        waits_ms = []
        for _ in range(PICK_UPS):
            await asyncio.sleep(random.uniform(0.02, 0.1))
            enqueued_s = time.time()
            await queue.enqueue(request_of())
            _, started_s = await redis.blpop([f"{name}:submits"], 30)
            waits_ms.append(1000 * (float(started_s) - enqueued_s))
    await redis.aclose()
    waits_ms.sort()
    CONSOLE.print(f"pick-up at an idle worker, {PICK_UPS} times: p50 {median(waits_ms):.1f} ms, ", end="")
    CONSOLE.print(f"p95 {waits_ms[int(0.95 * PICK_UPS)]:.1f} ms")


async def waiting(url: str) -> None:
    """Measures steps with and without a hundred thousand waiting exports, due tomorrow, in the same namespace."""
    rates: dict[int, list[float]] = {0: [], WAITING: []}
    for waiting_count in (0, WAITING) * ROUNDS:
        rates[waiting_count].append(await round_with_waiting(url, waiting_count))
    slower = [1 - full / empty for empty, full in zip(rates[0], rates[WAITING], strict=True)]
    CONSOLE.print(
        f"{WAITING:,} waiting exports: {median(rates[WAITING]):,.0f} steps/s, without them {median(rates[0]):,.0f}; "
        f"slower by {100 * median(slower):.1f} % (pairs: {', '.join(f'{100 * each:.1f} %' for each in slower)})"
    )


async def round_with_waiting(url: str, waiting_count: int) -> float:
    """Measures one round while `waiting_count` exports wait for tomorrow. Returns steps per second."""
    name = f"b{uuid4().hex[:8]}"
    redis: Any = Redis.from_url(url)
    async with ExportQueue(url, namespace=name) as queue:
        await queue.enqueue_many([request_of()] * waiting_count)
        keys, tomorrow_ms = Keys(name), time.time() * 1000 + 86_400_000
        for key in (keys.queue("control"), keys.open):
            members = await redis.zrange(key, 0, -1)
            for first in range(0, len(members), 1000):
                await redis.zadd(key, dict.fromkeys(members[first : first + 1000], tomorrow_ms))
        await queue.enqueue_many([request_of()] * (STEPS // 2))
    async with processes("ours", 1, url, name) as started:
        started_s = time.perf_counter()
        await redis.rpush(f"{name}:go", "")
        await started[0].communicate()
        took_s = time.perf_counter() - started_s
    await redis.flushall()
    await redis.aclose()
    return STEPS / took_s


async def main() -> None:
    """Runs all measurements on a separate Redis."""
    with TemporaryDirectory() as directory:
        async with redis_server(Path(directory)) as url:
            await throughput(url)
            await pick_up(url)
            await waiting(url)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        work(*sys.argv[1:])
    else:
        asyncio.run(main())

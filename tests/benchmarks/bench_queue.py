"""Our steps beside arq's no-op jobs, in one run: throughput with 1, 2 and 4 worker processes, calls of Redis, pick-up.

Each export takes two steps, a submit and a poll that ends it, with a platform that answers at once: what is measured is
claiming, deciding and saving. arq's jobs do nothing at all. Both claim 50 at once and log warnings only. Rounds are
interleaved, and the ratio counts more than the rates. Run it with `make bench-queue`; it takes some minutes.
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
AT_ONCE = 50
WORKERS = (1, 2, 4)
ROUNDS = 3
WAITING = 100_000
PICK_UPS = 200
POLL_DELAY_S = 0.02
"""Between arq's looks into its queue. Its default, 0.5 s, would cap it at 100 jobs/s here."""

CONSOLE = Console(width=110)


class InstantDriver(ScriptedDriver):
    """A platform that takes every job, and has ended it at the first look."""

    async def submit(self, export: Any) -> Submitted:
        """See `ScriptedDriver`."""
        await super().submit(export)
        return Submitted("op", "CREATED", done=True)


@dataclass(frozen=True)
class Round:
    """What one round of one contender took.

    Args:
        cpu_ms: Of the workers, for each step or job.
        round_trips: To Redis, for each step or job.
    """

    rate: float
    cpu_ms: float
    round_trips: float


# --- the worker processes ----------------------------------------------------------------------------------------


async def no_op(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:
    """What arq runs."""


async def go(redis: Any, name: str) -> None:
    """Say that this process is ready, and wait for the signal."""
    await redis.rpush(f"{name}:ready", os.getpid())
    await redis.blpop([f"{name}:go"], 0)


async def work_as_arq(url: str, name: str) -> None:
    """Run what is in arq's queue, then leave."""
    redis = open_redis(url)
    worker = Worker(
        functions=[func(no_op, name="no_op")],
        queue_name=f"{name}:queue",
        redis_pool=redis,
        burst=True,
        max_jobs=AT_ONCE,
        poll_delay=POLL_DELAY_S,
        keep_result=0,
        handle_signals=False,
        job_serializer=redis.job_serializer,
        job_deserializer=redis.job_deserializer,
    )
    await go(redis, name)
    await worker.async_run()
    await close_redis(redis)


async def work_as_we_do(url: str, name: str) -> None:
    """Take steps until no export is open, or for ever when the name says so."""
    redis: Any = open_redis(url)
    async with ExportQueue(url, namespace=name) as queue:
        site = QueueSite(redis, queue, Keys(name), limits={"gio": ConnectionLimits(10**6, 1e6)})
        parts = Parts(site, InstantDriver(), lambda: datetime.now(UTC), draw=random.random)
        async with parts.running(max_jobs=AT_ONCE):
            await go(redis, name)
            while await redis.zcount(site.keys.queue("control"), "-inf", time.time() * 1000 + 60_000):
                await asyncio.sleep(0.02)
    await close_redis(redis)


async def work_until_killed(url: str, name: str) -> None:
    """Take steps, and note when each submit began."""
    redis: Any = open_redis(url)

    class Noting(InstantDriver):
        async def submit(self, export: Any) -> Submitted:
            await redis.rpush(f"{name}:began", time.time())
            return await super().submit(export)

    async with ExportQueue(url, namespace=name) as queue:
        site = QueueSite(redis, queue, Keys(name), limits={"gio": ConnectionLimits(10**6, 1e6)})
        async with Parts(site, Noting(), lambda: datetime.now(UTC)).running(max_jobs=AT_ONCE):
            await go(redis, name)
            await asyncio.sleep(3600)


ROLES: dict[str, Callable[[str, str], Awaitable[None]]] = {
    "arq": work_as_arq,
    "ours": work_as_we_do,
    "idle": work_until_killed,
}


def work(role: str, url: str, name: str) -> None:
    """The life of one worker process; its processor time after the signal is its last word."""
    configure_logging(Redactor(), "WARNING")
    logging.getLogger("arq").setLevel(logging.WARNING)

    async def run() -> None:
        await ROLES[role](url, name)

    begun_s = time.process_time()
    asyncio.run(run())
    sys.stdout.write(f"{time.process_time() - begun_s}\n")


@asynccontextmanager
async def processes(role: str, count: int, url: str, name: str) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Worker processes, started and ready."""
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


# --- what is measured --------------------------------------------------------------------------------------------


async def fill_for_arq(url: str, name: str) -> None:
    """As many jobs as we take steps."""
    redis: ArqRedis = open_redis(url)
    for _ in range(STEPS // AT_ONCE):
        await asyncio.gather(*(redis.enqueue_job("no_op", _queue_name=f"{name}:queue") for _ in range(AT_ONCE)))
    await close_redis(redis)


async def fill_for_us(url: str, name: str) -> None:
    """Exports of two steps."""
    async with ExportQueue(url, namespace=name) as queue:
        await queue.enqueue_many([request_of()] * (STEPS // 2))


async def round_trips(redis: Any) -> int:
    """Calls that the workers have sent: our scripts, and not what they call themselves; all commands of arq."""
    stats = await redis.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
    return calls.get("evalsha", 0) or sum(calls.values())


async def one_round(role: str, count: int, url: str) -> Round:
    """Fill, let go, and wait for the end."""
    name = f"b{uuid4().hex[:8]}"
    await (fill_for_arq if role == "arq" else fill_for_us)(url, name)
    redis: Any = Redis.from_url(url)
    async with processes(role, count, url, name) as started:
        await redis.config_resetstat()
        begun_s = time.perf_counter()
        await redis.rpush(f"{name}:go", *range(count))
        said = await asyncio.gather(*(process.communicate() for process in started))
        took_s = time.perf_counter() - begun_s
        trips = await round_trips(redis)
    await redis.aclose()
    cpu_s = sum(float(out) for out, _ in said)
    return Round(STEPS / took_s, 1000 * cpu_s / STEPS, trips / STEPS)


async def throughput(url: str) -> None:
    """Both contenders in turn, for each number of workers."""
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
    """From `enqueue` on the producer's side to the submit, at a worker that has nothing to do."""
    name = f"b{uuid4().hex[:8]}"
    redis: Any = Redis.from_url(url)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(processes("idle", 1, url, name))
        queue = await stack.enter_async_context(ExportQueue(url, namespace=name))
        await redis.rpush(f"{name}:go", "")
        waits_ms = []
        for _ in range(PICK_UPS):
            await asyncio.sleep(random.uniform(0.02, 0.1))
            asked_s = time.time()
            await queue.enqueue(request_of())
            _, began_s = await redis.blpop([f"{name}:began"], 30)
            waits_ms.append(1000 * (float(began_s) - asked_s))
    await redis.aclose()
    waits_ms.sort()
    CONSOLE.print(f"pick-up at an idle worker, {PICK_UPS} times: p50 {median(waits_ms):.1f} ms, ", end="")
    CONSOLE.print(f"p95 {waits_ms[int(0.95 * PICK_UPS)]:.1f} ms")


async def waiting(url: str) -> None:
    """The same steps with a hundred thousand exports that wait for tomorrow in the same namespace, and without."""
    rates: dict[int, list[float]] = {0: [], WAITING: []}
    for crowd in (0, WAITING) * ROUNDS:
        rates[crowd].append(await crowded_round(url, crowd))
    slower = [1 - full / empty for empty, full in zip(rates[0], rates[WAITING], strict=True)]
    CONSOLE.print(
        f"{WAITING:,} waiting exports: {median(rates[WAITING]):,.0f} steps/s, without them {median(rates[0]):,.0f}; "
        f"slower by {100 * median(slower):.1f} % (pairs: {', '.join(f'{100 * each:.1f} %' for each in slower)})"
    )


async def crowded_round(url: str, crowd: int) -> float:
    """One round beside a crowd that is due tomorrow."""
    name = f"b{uuid4().hex[:8]}"
    redis: Any = Redis.from_url(url)
    async with ExportQueue(url, namespace=name) as queue:
        await queue.enqueue_many([request_of()] * crowd)
        keys, tomorrow_ms = Keys(name), time.time() * 1000 + 86_400_000
        for key in (keys.queue("control"), keys.open):
            members = await redis.zrange(key, 0, -1)
            for first in range(0, len(members), 1000):
                await redis.zadd(key, dict.fromkeys(members[first : first + 1000], tomorrow_ms))
        await queue.enqueue_many([request_of()] * (STEPS // 2))
    async with processes("ours", 1, url, name) as started:
        begun_s = time.perf_counter()
        await redis.rpush(f"{name}:go", "")
        await started[0].communicate()
        took_s = time.perf_counter() - begun_s
    await redis.flushall()
    await redis.aclose()
    return STEPS / took_s


async def main() -> None:
    """Measure everything at a Redis of our own."""
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

"""Measures a small export from enqueue to its event, beside the worker that most teams write first (`peer.py`).

    make bench-export ARGS=--help

Both workers run as processes with an own Redis each. They share the platform simulator and a fast store, which are
processes too. The platform has finished each job when it answers the submit. Rounds take turns, so a ratio is more
precise than a figure. Processor time is that of all threads of the worker, and that of its Redis.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import click
from arq.connections import ArqRedis
from rich.console import Console
from rich.table import Table

from benchmarks.export import peer, store
from export_producers.client import ExportQueue
from export_worker.demo.processes import (
    EXPORT_WORKER,
    child,
    free_port,
    plain_environment,
    redis_server,
    simulator,
    wait_until_listening,
)
from export_worker.redis.client import close_redis, open_redis

STREAM = "bench:events"
BUCKET = "bench"
TOKEN = "sim-token"
AT_ONCE = 16
"""Exports in flight in a round with several, and slots for transfers of both workers."""
EVENT_TIMEOUT_S = 60
AWS = {
    "AWS_ACCESS_KEY_ID": "AKIDBENCH",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
}
PROJECT, SEGMENT = "WlGk4Daj", "qgQMXnD3"
REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": PROJECT, "segment_id": SEGMENT},
    }
)
DONE_AT_SUBMIT = {"on": "submit", "fault": "finish_at_submit", "times": None}

TICKS_S = os.sysconf("SC_CLK_TCK")

Enqueue = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Side:
    """One of the two workers.

    Args:
        redis: A client of its Redis.
        enqueue: Enqueues one export.
    """

    name: str
    pid: int
    redis: ArqRedis
    enqueue: Enqueue


@dataclass(frozen=True)
class Cost:
    """What one export has cost in one round.

    Args:
        wall_ms: From enqueue to event, the median of the round. With several in flight, it has waits for slots.
        rate: Exports per second.
        scripts: Calls of scripts; their commands are in `commands`.
    """

    worker_ms: float
    redis_ms: float
    wall_ms: float
    rate: float
    scripts: float
    commands: float


@dataclass(frozen=True)
class Used:
    """What worker and Redis have used until now."""

    worker_s: float
    redis_s: float
    scripts: int
    commands: int


def cpu_s(pid: int) -> float:
    """Returns the processor time of a process, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


async def used(side: Side) -> Used:
    cpu: Any = await side.redis.info("cpu")
    calls = {name: stat["calls"] for name, stat in (await side.redis.info("commandstats")).items()}
    scripts = sum(calls.get(f"cmdstat_{name}", 0) for name in ("evalsha", "eval"))
    return Used(cpu_s(side.pid), cpu["used_cpu_user"] + cpu["used_cpu_sys"], scripts, sum(calls.values()))


async def measured(side: Side, exports: int, in_flight: int) -> Cost:
    """Runs exports, `in_flight` of them at a time, and returns what each has cost."""
    before, started_s = await used(side), time.perf_counter()
    enqueued_s, walls_s, last = list[float](), list[float](), await last_event(side)
    for _ in range(min(in_flight, exports)):
        enqueued_s.append(time.perf_counter())
        await side.enqueue()
    while len(walls_s) < exports:
        answer = await side.redis.xread({STREAM: last}, block=1000 * EVENT_TIMEOUT_S)
        if not answer:
            raise click.ClickException(f"{side.name}: no event within {EVENT_TIMEOUT_S} s")
        for event_id, _ in answer[0][1]:
            # Events may come in another order than their exports. The sum of the waits is the same.
            last, ended_s = event_id, time.perf_counter()
            walls_s.append(ended_s - enqueued_s[len(walls_s)])
            if len(enqueued_s) < exports:
                enqueued_s.append(time.perf_counter())
                await side.enqueue()
    took_s, after = time.perf_counter() - started_s, await used(side)
    return Cost(
        worker_ms=1000 * (after.worker_s - before.worker_s) / exports,
        redis_ms=1000 * (after.redis_s - before.redis_s) / exports,
        wall_ms=1000 * median(walls_s),
        rate=exports / took_s,
        scripts=(after.scripts - before.scripts) / exports,
        commands=(after.commands - before.commands) / exports,
    )


async def last_event(side: Side) -> str:
    newest: list[Any] = await side.redis.xrevrange(STREAM, count=1)
    return newest[0][0] if newest else "0"


# --- the processes -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def fast_store(directory: Path) -> AsyncIterator[str]:
    port = free_port()
    command = [sys.executable, str(store.__file__), str(port)]
    async with child(command, name="store", directory=directory) as process:
        await wait_until_listening(process, port, name="store", directory=directory)
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def own_redis(directory: Path, name: str) -> AsyncIterator[tuple[str, ArqRedis]]:
    (directory / name).mkdir()
    async with redis_server(directory / name) as url:
        client = open_redis(url)
        try:
            yield url, client
        finally:
            await close_redis(client)


@asynccontextmanager
async def our_side(directory: Path, platform_url: str, store_url: str) -> AsyncIterator[Side]:
    settings = {
        "EXPORT_S3__BUCKET": BUCKET,
        "EXPORT_S3__ENDPOINT_URL": store_url,
        "EXPORT_CONNECTIONS__GIO__PLATFORM": "growingio",
        "EXPORT_CONNECTIONS__GIO__BASE_URL": platform_url,
        "EXPORT_CONNECTIONS__GIO__TOKEN": TOKEN,
        "EXPORT_CONNECTIONS__GIO__POLL__FIRST_S": str(peer.POLL_S),
        "EXPORT_CONNECTIONS__GIO__MAX_IN_FLIGHT": "1000",
        "EXPORT_CONNECTIONS__GIO__REQUESTS_PER_SECOND": "10000",
        "EXPORT_SINKS__STREAM__TYPE": "redis-stream",
        "EXPORT_SINKS__STREAM__STREAM": STREAM,
        "EXPORT_WORKER__TRANSFERS": str(AT_ONCE),
    }
    async with own_redis(directory, "ours") as (url, redis), ExportQueue(url) as queue:
        environment = plain_environment() | AWS | settings | {"EXPORT_REDIS_URL": url}
        command = [*EXPORT_WORKER, "run"]
        async with child(command, name="worker", directory=directory, env=environment) as process:
            yield Side("export-worker", process.pid, redis, lambda: queue.enqueue(REQUEST))


@asynccontextmanager
async def peer_side(directory: Path, platform_url: str, store_url: str) -> AsyncIterator[Side]:
    settings = {
        "PEER_PLATFORM": platform_url,
        "PEER_TOKEN": TOKEN,
        "PEER_S3": store_url,
        "PEER_BUCKET": BUCKET,
        "PEER_STREAM": STREAM,
        "PEER_MAX_JOBS": str(AT_ONCE),
    }
    async with own_redis(directory, "peer") as (url, redis):
        environment = plain_environment() | AWS | settings | {"PEER_REDIS": url}
        pooled = ArqRedis(redis.connection_pool)

        async def enqueue() -> None:
            await pooled.enqueue_job("export", PROJECT, SEGMENT)

        command = [sys.executable, str(peer.__file__)]
        async with child(command, name="peer", directory=directory, env=environment) as process:
            yield Side("peer", process.pid, redis, enqueue)


@asynccontextmanager
async def both_sides(directory: Path) -> AsyncIterator[tuple[Side, Side]]:
    async with AsyncExitStack() as stack:
        platform_url = await stack.enter_async_context(simulator(directory))
        async with aiohttp.ClientSession(platform_url) as control:
            await control.patch("/_sim/scenario", json={"stage_s": 0})
            await control.post("/_sim/faults", json=DONE_AT_SUBMIT)
        store_url = await stack.enter_async_context(fast_store(directory))
        urls = platform_url, store_url
        ours = await stack.enter_async_context(our_side(directory, *urls))
        yield ours, await stack.enter_async_context(peer_side(directory, *urls))


# --- the table ---------------------------------------------------------------------------------------------------


def spread(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(title: str, costs: dict[str, list[Cost]]) -> Table:
    """Returns the medians of all rounds, with the smallest and the largest, and the ratios of both sides."""
    grid = Table(title=title, title_justify="left", box=None)
    for column in ("", *costs, "RATIO"):
        grid.add_column(column, justify="right" if column else "left")
    rows = {
        "worker CPU ms": ("worker_ms", 2),
        "Redis CPU ms": ("redis_ms", 2),
        "enqueue to event ms": ("wall_ms", 1),
        "exports/s": ("rate", 0),
        "scripts": ("scripts", 1),
        "commands": ("commands", 0),
    }
    for label, (field, digits) in rows.items():
        ours, theirs = ([getattr(cost, field) for cost in each] for each in costs.values())
        ratio = median(own / other for own, other in zip(ours, theirs, strict=True)) if all(theirs) else None
        grid.add_row(label, spread(ours, digits), spread(theirs, digits), "-" if ratio is None else f"{ratio:.2f}")
    return grid


async def measure(rounds: int, single: int, several: int) -> dict[str, dict[str, list[Cost]]]:
    cases = {"one at a time": (single, 1), f"{AT_ONCE} at a time": (several, AT_ONCE)}
    with tempfile.TemporaryDirectory() as directory:
        async with both_sides(Path(directory)) as sides:
            for side in sides:  # warm up: imports, connections, scripts
                await measured(side, 4 * AT_ONCE, AT_ONCE)
            found: dict[str, dict[str, list[Cost]]] = {case: {side.name: [] for side in sides} for case in cases}
            for number in range(rounds):
                for case, (exports, in_flight) in cases.items():
                    for side in sides if number % 2 == 0 else reversed(sides):
                        found[case][side.name].append(await measured(side, exports, in_flight))
    return found


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds of each side.")
@click.option("--single", default=40, show_default=True, help="Exports of a round, one at a time.")
@click.option("--several", default=160, show_default=True, help=f"Exports of a round, {AT_ONCE} at a time.")
def main(rounds: int, single: int, several: int) -> None:
    """Measures both workers and prints a table for each case."""
    found = asyncio.run(measure(rounds, single, several))
    console = Console(width=110)
    for case, costs in found.items():
        console.print(table(f"A small export, {case}: median of {rounds} rounds (smallest-largest)", costs))
        console.print()


if __name__ == "__main__":
    main()

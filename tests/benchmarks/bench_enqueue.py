"""Measures enqueued requests per second: with the library, its synchronous client and HTTP, compared with plain arq.

The ways take turns: each enqueues `ROUND` exports, `ROUNDS` times. The figure is the median of the rounds, and a busy
moment of the machine affects all ways. Run it with `make bench-enqueue`.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
from arq.connections import ArqRedis
from rich.console import Console
from rich.table import Table

from export_producers import ExportQueue, ExportRequest, SyncExportQueue
from export_worker.demo.processes import child, free_port, plain_environment, redis_binary, wait_until_listening
from export_worker.redis.client import close_redis, open_redis

ROUND = 500
ROUNDS = 7
CALLS_IN_FLIGHT = 20
"""Concurrent calls of the ways that allow several, as in a service that handles as many requests."""
REQUEST = (
    '{"connection": "gio", "metadata": {"order": "42"},'
    ' "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}}'
)

JSON_TYPE = {"Content-Type": "application/json"}

Way = Callable[[], Awaitable[None]]


@dataclass
class Tally:
    """The durations of the rounds of one way, and the processor time of this process in them."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


async def at_once(call: Callable[[], Awaitable[object]]) -> None:
    """Makes the calls of one round, with `CALLS_IN_FLIGHT` concurrent calls."""

    async def share() -> None:
        for _ in range(ROUND // CALLS_IN_FLIGHT):
            await call()

    await asyncio.gather(*(share() for _ in range(CALLS_IN_FLIGHT)))


async def one_by_one(call: Callable[[], Awaitable[object]]) -> None:
    """Makes the calls of one round, each after the answer to the one before."""
    for _ in range(ROUND):
        await call()


def ways(
    redis: ArqRedis, queue: ExportQueue, sync: SyncExportQueue, client: aiohttp.ClientSession, url: str
) -> Iterator[tuple[str, Way]]:
    """Yields every way with its name."""
    request = ExportRequest.model_validate_json(REQUEST)

    async def plain() -> object:
        return await redis.enqueue_job("export", REQUEST, _queue_name="plain")

    async def http() -> object:
        async with client.post(f"{url}/v1/exports", data=REQUEST, headers=JSON_TYPE) as answer:
            return await answer.json()

    def synchronously() -> None:
        for _ in range(ROUND):
            sync.enqueue(REQUEST)

    yield "arq.enqueue_job, one by one", lambda: one_by_one(plain)
    yield "library, one by one", lambda: one_by_one(lambda: queue.enqueue(REQUEST))
    yield "synchronous twin, one by one", lambda: asyncio.to_thread(synchronously)
    yield "gateway, one by one", lambda: one_by_one(http)
    yield f"arq.enqueue_job, {CALLS_IN_FLIGHT} at once", lambda: at_once(plain)
    yield f"library, {CALLS_IN_FLIGHT} at once", lambda: at_once(lambda: queue.enqueue(REQUEST))
    yield f"library, enqueue_many({ROUND})", lambda: _many(queue, request)
    yield f"gateway, {CALLS_IN_FLIGHT} at once", lambda: at_once(http)


async def _many(queue: ExportQueue, request: ExportRequest) -> None:
    await queue.enqueue_many([request] * ROUND)


@asynccontextmanager
async def servers(directory: Path) -> AsyncIterator[tuple[str, str]]:
    """Starts a Redis with an append-only file and a gateway, as separate processes. Yields their URLs."""
    redis_port, gateway_port = free_port(), free_port()
    redis_url = f"redis://127.0.0.1:{redis_port}/0"
    command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(redis_port), "--dir", str(directory)]
    command += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
    environment = plain_environment() | {
        "EXPORT_REDIS_URL": redis_url,
        "EXPORT_GATEWAY__PORT": str(gateway_port),
        "EXPORT_GATEWAY__REQUESTS_PER_SECOND": "1000000",
        "EXPORT_GATEWAY__BURST": "1000000",
    }
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(child(command, name="redis", directory=directory))
        await wait_until_listening(redis, redis_port, name="redis", directory=directory)
        gateway = await stack.enter_async_context(
            child(
                [sys.executable, "-m", "export_worker", "gateway"],
                name="gateway",
                directory=directory,
                env=environment,
            )
        )
        await wait_until_listening(gateway, gateway_port, name="gateway", directory=directory)
        yield redis_url, f"http://127.0.0.1:{gateway_port}"


@contextmanager
def measured(tally: Tally) -> Iterator[None]:
    """Measures one round."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    yield
    tally.wall_s.append(time.perf_counter() - wall_s)
    tally.cpu_s.append(time.process_time() - cpu_s)


async def measure() -> dict[str, Tally]:
    """Runs all ways in turn, in each round. The first round is the warm-up and is not counted."""
    with tempfile.TemporaryDirectory() as directory:
        async with servers(Path(directory)) as (redis_url, url), aiohttp.ClientSession() as client:
            redis = open_redis(redis_url)
            with SyncExportQueue(redis_url) as sync:
                async with ExportQueue(redis_url) as queue:
                    tallies: dict[str, Tally] = {}
                    for number in range(ROUNDS + 1):
                        for name, way in ways(redis, queue, sync, client, url):
                            with measured(tallies.setdefault(name, Tally()) if number else Tally()):
                                await way()
            await close_redis(redis)
    return tallies


def main() -> None:
    """Prints the table."""
    tallies = asyncio.run(measure())
    title = f"{ROUNDS} rounds of {ROUND} each, interleaved; {os.cpu_count()} processors"
    grid = Table(title=title, title_justify="left", box=None)
    for column in ("WAY", "REQUESTS/S", "SLOWEST ROUND", "CALLER'S CPU MS EACH", "OF PLAIN ARQ"):
        grid.add_column(column, justify="left" if column == "WAY" else "right")
    plain = {way: median(tally.wall_s) for way, tally in tallies.items() if way.startswith("arq")}
    for way, tally in tallies.items():
        base_s = next(
            (wall_s for name, wall_s in plain.items() if name.partition(", ")[2] == way.partition(", ")[2]), None
        )
        base_s = base_s or list(plain.values())[-1]
        rates = [ROUND / wall_s for wall_s in tally.wall_s]
        cpu_ms = median(tally.cpu_s) / ROUND * 1000
        share = base_s / median(tally.wall_s)
        grid.add_row(way, f"{median(rates):,.0f}", f"{min(rates):,.0f}", f"{cpu_ms:.2f}", f"{share:.0%}")
    Console(width=120).print(grid)


if __name__ == "__main__":
    main()

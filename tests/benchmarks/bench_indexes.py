"""Compares lists, the overview, claims and the sweep of a thousand exports with those of a million, on one Redis.

    make bench-indexes ARGS="--exports=1000000 --waiting=100000 --requesters=10000"

Prints the memory of the keys over many exports, and the processor time that Redis needs for each call: the median of
several rounds, in which both namespaces take turns, and its spread. Only the newest exports have records.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import click
from arq.connections import ArqRedis
from rich.console import Console
from rich.table import Table

from benchmarks.console.__main__ import redis_in_memory
from export_producers.client import ExportQueue
from export_producers.filters import ExportFilter
from export_producers.searching import index_metadata
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.scripts import Script
from support.index_rows import FILL, memory_of_indexes
from support.redis_site import MANY, REFUSED, QueueSite

KEPT_MS = 7 * 86_400_000
AT_ONCE = 500
REAL = 60
"""So many failed and so many queued exports have records: a page of the newest ones has 50."""
ROUNDS = 9
CALLS = 15
Call = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Size:
    """How many exports a namespace has."""

    ended: int
    waiting: int
    requesters: int


@dataclass(slots=True)
class Side:
    """One of both namespaces.

    Args:
        cpu_ms: The processor time of Redis for one call, by the name of the call, for each round.
    """

    site: QueueSite
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)


async def fill(site: QueueSite, size: Size) -> None:
    """Adds the exports to the indexes, and some with records."""
    await index_metadata(site.queue.storage, ["order"], site.now - timedelta(days=30))
    filling = Script(site.redis, FILL)
    last_ms = site.now_ms - 60_000
    shares = ((False, size.ended, last_ms - KEPT_MS + 3_600_000), (True, size.waiting, last_ms - 600_000))
    for is_waiting, count, from_ms in shares:
        end_ms = last_ms if is_waiting else last_ms - 600_000
        for first in range(0, count, AT_ONCE):
            arguments = {
                "prefix": site.keys.prefix,
                "waiting": is_waiting or None,
                "first": first,
                "count": min(AT_ONCE, count - first),
                "from_ms": from_ms,
                "step_ms": (end_ms - from_ms) / count,
                "requesters": size.requesters,
                "due_ms": site.now_ms + 86_400_000,
            }
            await filling.word([], arguments)
    site.limits = {"gio": MANY}
    await site.failed(REAL, REFUSED)
    for _ in range(REAL):
        await site.enqueue(metadata={"order": "newest"})


def calls_of(site: QueueSite) -> Iterator[tuple[str, Call]]:
    """Yields what is measured."""

    def page(**conditions: Any) -> Call:
        return lambda: site.queue.page(where=ExportFilter(**conditions))

    yield "list", page()
    yield "list: failed", page(phase=Phase.FAILED)
    yield "list: queued, one connection", page(phase=Phase.QUEUED, connection="gio")
    yield "list: one connection", page(connection="gio")
    yield "list: two connections", page(connections=frozenset({"gio", "c1"}))
    yield "list: one error", page(error="platform_refused", phase=Phase.FAILED)
    yield "list: open", page(is_open=True)
    yield "list: of the last day", page(since=site.now - timedelta(days=1))
    yield "list: the oldest of a rare requester", page(requested_by="rare")
    yield "list: metadata", page(search="order=newest")
    yield "overview", lambda: site.queue.reads._overview.read(site.now)
    yield "claim and hand back", lambda: claim(site)
    yield "sweep", site.sweep


async def claim(site: QueueSite) -> None:
    """Claims the next step, and hands it back."""
    (claimed,) = (await site.claimed(1)).steps
    await site.store.hand_back(claimed, site.now)


async def cpu_s(redis: Any) -> float:
    """Returns the processor time that Redis has used."""
    found = await redis.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


async def measure(sides: list[Side]) -> None:
    """Measures each call of both namespaces in turns, some calls at a time."""
    calls = [list(calls_of(side.site)) for side in sides]
    for number in range(ROUNDS + 1):
        for both in zip(*calls, strict=True):
            turns = list(zip(sides, both, strict=True))
            for side, (name, call) in turns if number % 2 else turns[::-1]:
                before_s = await cpu_s(side.site.redis)
                for _ in range(CALLS):
                    await call()
                used_ms = (await cpu_s(side.site.redis) - before_s) * 1000 / CALLS
                if number:  # the first round warms up
                    side.cpu_ms.setdefault(name, []).append(used_ms)


def table_of(small: Side, large: Side, titles: tuple[str, str]) -> Table:
    """Returns the table of the calls."""
    table = Table("Redis, ms for each call", *titles, "ratio")
    for name, few in small.cpu_ms.items():
        many = large.cpu_ms[name]
        cells = (f"{median(each):.3f} ({min(each):.3f}-{max(each):.3f})" for each in (few, many))
        table.add_row(name, *cells, f"{median(many) / median(few):.2f}")
    return table


async def compare(redis_url: str, sizes: tuple[Size, Size]) -> None:
    """Fills both namespaces and prints the tables."""
    console = Console(width=140)
    redis: ArqRedis = open_redis(redis_url)
    async with (
        ExportQueue(redis_url, namespace="few") as few,
        ExportQueue(redis_url, namespace="many") as many,
    ):
        sides = [Side(QueueSite(redis, queue, Keys(name))) for queue, name in ((few, "few"), (many, "many"))]
        for side, size in zip(sides, sizes, strict=True):
            await fill(side.site, size)
        count = sizes[1].ended + sizes[1].waiting
        used = await memory_of_indexes(sides[1].site)
        console.print(f"{count:,} exports, {sizes[1].waiting:,} of them wait, {sizes[1].requesters:,} requesters")
        for name, size_bytes in sorted(used.items(), key=lambda item: -item[1]):
            console.print(f"  {name:<14} {size_bytes / count:7.2f} bytes an export")
        console.print(f"  {'together':<14} {sum(used.values()) / count:7.2f} bytes an export")
        await measure(sides)
        titles = tuple(f"{size.ended + size.waiting:,} exports" for size in sizes)
        console.print(table_of(sides[0], sides[1], (titles[0], titles[1])))
    await close_redis(redis)


async def run(sizes: tuple[Size, Size]) -> None:
    """Starts Redis and compares."""
    with tempfile.TemporaryDirectory() as folder:
        async with redis_in_memory(Path(folder)) as redis_url:
            await compare(redis_url, sizes)


@click.command(help=__doc__)
@click.option("--exports", type=int, default=1_000_000, show_default=True, help="Ended exports.")
@click.option("--waiting", type=int, default=100_000, show_default=True, help="Waiting exports.")
@click.option("--requesters", type=int, default=100, show_default=True, help="Different requesters.")
def main(exports: int, waiting: int, requesters: int) -> None:
    """Runs the comparison."""
    asyncio.run(run((Size(1000, 100, requesters), Size(exports, waiting, requesters))))


if __name__ == "__main__":
    main()

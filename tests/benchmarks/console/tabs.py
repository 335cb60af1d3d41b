"""Measures what open tabs cost while exports change, and how far behind they are."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiohttp
from rich.table import Table

from benchmarks.console.gateway import Gateway, gateway
from benchmarks.console.kept import CONNECTIONS, NAMESPACE
from benchmarks.console.pages import used_cpu_s
from export_producers.client import ExportQueue
from export_producers.filters import ExportFilter
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.client import close_redis, open_redis
from support.redis_site import MANY, QueueSite

MEASURED_S = 30.0
CHANGES_PER_S = 20.0
"""Exports that are accepted in each second of the measurement, beside the progress of running transfers."""
LISTS = [
    "exports",
    "exports?lang=zh",
    *(f"exports?phase={phase}" for phase in Phase),
    *(f"exports?connection={connection}" for connection in CONNECTIONS),
    *(f"exports?connection={connection}&phase=failed" for connection in CONNECTIONS),
    "exports?since=24h&error=platform_unavailable",
    "exports?requested_by=library&phase=queued",
]
OVERVIEWS = ["overview", "overview?lang=zh"]


@dataclass
class Watch:
    """What tabs have received.

    Args:
        accepted_s: When each export was accepted.
        seen_s: When a tab first had it.
    """

    events: int = 0
    accepted_s: dict[str, float] = field(default_factory=dict)
    seen_s: dict[str, float] = field(default_factory=dict)

    @property
    def behind_s(self) -> list[float]:
        """How far behind the first list of all exports was."""
        return [seen_s - self.accepted_s[each] for each, seen_s in self.seen_s.items() if each in self.accepted_s]


async def follow(site: Gateway, client: aiohttp.ClientSession, path: str, watch: Watch) -> None:
    """Keeps one tab open."""
    async with client.get(f"{site.url}/console/live/{path}") as stream:
        assert stream.status == 200, (path, stream.status)
        async for line in stream.content:
            if line.startswith(b"event"):
                watch.events += 1
            if path == "exports" and line.startswith(b"data"):
                now_s, text = time.monotonic(), line.decode()
                for export_id in watch.accepted_s.keys() - watch.seen_s.keys():
                    if f"export-{export_id}" in text:
                        watch.seen_s[export_id] = now_s


async def paths(queue: ExportQueue, tabs: int) -> list[str]:
    """Returns the pages of the tabs: three tenths overviews, four tenths lists, three tenths different open exports."""
    ones = list[str]()
    for phase in (Phase.TRANSFERRING, Phase.RUNNING, Phase.QUEUED):
        found = await queue.page(limit=tabs // 10, where=ExportFilter(phase=phase))
        ones += [f"exports/{status.export_id}" for status in found.statuses]
    shares = ((OVERVIEWS, 3 * tabs // 10), (LISTS, 4 * tabs // 10), (ones, tabs - 7 * tabs // 10))
    return [path for kind, count in shares for path in islice(cycle(kind), count)]


async def change(site: QueueSite, watch: Watch) -> None:
    """Accepts and submits exports."""
    while True:
        export_id = (await site.queue.enqueue(request())).export_id
        watch.accepted_s[export_id] = time.monotonic()
        site.catch_up()
        await asyncio.sleep(1 / CHANGES_PER_S)


def request() -> str:
    """Returns a request."""
    return '{"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}'


async def work(site: QueueSite, renewed: Sequence[str]) -> None:
    """Saves the progress of transfers once a second, as a worker does."""
    for number in range(10_000):
        async with site.redis.pipeline(transaction=False) as pipe:
            for export_id in renewed:
                progress = f'{{"percent": {number % 100}, "bytes_done": {number}, "bytes_total": 10000}}'
                pipe.hset(site.keys.export(export_id), "progress", progress)
            await pipe.execute()
        await asyncio.sleep(1.0)


async def measure_tabs(redis_url: str, directory: Path, tabs: int) -> Table:
    """Returns the table of open tabs: without changes of exports, and with them."""
    redis: Any = open_redis(redis_url)
    table = Table(
        "tabs", "exports/s", "transfers", "gateway CPU %", "Redis CPU %", "round trips/s", "events/s", "behind"
    )
    async with (
        ExportQueue(redis_url, namespace=NAMESPACE) as queue,
        gateway(redis_url, directory, counted=True) as site,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        ) as client,
    ):
        own = QueueSite(redis, queue, Keys(NAMESPACE), limits=dict.fromkeys(CONNECTIONS, MANY))
        transfers = [each.export_id for each in (await queue.page(Phase.TRANSFERRING, 20)).statuses]
        watch = Watch()
        opened = [asyncio.create_task(follow(site, client, path, watch)) for path in await paths(queue, tabs)]
        await asyncio.sleep(10)
        for changing in ([], [change(own, watch), work(own, transfers)]):
            tasks = [asyncio.create_task(each) for each in changing]
            await asyncio.sleep(2)
            events, accepted = watch.events, len(watch.accepted_s)
            started_s, cpu_s = time.monotonic(), site.cpu_s
            redis_s, trips = await used_cpu_s(redis), site.counter.round_trips
            await asyncio.sleep(MEASURED_S)
            took_s = time.monotonic() - started_s
            behind = watch.behind_s
            table.add_row(
                str(sum(not each.done() for each in opened)),
                f"{(len(watch.accepted_s) - accepted) / took_s:.0f}",
                str(len(transfers) if changing else 0),
                f"{100 * (site.cpu_s - cpu_s) / took_s:.1f}",
                f"{100 * (await used_cpu_s(redis) - redis_s) / took_s:.1f}",
                f"{(site.counter.round_trips - trips) / took_s:.1f}",
                f"{(watch.events - events) / took_s:.0f}",
                f"{median(behind):.1f} s, p95 {quantiles(behind, n=20)[-1]:.1f} s" if len(behind) > 1 else "-",
            )
            await cancel_and_wait(*tasks)
        for each in opened:
            each.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*opened, return_exceptions=True)
    await close_redis(redis)
    return table

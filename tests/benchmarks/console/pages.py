"""Measures every page: first byte, processor time, round trips and size."""

import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from statistics import quantiles
from typing import Any

import aiohttp
from rich.table import Table

from benchmarks.console.gateway import Gateway, gateway
from benchmarks.console.kept import NAMESPACE
from export_producers.client import ExportQueue
from export_producers.gateway.calls import PAGES
from export_worker.contract.status import Phase
from export_worker.redis.client import close_redis, open_redis

REQUESTS = 20
WARM_UP = 3
ZIPPED = {"Accept-Encoding": "gzip"}
READ_ALL = {"cmdstat_scan", "cmdstat_keys", "cmdstat_smembers", "cmdstat_sscan", "cmdstat_zscan"}
SEARCHES = {
    "q = id": "q={export_id}",
    "q = key": "q={key}",
    "q = nothing, 5,000 records": "q=nothing-like-this",
    "phase": "phase=failed",
    "phase, connection": "phase=failed&connection=gio",
    "phase, connection, error": "phase=failed&connection=gio&error=platform_unavailable&since=7d",
    "all filters": "phase=failed&connection=ta&kind=growingio.tag_users&error=platform_not_found&requested_by=library",
    "disjoint": "phase=transferring&error=platform_not_found",
    "old page": "until=3d",
}


@dataclass(frozen=True)
class Figures:
    """What one page costs.

    Args:
        first_ms: The time to the first byte, of which 95 % of the requests are quicker.
        cpu_ms: Processor time of the gateway.
        redis_ms: Processor time of Redis.
    """

    first_ms: float
    cpu_ms: float
    redis_ms: float
    kib: float
    round_trips: float = 0.0


LEFT_OUT = ("live", "static", "log", "catalog", "bulk", "events/{}", "triggers/{}")
"""Parts of the paths of pages that are left out: they need something that the kept exports do not have."""


async def names(redis_url: str) -> Iterator[tuple[str, str]]:
    """Returns the name and the address of each page, and of lists with filters."""
    async with ExportQueue(redis_url, namespace=NAMESPACE) as queue:
        one = (await queue.page(Phase.TRANSFERRING, 1)).statuses[0]
    texts = {"export_id": one.export_id, "key": one.metadata["order"]}
    found = [path.removeprefix("GET ") for path in PAGES if path.startswith("GET ")]
    shown = [path for path in found if not any(part in path for part in LEFT_OUT)]
    known = {"exports/{}": f"exports/{one.export_id}", "connections/{}": f"connections/{one.connection}"}
    pages = [(path, f"/console/{known.get(name, name)}") for path in shown for name in [path.removeprefix("/console/")]]
    lists = [(name, f"/console/exports?{query.format(**texts)}") for name, query in SEARCHES.items()]
    api = [("/v1/overview", "/v1/overview"), ("/v1/exports", "/v1/exports"), ("/v1/failures", "/v1/failures")]
    return iter([*pages, *lists, *api])


async def used_cpu_s(redis: Any) -> float:
    """Returns the processor time of Redis."""
    found = await redis.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


async def figures(site: Gateway, redis: Any, path: str) -> Figures:
    """Measures one page."""
    async with aiohttp.ClientSession(auto_decompress=False) as client:
        for _ in range(WARM_UP):
            await requested(client, site.url + path)
        cpu_s, redis_s, trips = site.cpu_s, await used_cpu_s(redis), site.counter.round_trips
        answers = [await requested(client, site.url + path) for _ in range(REQUESTS)]
    body = answers[-1][1]
    return Figures(
        first_ms=1000 * quantiles([first_s for first_s, _ in answers], n=20)[-1],
        cpu_ms=1000 * (site.cpu_s - cpu_s) / REQUESTS,
        redis_ms=1000 * (await used_cpu_s(redis) - redis_s) / REQUESTS,
        kib=(len(body) + await assets_bytes(site, body)) / 1024,
        round_trips=(site.counter.round_trips - trips) / REQUESTS,
    )


async def requested(client: aiohttp.ClientSession, url: str) -> tuple[float, bytes]:
    """Requests a page, and returns the time to its first byte and its body."""
    started_s = time.perf_counter()
    async with client.get(url, allow_redirects=False, headers=ZIPPED) as answer:
        first_s = time.perf_counter() - started_s
        body = await answer.read()
        assert answer.status < HTTPStatus.BAD_REQUEST, (url, answer.status, body)
    return first_s, body


async def assets_bytes(site: Gateway, page: bytes) -> int:
    """Returns the size of the assets of a page, as they are sent."""
    try:
        text = zlib.decompress(page, wbits=31).decode()
    except zlib.error:
        return 0
    size = 0
    async with aiohttp.ClientSession(auto_decompress=False) as client:
        for path in set(re.findall(r'(?:href|src)="(/console/static/[^"]+)"', text)):
            async with client.get(site.url + path, headers=ZIPPED) as answer:
                size += len(await answer.read())
    return size


async def measure_pages(redis_url: str, directory: Path) -> Table:
    """Returns the table of all pages."""
    redis: Any = open_redis(redis_url)
    await redis.config_set("slowlog-log-slower-than", 20_000)
    await redis.slowlog_reset()
    await redis.config_resetstat()
    table = Table("page", "first byte p95 ms", "gateway CPU ms", "Redis CPU ms", "round trips", "KiB with assets")
    pages = list(await names(redis_url))
    async with (
        gateway(redis_url, directory, counted=False) as plain,
        gateway(redis_url, directory, counted=True, name="counted") as counted,
    ):
        for name, path in pages:
            found = await figures(plain, redis, path)
            trips = (await figures(counted, redis, path)).round_trips
            cells = (found.first_ms, found.cpu_ms, found.redis_ms, trips, found.kib)
            table.add_row(name, *(f"{cell:.1f}" for cell in cells))
    await check_commands(redis)
    await close_redis(redis)
    return table


async def check_commands(redis: Any) -> None:
    """Checks that Redis was never asked for all keys, and prints what took it longer than 20 ms."""
    stats = await redis.info("commandstats")
    assert not {"cmdstat_scan", "cmdstat_keys", "cmdstat_smembers", "cmdstat_sscan", "cmdstat_zscan"} & set(stats), (
        stats
    )
    for slow in await redis.slowlog_get(5):
        print(f"slow in Redis: {slow['duration'] / 1000:.1f} ms  {slow['command'][:100]!r}")  # noqa: T201 - a report

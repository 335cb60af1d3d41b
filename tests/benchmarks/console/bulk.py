"""Measures a bulk run that one gateway begins, and another one ends after the first was killed in the middle."""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from rich.table import Table

from benchmarks.console.gateway import Gateway, gateway
from benchmarks.console.kept import NAMESPACE
from benchmarks.console.pages import used_cpu_s
from export_producers.choices import LIST_MAX
from export_producers.client import ExportQueue
from export_producers.filters import ExportFilter
from export_worker.contract.model import isoformat
from export_worker.contract.status import Phase
from export_worker.redis.client import close_redis, open_redis

PER_SECOND = 1000
ERROR = "platform_unavailable"


async def since_of(redis_url: str, count: int) -> str:
    """Returns the time from which on so many exports have failed with the error, or all of them if they are fewer."""
    found, cursor = list[datetime](), None
    async with ExportQueue(redis_url, namespace=NAMESPACE) as queue:
        while len(found) < count:
            page = await queue.page(limit=LIST_MAX, cursor=cursor, where=ExportFilter(error=ERROR, phase=Phase.FAILED))
            found += [status.created_at for status in page.statuses]
            cursor = page.cursor
            if cursor is None:
                break
    return isoformat(found[min(count, len(found)) - 1])


async def state(client: aiohttp.ClientSession, site: Gateway, bulk_id: str) -> dict[str, Any]:
    """Returns how far a run is."""
    async with client.get(f"{site.url}/v1/bulk/{bulk_id}") as answer:
        found: dict[str, Any] = await answer.json()
    return found


async def measure_bulk(redis_url: str, directory: Path, count: int) -> Table:
    """Returns the table of a bulk run before and after its gateway was killed."""
    redis: Any = open_redis(redis_url)
    table = Table("gateway", "seconds", "exports/s", "Redis CPU %", "gateway CPU %", "done", "skipped", "state")
    since = await since_of(redis_url, count)
    order = {"action": "retry", "filter": {"error": ERROR, "since": since}, "per_second": PER_SECOND}
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as client:
        first = await stack.enter_async_context(gateway(redis_url, directory, counted=False, name="first"))
        started_s = time.monotonic()
        async with client.post(f"{first.url}/v1/bulk", json=order) as answer:
            run = await answer.json()
        bulk_id, found = run["bulk_id"], run
        table.add_row("order", f"{time.monotonic() - started_s:.1f}", "", "", "", "0", "0", f"{run['total']} exports")
        second = await stack.enter_async_context(gateway(redis_url, directory, counted=False, name="second"))
        for site, until in ((first, run["total"] // 2), (second, run["total"])):
            started_s, cpu_s, redis_s, before = time.monotonic(), site.cpu_s, await used_cpu_s(redis), found["done"]
            while found["done"] + found["skipped"] < until and found["state"] == "running":
                await asyncio.sleep(0.5)
                found = await state(client, site, bulk_id)
            took_s = time.monotonic() - started_s
            table.add_row(
                "first, killed" if site is first else "second",
                f"{took_s:.0f}",
                f"{(found['done'] - before) / took_s:.0f}",
                f"{100 * (await used_cpu_s(redis) - redis_s) / took_s:.0f}",
                f"{100 * (site.cpu_s - cpu_s) / took_s:.0f}",
                str(found["done"]),
                str(found["skipped"]),
                found["state"],
            )
            if site is first:
                first.process.kill()
    async with ExportQueue(redis_url, namespace=NAMESPACE) as queue:
        left = await queue.page(
            limit=1, where=ExportFilter(phase=Phase.FAILED, error=ERROR, since=datetime.fromisoformat(since))
        )
    table.caption = f"still failed: {left.total}"
    await close_redis(redis)
    return table

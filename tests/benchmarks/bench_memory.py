"""Measures the memory of an export in Redis by key, with some hundred exports of the demo on a separate Redis.

    make bench-memory ARGS=--exports=600

Prints MEMORY USAGE of the keys of each export and of the sorted sets that index them, and the growth of the server's
memory per export. The growth also includes the allocator's rounding and what does not grow with the exports.
"""

import asyncio
import logging
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from export_worker.demo.exports import run_exports
from export_worker.demo.services import start_services, start_workers
from export_worker.redis.client import close_redis, open_redis

TIMEOUT_S = 600.0
EXPORT_ID = re.compile(rb"[0-9a-f]{32}")
INDEX = re.compile(rb":(by-|phase:|created$|ended$)")


async def _by_key(redis: Any) -> dict[str, list[int]]:
    """Returns the sizes of keys by name: of the keys of one export without its id, and of all indexes together."""
    sizes = defaultdict(list)
    async for key in redis.scan_iter(count=1000):
        if EXPORT_ID.search(key):
            kind = EXPORT_ID.sub(b"ID", key).decode()
            sizes[kind].append(await redis.memory_usage(key, samples=0))
        elif INDEX.search(key):
            sizes["indexes of exports"].append(await redis.memory_usage(key, samples=0))
    return sizes


async def _measure(exports: int) -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        async with start_services(Path(directory)) as services, start_workers(services):
            redis: Any = open_redis(services.redis_url)
            before = (await redis.info("memory"))["used_memory"]
            urls = (services.redis_url, services.platform_url)
            outcome = await run_exports(*urls, exports, lambda _: None, TIMEOUT_S)
            # All exports have ended: queue entries and leases are deleted, and the retained keys are counted.
            count, sizes = len(outcome.statuses), await _by_key(redis)
            after = (await redis.info("memory"))["used_memory"]
            await close_redis(redis)
    assert outcome.complete
    click.echo(f"{count} exports")
    for kind, found in sorted(sizes.items(), key=lambda item: -sum(item[1])):
        per_export_kib = sum(found) / count / 1024
        click.echo(f"  {kind:<24} {per_export_kib:6.2f} KiB per export ({len(found)} keys, largest {max(found):,} B)")
    click.echo(f"  {'the whole server':<24} {(after - before) / count / 1024:6.2f} KiB per export")


@click.command()
@click.option("--exports", type=int, default=600, show_default=True)
def main(exports: int) -> None:
    """Measures the memory and prints it."""
    asyncio.run(_measure(exports))


if __name__ == "__main__":
    main()

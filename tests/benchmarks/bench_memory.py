"""What an export takes in Redis, by key: some hundred exports of the demo, on a Redis of their own.

    make bench-memory ARGS=--exports=600

Prints MEMORY USAGE of each export's own keys and what the whole server's memory grew by, an export: the latter has its
entries in the sorted sets of the namespace as well, and the allocator's rounding.
"""

import asyncio
import logging
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from export_worker.demo.play import play
from export_worker.demo.stage import open_stage, workers
from export_worker.redis.client import close_redis, open_redis

TIMEOUT_S = 600.0
EXPORT_ID = re.compile(rb"[0-9a-f]{32}")


async def _by_key(redis: Any) -> dict[str, list[int]]:
    """The sizes of the keys that are one export's, by their name without its id."""
    sizes = defaultdict(list)
    async for key in redis.scan_iter(count=1000):
        if EXPORT_ID.search(key):
            kind = EXPORT_ID.sub(b"ID", key).decode()
            sizes[kind].append(await redis.memory_usage(key, samples=0))
    return sizes


async def _measure(exports: int) -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        async with open_stage(Path(directory)) as stage, workers(stage):
            redis: Any = open_redis(stage.redis_url)
            before = (await redis.info("memory"))["used_memory"]
            outcome = await play(stage.redis_url, stage.platform_url, exports, lambda _: None, TIMEOUT_S)
            # What is kept of an export that has ended; entries of the queue and claims are gone by now.
            count, sizes = len(outcome.statuses), await _by_key(redis)
            after = (await redis.info("memory"))["used_memory"]
            await close_redis(redis)
    assert outcome.complete
    click.echo(f"{count} exports")
    for kind, found in sorted(sizes.items(), key=lambda item: -sum(item[1])):
        click.echo(
            f"  {kind:<24} {sum(found) / count / 1024:6.2f} KiB an export ({len(found)} keys, most {max(found):,} B)"
        )
    click.echo(f"  {'the server, in all':<24} {(after - before) / count / 1024:6.2f} KiB an export")


@click.command()
@click.option("--exports", type=int, default=600, show_default=True)
def main(exports: int) -> None:
    """Measure and print."""
    asyncio.run(_measure(exports))


if __name__ == "__main__":
    main()

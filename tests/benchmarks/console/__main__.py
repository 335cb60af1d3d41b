"""Measures the console with very many exports: pages, open tabs and bulk runs. Run it with `make bench-console`.

It needs about 8 GiB of memory for a million exports. Wall times are those of the machine with whatever else it runs, so
the table also has processor times and round trips.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from benchmarks.console.bulk import measure_bulk
from benchmarks.console.kept import fill
from benchmarks.console.pages import measure_pages
from benchmarks.console.tabs import measure_tabs
from export_worker.demo.processes import child, free_port, redis_binary
from support.redis_process import wait_until_ready

PARTS = ("pages", "tabs", "bulk")


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exports", type=int, default=1_000_000, help="kept exports")
    parser.add_argument("--open", type=int, default=10_000, help="open exports among them")
    parser.add_argument("--tabs", type=int, default=200, help="open tabs")
    parser.add_argument("--bulk", type=int, default=100_000, help="exports that a bulk run retries")
    parser.add_argument("--redis", help="a Redis for this alone, whose exports are used again; default: a new one")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part")
    return parser.parse_args(arguments)


@asynccontextmanager
async def redis_in_memory(directory: Path) -> AsyncIterator[str]:
    """Starts a Redis that writes nothing to the disk, and yields its URL."""
    port = free_port()
    command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
    command += ["--save", "", "--appendonly", "no", "--maxmemory", "12gb", "--maxmemory-policy", "noeviction"]
    async with child(command, name="redis", directory=directory) as process:
        await wait_until_ready(process, port, name="redis", directory=directory)
        yield f"redis://127.0.0.1:{port}/0"


async def measure(options: argparse.Namespace, redis_url: str, directory: Path) -> None:
    """Fills Redis and prints the tables."""
    console = Console(width=140)
    await fill(redis_url, options.exports, options.open)
    console.print(f"{options.exports:,} exports, {options.open:,} open; load {os.getloadavg()[0]:.1f}")
    if "pages" in (options.only or PARTS):
        console.print(await measure_pages(redis_url, directory))
    if "tabs" in (options.only or PARTS):
        console.print(await measure_tabs(redis_url, directory, options.tabs))
    if "bulk" in (options.only or PARTS):
        console.print(await measure_bulk(redis_url, directory, options.bulk))


async def main() -> None:
    """Runs what the options ask for."""
    options = options_of()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        if options.redis:
            await measure(options, options.redis, directory)
        else:
            async with redis_in_memory(directory) as redis_url:
                await measure(options, redis_url, directory)


if __name__ == "__main__":
    asyncio.run(main())

"""Measures the processor time of the three puts of a small export: file, manifest and `_SUCCESS`. `make bench-puts`.

Three ways in turn, in one process and against the same sink: as a worker writes, as a worker would write by botocore's
whole path, and by boto3's bare `put_object`, which checks nothing. The table has medians and the spread of all rounds.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.transfer.servers import running
from export_worker.s3.client import build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from support.s3_server import REGION, s3_credentials

PUTS = {"a.csv": b"x" * 10_240, "_manifest.json": b"x" * 1_024, "_SUCCESS": b""}
Export = Callable[[int], Awaitable[None]]


def by_store(store: S3Store) -> Export:
    """Returns what writes the objects of an export as a worker does."""

    async def export(number: int) -> None:
        for name, body in PUTS.items():
            await store.put(Target("bucket", f"e{number}/{name}", f"e{number}", "text/csv"), body)

    return export


def by_boto3(client: Any) -> Export:
    """Returns what writes the objects of an export by bare calls of boto3."""

    async def export(number: int) -> None:
        for name, body in PUTS.items():
            client.put_object(Bucket="bucket", Key=f"e{number}/{name}", Body=body, ContentType="text/csv")

    return export


async def milliseconds(export: Export, exports: int) -> tuple[float, float]:
    """Returns processor and wall time of one export."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for number in range(exports):
        await export(number)
    return 1e3 * (time.process_time() - cpu_s) / exports, 1e3 * (time.perf_counter() - wall_s) / exports


async def measure(url: str, rounds: int, exports: int) -> dict[str, list[tuple[float, float]]]:
    """Runs all ways in turn, so that other load on the machine affects each of them."""
    clients: list[Any] = [build_client(Endpoint(REGION, url), 2) for _ in range(3)]
    clients[1].small_sender = None
    with ThreadPoolExecutor(2) as executor:
        ways = {
            "export-worker": by_store(S3Store(clients[0], executor)),
            "the same by botocore": by_store(S3Store(clients[1], executor)),
            "boto3, bare": by_boto3(clients[2]),
        }
        for export in ways.values():
            await milliseconds(export, 5)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, export in ways.items():
                found[name].append(await milliseconds(export, exports))
    for client in clients:
        client.close()
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--exports", type=int, default=100, help="exports in each round")
    options, console = parser.parse_args(), Console(width=120)
    with s3_credentials(), running("sink") as url:
        found = asyncio.run(measure(url, options.rounds, options.exports))
    console.print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: three puts, medians of {options.rounds} rounds"
    )
    grid = Table(box=None)
    for column in ("WAY", "CPU ms", "SPREAD", "WALL ms", "CPU : boto3"):
        grid.add_column(column, justify="left" if column == "WAY" else "right")
    base = median(cpu_ms for cpu_ms, _ in found["boto3, bare"])
    for name, figures in found.items():
        cpu_ms, wall_ms = [cpu for cpu, _ in figures], [wall for _, wall in figures]
        spread = f"{min(cpu_ms):.2f}-{max(cpu_ms):.2f}"
        grid.add_row(name, f"{median(cpu_ms):.2f}", spread, f"{median(wall_ms):.2f}", f"{median(cpu_ms) / base:.2f}")
    console.print(grid)


if __name__ == "__main__":
    main()

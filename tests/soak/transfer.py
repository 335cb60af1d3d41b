"""Transfers a file of 20 GiB and unknown length with a real worker: memory does not grow, and no byte is lost.

Run it with `make soak-transfer`, on Linux only, because it reads memory from /proc. The simulator sends the file in
chunks without a length. The sink implements the part of S3 that uploads need, and stores nothing. So the test compares
the CRC64NVME of the stored object with that of the file, which it generates a second time.
"""

import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks.transfer.servers import running as server
from export_worker.contract.status import Phase
from export_worker.demo.processes import redis_server
from export_worker.s3.checksums import CRC64NVME, Checksum
from export_worker.simulator.files import content
from export_worker.simulator.scenario import Scenario
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings, World
from support import secret_canaries
from support.worker_site import Site, memory_mib

FILE_BYTES = 20 * 2**30
BUCKET = "soak"
TIMEOUT_S = 1800.0
SAMPLE_S = 0.5
GROWTH_MAX_MIB = 64.0
"""The maximum growth of memory after the first tenth of the file. Parts of a file of unknown length double after
7.8 GiB, and so do the five buffers of a transfer, by 40 MiB."""
REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)


@dataclass(frozen=True)
class Sample:
    """The resident memory of the worker at one moment of the transfer."""

    done_bytes: int
    memory_mib: float


def growth_mib(samples: list[Sample]) -> float:
    """Returns how much more memory the last tenth of the file needs than the second. The first tenth is the warm-up."""

    def within(first: float, last: float) -> float:
        bounds = (first * FILE_BYTES, last * FILE_BYTES)
        return median(sample.memory_mib for sample in samples if bounds[0] <= sample.done_bytes < bounds[1])

    return within(0.9, 1.0) - within(0.1, 0.2)


def checksum_of_file(world: World) -> str:
    """Returns the checksum of the only exported file, which is generated again."""
    checksum = Checksum(CRC64NVME)
    for piece in content(next(iter(world.jobs)).files[0].spec):
        checksum = checksum.over(piece)
    return str(checksum)


async def transfer(site: Site, console: Console) -> tuple[str, list[Sample]]:
    """Exports the file with a worker. Returns the checksum, and samples of the worker's memory."""
    samples: list[Sample] = []
    started_s = time.monotonic()
    with site.process("run") as running:
        async with asyncio.timeout(TIMEOUT_S), site.queue() as queue:
            export_id = (await queue.enqueue(REQUEST)).export_id
            while not (status := await queue.status(export_id)).phase.terminal:
                samples.append(Sample(status.progress.bytes_done, memory_mib(running.pid, "VmRSS")))
                await asyncio.sleep(SAMPLE_S)
    if status.phase is not Phase.SUCCEEDED:
        raise SystemExit(f"the export {status.phase}: {status.error}")
    took_s = time.monotonic() - started_s
    console.print(f"{status.objects[0].bytes / 2**30:.1f} GiB in {took_s:.0f} s")
    return status.objects[0].checksum, samples


async def run(directory: Path, console: Console) -> list[str]:
    """Runs one soak test, and returns the problems."""
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(redis_server(directory))
        stack.enter_context(secret_canaries.aws_credentials())
        sink = stack.enter_context(server("sink"))
        scenario = Scenario(stage_s=0.1, file_bytes=FILE_BYTES, framing="chunked")
        settings = SimulatorSettings(tokens=(secret_canaries.TOKEN,), scenario=scenario)
        simulator = await stack.enter_async_context(Simulator.start(settings=settings))
        # The sink does not list uploads, so the sweep of old uploads is off.
        site = Site(redis_url, sink, simulator.url, "soak", BUCKET, directory, settings={"s3": _s3(sink)})
        checksum, samples = await transfer(site, console)
        expected = await asyncio.to_thread(checksum_of_file, simulator.world)
    grown_mib, peak_mib = growth_mib(samples), max(sample.memory_mib for sample in samples)
    console.print(f"memory of the worker: {peak_mib:.0f} MiB at its peak, {grown_mib:+.0f} MiB after the first GiBs")
    problems = []
    if checksum != expected:
        problems.append(f"the stored object has checksum {checksum}, the file has {expected}")
    if grown_mib > GROWTH_MAX_MIB:
        problems.append(f"memory grew by {grown_mib:.0f} MiB")
    return problems


def _s3(endpoint_url: str) -> dict[str, object]:
    return {"bucket": BUCKET, "endpoint_url": endpoint_url, "sweep_uploads": False}


def main() -> int:
    """Runs a soak test, and prints the result."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        problems = asyncio.run(run(Path(directory), console))
    for problem in problems:
        console.print(f"  WRONG: {problem}", soft_wrap=True, markup=False)
    console.print("the bytes are correct, and memory did not grow" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

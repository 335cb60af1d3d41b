"""A file of unknown length and 20 GiB through a real worker: memory stays flat, no byte is lost.

Run it with `make soak-transfer`; Linux only, memory is read from /proc. The simulator writes the file as chunks without
a length, the sink is as much of S3 as uploads need and keeps nothing. What was stored is known by its CRC64NVME, which
is compared with that of the file as it is made a second time.
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
LIMIT_S = 1800.0
SAMPLE_S = 0.5
GROWTH_MAX_MIB = 64.0
"""Over the transfer, once it is under way: parts of a file of unknown length double after 7.8 GiB, and the five buffers
of a transfer with them, by 40 MiB."""
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
    """How much more the last tenth of the file takes than the second tenth: the first one warms up."""

    def within(first: float, last: float) -> float:
        bounds = (first * FILE_BYTES, last * FILE_BYTES)
        return median(sample.memory_mib for sample in samples if bounds[0] <= sample.done_bytes < bounds[1])

    return within(0.9, 1.0) - within(0.1, 0.2)


def checksum_of_file(world: World) -> str:
    """Of the one file that was asked for, made anew."""
    checksum = Checksum(CRC64NVME)
    for piece in content(next(iter(world.jobs)).files[0].spec):
        checksum = checksum.over(piece)
    return str(checksum)


async def transfer(site: Site, console: Console) -> tuple[str, list[Sample]]:
    """Export the file through a worker; its checksum, and what the worker's memory was on the way."""
    samples: list[Sample] = []
    begun_s = time.monotonic()
    with site.process("run") as running:
        async with asyncio.timeout(LIMIT_S), site.queue() as queue:
            export_id = (await queue.enqueue(REQUEST)).export_id
            while not (status := await queue.status(export_id)).phase.terminal:
                samples.append(Sample(status.progress.bytes_done, memory_mib(running.pid, "VmRSS")))
                await asyncio.sleep(SAMPLE_S)
    if status.phase is not Phase.SUCCEEDED:
        raise SystemExit(f"the export {status.phase}: {status.error}")
    took_s = time.monotonic() - begun_s
    console.print(f"{status.objects[0].bytes / 2**30:.1f} GiB in {took_s:.0f} s")
    return status.objects[0].checksum, samples


async def run(directory: Path, console: Console) -> list[str]:
    """One soak; what was found wrong."""
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(redis_server(directory))
        stack.enter_context(secret_canaries.aws_credentials())
        sink = stack.enter_context(server("sink"))
        scenario = Scenario(stage_s=0.1, file_bytes=FILE_BYTES, framing="chunked")
        settings = SimulatorSettings(tokens=(secret_canaries.TOKEN,), scenario=scenario)
        simulator = await stack.enter_async_context(Simulator.start(settings=settings))
        # The sink lists nothing, and keeps nothing that a sweep could find.
        site = Site(redis_url, sink, simulator.url, "soak", BUCKET, directory, settings={"s3": _s3(sink)})
        checksum, samples = await transfer(site, console)
        wanted = await asyncio.to_thread(checksum_of_file, simulator.world)
    grown_mib, peak_mib = growth_mib(samples), max(sample.memory_mib for sample in samples)
    console.print(f"memory of the worker: {peak_mib:.0f} MiB at its peak, {grown_mib:+.0f} MiB from the first GiBs on")
    problems = []
    if checksum != wanted:
        problems.append(f"stored {checksum}, made {wanted}")
    if grown_mib > GROWTH_MAX_MIB:
        problems.append(f"memory grew by {grown_mib:.0f} MiB")
    return problems


def _s3(endpoint_url: str) -> dict[str, object]:
    return {"bucket": BUCKET, "endpoint_url": endpoint_url, "sweep_uploads": False}


def main() -> int:
    """Run a soak and tell of it."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        problems = asyncio.run(run(Path(directory), console))
    for problem in problems:
        console.print(f"  WRONG: {problem}", soft_wrap=True, markup=False)
    console.print("the bytes are right, and memory stays flat" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

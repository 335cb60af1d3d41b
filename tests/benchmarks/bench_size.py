"""Measures start, memory and processor time of workers, the gateway and a trigger, for the table of k8s/README.md.

Run it with `make bench-size`, on Linux only, because it reads /proc. Each row is a separate process. It is measured
after one small export, so that one-time imports are not part of the figures.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from export_worker.demo.processes import redis_server
from export_worker.redis.client import close_redis, open_redis
from export_worker.simulator.scenario import Scenario
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings, World
from support import s3_server, secret_canaries
from support.worker_site import Running, Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
MIB = 2**20
IDLE_S = 20.0
POLLING_S = 15.0
POLLED = (10, 50)
"""Numbers of exports that wait on the platform. Each is polled about twice a second."""
TRANSFERS = (1, 8)
FILE_MIB = 96
RATE_MIB_S = 5
"""The rate of each transfer. A test machine's S3 server can handle eight transfers of this rate, but not more."""
TRIGGER = {"type": "redis-stream", "stream": "size:in"}
ENQUEUING_S = 15.0
ENQUEUED_PER_S = 100
"""Requests, or messages, per second. Each creates an export."""
STARTS = 5
TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """The resources that a process has used at one moment.

    Args:
        at_s: The time, on the monotonic clock.
        cpu_s: The processor time since the start.
        now_mib: The resident memory.
        own_mib: The same, but of what several processes share, each has its part (PSS).
        peak_mib: The highest resident memory since the last `reset_peak`.
    """

    at_s: float
    cpu_s: float
    now_mib: float
    own_mib: float
    peak_mib: float


def usage(pid: int) -> Usage:
    """Reads the usage of a process from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    now_mib, peak_mib = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    own_mib = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024
    return Usage(time.monotonic(), (int(fields[11]) + int(fields[12])) / TICKS_S, now_mib, own_mib, peak_mib)


def reset_peak(pid: int) -> None:
    """Resets VmHWM to the current memory (man 5 proc, clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


@dataclass(frozen=True)
class Bench:
    """The services that the measured processes use."""

    site: Site
    world: World
    console: Console

    def print_row(self, name: str, before: Usage, after: Usage) -> None:
        """Prints one row of the table."""
        took_s = after.at_s - before.at_s
        cpu = (after.cpu_s - before.cpu_s) / took_s * 1000
        memory = " | ".join(f"{mib:.0f} MiB" for mib in (after.now_mib, after.own_mib, after.peak_mib))
        self.print(f"| {name} | {memory} | {cpu:.0f}m | {took_s:.0f} s |")

    def process(self, *arguments: str, **settings: str) -> AbstractContextManager[Running]:
        """Starts a process in a new interpreter. One that is forked has imported the modules of all commands."""
        return self.site.process(*arguments, OF_BENCHMARK="1", **settings)

    def print(self, line: str) -> None:
        """Prints one line of a table."""
        self.console.print(line, soft_wrap=True, markup=False)

    def start(self, name: str, arguments: Sequence[str], **settings: str) -> None:
        """Measures the start of a process, up to the line with which it reports that it is ready."""
        spent = []
        for _ in range(STARTS):
            began_s = time.monotonic()
            with self.process(*arguments, **settings) as running:
                running.until_logged(f"{name}.started")
                after = usage(running.pid)
            spent.append((after.cpu_s, after.at_s - began_s))
        cpu_s, took_s = (sorted(each)[STARTS // 2] for each in zip(*spent, strict=True))
        least, most = min(spent)[0], max(spent)[0]
        self.print(f"| {' '.join(arguments)} | {cpu_s:.2f} s | {least:.2f} to {most:.2f} s | {took_s:.2f} s |")

    @asynccontextmanager
    async def workers(self, measured: str) -> AsyncIterator[Running]:
        """Starts a worker of each role, and yields the measured one after both have run one export."""
        self.world.scenario = Scenario(stage_s=0.05)
        other = "transfer" if measured == "control" else "control"
        with self.process("run", "--role", measured) as running, self.process("run", "--role", other):
            async with self.site.queue() as queue:
                await queue.wait((await queue.enqueue(REQUEST)).export_id, 60)
            yield running

    async def idle(self, role: str) -> None:
        """Measures a worker without exports."""
        async with self.workers(role) as running:
            reset_peak(running.pid)
            before = usage(running.pid)
            await asyncio.sleep(IDLE_S)
            self.print_row(f"{role}, idle", before, usage(running.pid))

    async def polling(self, exports: int) -> None:
        """Measures a worker that polls this number of exports."""
        async with self.workers("control") as running, self.site.queue() as queue:
            self.world.scenario = Scenario(hold_stage="RUNNING")
            jobs_before = len(self.world.jobs)
            ids = [(await queue.enqueue(REQUEST)).export_id for _ in range(exports)]
            while len(self.world.jobs) < jobs_before + exports:
                await asyncio.sleep(0.1)
            reset_peak(running.pid)
            before, calls = usage(running.pid), self.world.requests_total
            await asyncio.sleep(POLLING_S)
            after = usage(running.pid)
            rate = (self.world.requests_total - calls) / (after.at_s - before.at_s)
            self.print_row(f"control, {rate:.0f} steps/s", before, after)
            self.world.scenario = Scenario(stage_s=0)
            for export_id in ids:
                await queue.cancel(export_id)
            for export_id in ids:
                await queue.wait(export_id, 60)

    async def transferring(self, transfers: int) -> None:
        """Measures a worker with this number of concurrent transfers."""
        async with self.workers("transfer") as running, self.site.queue() as queue:
            self.world.scenario = Scenario(stage_s=0.05, file_bytes=FILE_MIB * MIB, bytes_per_s=RATE_MIB_S * MIB)
            reset_peak(running.pid)
            before = usage(running.pid)
            ids = [(await queue.enqueue(REQUEST)).export_id for _ in range(transfers)]
            ended = [await queue.wait(export_id, 300) for export_id in ids]
            after = usage(running.pid)
        mib_s = sum(item.bytes for status in ended for item in status.objects) / MIB / (after.at_s - before.at_s)
        self.print_row(f"transfer, {transfers} at once ({mib_s:.0f} MiB/s)", before, after)

    async def gateway(self) -> None:
        """Measures the gateway."""
        with self.process("gateway") as running:
            running.until_logged("gateway: http://")
            found = re.search(r"gateway: (http://\S+)", running.log.read_text(encoding="utf-8"))
            if found is None:
                raise RuntimeError("the gateway has not printed its URL")
            async with aiohttp.ClientSession(f"{found[1]}/") as client:

                async def enqueue() -> None:
                    async with client.post("v1/exports", json=json.loads(REQUEST)) as answer:
                        answer.raise_for_status()

                await enqueue()
                await self.enqueuing("gateway", running.pid, enqueue)

    async def trigger(self) -> None:
        """Measures a trigger that reads a Redis stream."""
        queue_redis = open_redis(self.site.redis_url)
        try:
            with self.process("trigger", "size", EXPORT_TRIGGERS=json.dumps({"size": TRIGGER})) as running:
                running.until_logged("trigger.started")

                async def enqueue() -> None:
                    await queue_redis.xadd(TRIGGER["stream"], {"request": REQUEST})

                await enqueue()
                await self.enqueuing("trigger", running.pid, enqueue)
        finally:
            await close_redis(queue_redis)

    async def enqueuing(self, name: str, pid: int, enqueue: Callable[[], Awaitable[None]]) -> None:
        """Measures a process while it is idle, then while it enqueues exports at a fixed rate."""
        for per_s in (0, ENQUEUED_PER_S):
            reset_peak(pid)
            before = usage(pid)
            while (passed_s := time.monotonic() - before.at_s) < ENQUEUING_S:
                await asyncio.gather(*(enqueue() for _ in range(per_s // 10)))
                await asyncio.sleep(max(0.0, 0.1 - (time.monotonic() - before.at_s - passed_s)))
            load = f"{per_s} exports/s" if per_s else "idle"
            self.print_row(f"{name}, {load}", before, usage(pid))


@asynccontextmanager
async def bench(directory: Path) -> AsyncIterator[Bench]:
    """Starts a separate Redis, S3 server and platform."""
    settings: dict[str, Any] = {
        "worker": {"transfers": max(TRANSFERS), "control_steps": 50},
        "gateway": {"port": 0, "requests_per_second": 1e6, "burst": 1_000_000},
    }
    poll = {"first_s": 1.0, "max_s": 1.0, "deadline_s": 3600.0}
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(redis_server(directory))
        s3_url = stack.enter_context(s3_server.s3_server())
        stack.enter_context(secret_canaries.aws_credentials())
        simulator = await stack.enter_async_context(
            Simulator.start(settings=SimulatorSettings(tokens=(secret_canaries.TOKEN,)))
        )
        with s3_server.s3_client(s3_url) as client:
            bucket = s3_server.new_bucket(client)
        site = Site(redis_url, s3_url, simulator.url, "size", bucket, directory, {"poll": poll}, settings)
        yield Bench(site, simulator.world, Console())


async def run(directory: Path) -> None:
    """Measures all rows."""
    async with bench(directory) as measured:
        measured.print("| start of | processor time | spread | time until ready |\n|---|---|---|---|")
        for role in ("control", "transfer"):
            measured.start("worker", ["run", "--role", role])
        measured.start("gateway", ["gateway"])
        measured.start("trigger", ["trigger", "size"], EXPORT_TRIGGERS=json.dumps({"size": TRIGGER}))
        measured.print("\n| process | memory | its part | at its highest | processor | measured for |")
        measured.print("|---|---|---|---|---|---|")
        await measured.idle("control")
        await measured.idle("transfer")
        for exports in POLLED:
            await measured.polling(exports)
        for transfers in TRANSFERS:
            await measured.transferring(transfers)
        await measured.gateway()
        await measured.trigger()


def main() -> int:
    """Prints the table in Markdown."""
    with tempfile.TemporaryDirectory(prefix="size-") as directory:
        asyncio.run(run(Path(directory)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

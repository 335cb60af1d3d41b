"""A worker's parts around a platform that does what a test says: everything but the platform is real."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from export_worker.contract.redis_keys import Role
from export_worker.contract.request import ExportKind
from export_worker.credentials import Redactor
from export_worker.lifecycle.observations import OperationFailed, Polled, RemoteFile, Submitted
from export_worker.lifecycle.transitions import Policy
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.s3.client import build_client
from export_worker.s3.store import S3Store
from export_worker.transfer.engine import TransferEngine
from export_worker.transfer.export_writer import ExportWriter, Layout
from export_worker.worker.claim_loop import ClaimLoop
from export_worker.worker.connections import Connection
from export_worker.worker.leases import Leases
from export_worker.worker.step_runner import ClockAndRandom, StepRunner
from support import s3_server
from support.redis_site import POLICY, QueueSite

TEMPLATE = "{connection}/{export_id}/{file_name}"
CONTENT = "用户,标签\r\n1,新\r\n".encode()


@dataclass
class ScriptedDriver:
    """A platform's adapter.

    Args:
        see: What the nth poll sees, counted from one. By default the job ends in failure.
        gate: Submits wait for it.
    """

    see: Callable[[int], Polled] = lambda _: OperationFailed("ERROR", "no such tag")
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    submits: int = 0
    polls: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def submit(self, export: ExportKind) -> Submitted:
        """Start a job."""
        self.submits += 1
        number = self.submits
        await self.gate.wait()
        return Submitted(f"op{number}", "CREATED")

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Look at one."""
        self.polls += 1
        return self.see(self.polls)

    @asynccontextmanager
    async def open_result(self, export: ExportKind, file: RemoteFile) -> AsyncIterator["Content"]:
        """Any file."""
        yield Content()

    async def close(self) -> None:
        """Nothing is open."""


class Content:
    """A download of a few bytes."""

    total_bytes = len(CONTENT)
    content_type = "text/csv"

    async def chunks(self) -> AsyncIterator[bytes]:
        """In two pieces."""
        yield CONTENT[:5]
        yield CONTENT[5:]


@contextmanager
def landing(s3_url: str, bucket: str) -> Iterator[ExportWriter]:
    """As a worker builds it. Connects with the first transfer only."""
    with ThreadPoolExecutor(2) as executor:
        client = build_client(s3_server.REGION, s3_url, 2)
        yield ExportWriter(TransferEngine(S3Store(client, executor), memory_bytes=2**25), Layout(bucket, "", TEMPLATE))
        client.close()


@dataclass
class Parts:
    """A worker of one connection, `gio`, built but not running.

    Args:
        policy: Of the connection.
        draw: Luck.
    """

    site: QueueSite
    driver: ScriptedDriver
    clock: Callable[[], datetime]
    landing: Any = None
    policy: Policy = POLICY
    draw: Callable[[], float] = lambda: 0.0

    def __post_init__(self) -> None:
        self.store = self.site.store
        self.leases = Leases(self.store, self.clock, self.site.timings.lease_s, 0.1)
        self.runner = StepRunner(
            "w1",
            store=self.store,
            leases=self.leases,
            connections={"gio": Connection("growingio", self.driver, self.policy)},
            fallback=self.policy,
            writer=self.landing,
            redactor=Redactor(),
            sources=ClockAndRandom(self.clock, self.draw),
        )

    def worker(self, role: Role = "control", max_jobs: int = 10) -> ClaimLoop:
        """Claims what is due."""
        site = self.site
        return ClaimLoop(
            site.redis, site.keys, role, store=self.store, runner=self.runner, max_jobs=max_jobs, clock=self.clock
        )

    @asynccontextmanager
    async def running(self, max_jobs: int = 10) -> AsyncIterator[ClaimLoop]:
        """A control worker that works within the block, and drains behind it."""
        worker = self.worker(max_jobs=max_jobs)
        renewing, working = asyncio.create_task(self.leases.run()), asyncio.create_task(worker.async_run())
        try:
            yield worker
        finally:
            await worker.drain(1.0)
            await cancel_and_wait(renewing, working)

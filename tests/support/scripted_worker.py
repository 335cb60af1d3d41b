"""A worker whose platform does what a test says. Everything except the platform is real."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from export_worker.contract.redis_keys import Role
from export_worker.contract.request import ExportKind
from export_worker.credentials import Redactor
from export_worker.errors import ResultMissingError
from export_worker.lifecycle.decisions import Policy
from export_worker.lifecycle.observations import OperationFailed, Polled, RemoteFile, Submitted
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.s3.client import CallLimits, build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.object_keys import MANIFEST_NAME
from export_worker.s3.store import S3Store
from export_worker.step_context import check_submit
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument
from export_worker.transfer.engine import TransferEngine
from export_worker.transfer.export_writer import ExportWriter, Layout
from export_worker.worker.claim_loop import ClaimLoop
from export_worker.worker.clock import ClockAndRandom
from export_worker.worker.connections import Connection, Connections
from export_worker.worker.leases import Leases
from export_worker.worker.step_queue import StepQueue
from export_worker.worker.step_runner import StepRunner
from export_worker.worker.transfer_step import TransferStep
from support import s3_server
from support.redis_site import POLICY, QueueSite

TEMPLATE = "{connection}/{export_id}/{file_name}"
CONTENT = "用户,标签\r\n1,新\r\n".encode()


@dataclass
class ScriptedDriver:
    """A driver that returns what a test says.

    Args:
        see: Returns the result of the nth poll, counted from one. By default the operation fails.
        reads: Calls before each submit, which start no work, wait until it is set. It is set by default.
        gate: Submits wait until it is set. It is set by default.
        missing: Names of files that the platform does not have any more.
    """

    see: Callable[[int], Polled | Awaitable[Polled]] = lambda _: OperationFailed("ERROR", "no such tag")
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    missing: set[str] = field(default_factory=set)
    preparations: int = 0
    submits: int = 0
    polls: int = 0

    def __post_init__(self) -> None:
        self.reads.set()
        self.gate.set()

    async def submit(self, export: ExportKind) -> Submitted:
        """Reads what the submit needs, then starts an operation."""
        self.preparations += 1
        await self.reads.wait()
        await check_submit()
        self.submits += 1
        number = self.submits
        await self.gate.wait()
        return Submitted(f"op{number}", "CREATED")

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Returns what `see` returns."""
        self.polls += 1
        seen = self.see(self.polls)
        return await seen if isinstance(seen, Awaitable) else seen

    @asynccontextmanager
    async def open_result(self, export: ExportKind, file: RemoteFile) -> AsyncIterator["Content"]:
        """Opens the same content for every file that is not missing."""
        if file.name in self.missing:
            raise ResultMissingError("HTTP 404")
        yield Content()

    async def close(self) -> None:
        """Does nothing: no connection is open."""


class Content:
    """A download of `CONTENT`."""

    total_bytes = len(CONTENT)
    content_type = "text/csv"

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields two pieces."""
        yield CONTENT[:5]
        yield CONTENT[5:]


@contextmanager
def export_writer(
    s3_url: str,
    bucket: str,
    attempts: int = CallLimits().attempts,
    template: str = TEMPLATE,
    manifest_name: str = MANIFEST_NAME,
) -> Iterator[ExportWriter]:
    """Builds a writer as a worker does. It connects with the first transfer.

    Args:
        attempts: How often a call to S3 is tried.
        template: Template of the keys.
        manifest_name: File name of the manifest.
    """
    with ThreadPoolExecutor(2) as executor:
        client = build_client(Endpoint(s3_server.REGION, s3_url), 2, limits=CallLimits(attempts=attempts))
        layout = Layout(bucket, "", template, manifest_name)
        yield ExportWriter(TransferEngine(S3Store(client, executor), memory_bytes=2**25), layout)
        client.close()


@dataclass
class Parts:
    """The parts of a worker with one connection. They are built but do not run.

    Args:
        writer: Writes files into S3; None if no test step transfers.
        policy: Policy of the connection.
        draw: Returns the random numbers.
        redactor: Masks the secrets of the test.
        instrument: Receives the details of steps.
        connection: Name of the connection.
        heartbeat_s: Wait between two renewals of the leases.
    """

    site: QueueSite
    driver: ScriptedDriver
    clock: Callable[[], datetime]
    writer: Any = None
    policy: Policy = POLICY
    draw: Callable[[], float] = lambda: 0.0
    connection: str = "gio"
    redactor: Redactor = field(default_factory=Redactor)
    instrument: Instrument = NULL_INSTRUMENT
    heartbeat_s: float = 0.1

    def __post_init__(self) -> None:
        self.store = self.site.store
        self.leases = Leases(self.store, self.clock, self.site.timings.lease_s, self.heartbeat_s)
        clock = ClockAndRandom(self.clock, self.draw)
        self.connections = Connections(
            {self.connection: Connection("growingio", self.driver, self.policy)}, self.policy
        )
        self.transfer_step = TransferStep(self.leases, self.writer, clock)
        self.runner = StepRunner(
            self.leases,
            self.connections,
            self.transfer_step,
            redactor=self.redactor,
            clock=clock,
            instrument=self.instrument,
        )

    def worker(self, role: Role = "control", max_jobs: int = 10) -> ClaimLoop:
        """Returns a loop that claims due steps of this role."""
        queue = StepQueue(self.site.redis, self.site.keys, self.store, self.clock, self.site.owner)
        return ClaimLoop(queue, role, self.runner, max_jobs=max_jobs)

    @asynccontextmanager
    async def running(self, max_jobs: int = 10) -> AsyncIterator[ClaimLoop]:
        """Runs a control worker within the block, and drains it at the end."""
        worker = self.worker(max_jobs=max_jobs)
        renewing, working = asyncio.create_task(self.leases.run()), asyncio.create_task(worker.async_run())
        try:
            yield worker
        finally:
            await worker.drain(1.0)
            await cancel_and_wait(renewing, working)


async def run_due(parts: Parts) -> None:
    """Runs every step that is due, and every step that these make due within a minute."""
    while True:
        parts.site.later(60)
        steps = await parts.site.claim() or await parts.site.claim(role="transfer")
        if not steps:
            return
        for claimed in steps:
            await parts.runner.run(claimed)

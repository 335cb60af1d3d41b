"""The failures of a soak test: of calls to S3 and to the platform, of workers, and of Redis."""

import asyncio
import random
import signal
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from export_worker.demo.processes import child, redis_binary, wait_until_listening
from export_worker.simulator.faults import FaultStore, JobState, Target
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.world import World
from support import s3_server
from support.worker_site import COMMAND, Site

FAILING_SHARE = 0.1
"""The share of calls to S3, and of calls to the platform, that fail."""
KILL_INTERVAL_S = (0.5, 1.5)
"""The minimum and maximum time between two kills."""
LARGE_SHARE = 0.1
"""The share of exports whose file is large enough for a multipart upload."""
LARGE_BYTES = 9 * 2**20

FAULTS: dict[CallType, tuple[Fault, ...]] = {
    "submit": (Fault(on="submit", fault="error5xx"), Fault(on="submit", fault="throttled", retry_after_s=0)),
    "poll": (
        Fault(on="poll", fault="error5xx"),
        Fault(on="poll", fault="malformed"),
        Fault(on="poll", fault="unknown_stage"),
        Fault(on="poll", fault="empty_uris"),
    ),
    "download": (
        Fault(on="download", fault="error5xx"),
        Fault(on="download", fault="cut"),
        Fault(on="download", fault="short"),
        Fault(on="download", fault="error_page"),
    ),
}


@dataclass
class Tally:
    """Counts of the events of a soak test, and the source of randomness."""

    counts: Counter[str] = field(default_factory=Counter)
    rng: random.Random = field(default_factory=random.Random)

    def next_fails(self, what: str) -> bool:
        """Counts a call, and returns whether it fails."""
        self.counts[f"{what} calls"] += 1
        if self.rng.random() >= FAILING_SHARE:
            return False
        self.counts[f"{what} calls failed"] += 1
        return True


class RandomFaults(FaultStore):
    """Fails one call in ten with a fault that a retry overcomes, and gives some exports a large file."""

    def __init__(self, tally: Tally, world: World) -> None:
        super().__init__()
        self._tally = tally
        self._world = world

    def take(self, on: CallType, target: Target, *, flaky: bool, state: JobState | None = None) -> Fault | None:
        """Returns the fault of this call, if it has one."""
        del target, flaky, state
        if on == "submit":
            changes = {"file_bytes": LARGE_BYTES if self._tally.rng.random() < LARGE_SHARE else None}
            self._world.scenario = self._world.scenario.model_copy(update=changes)
        if on not in FAULTS or not self._tally.next_fails("platform"):
            return None
        return self._tally.rng.choice(FAULTS[on])


def random_s3_faults(tally: Tally) -> s3_server.Rule:
    """Returns a rule that fails one call in ten: S3 refuses it, or carries it out and the answer is lost."""
    failures = (s3_server.Refusal(503, "SlowDown"), s3_server.Refusal(500, "InternalError"), s3_server.Lost())
    return lambda _: tally.rng.choice(failures) if tally.next_fails("S3") else None


@dataclass
class Redis:
    """A separate Redis that writes its data to a file.

    Args:
        port: The port on which it listens.
        directory: The directory of its files.
        stack: Stops the process at the end.
        process: The running process.
    """

    port: int
    directory: Path
    stack: AsyncExitStack
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)]
        command += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        self.process = await self.stack.enter_async_context(child(command, name="redis", directory=self.directory))
        await wait_until_listening(self.process, self.port, name="redis", directory=self.directory)

    async def restart(self, stop_signal: signal.Signals) -> None:
        """Stops the process with a signal, and starts a new one with the same file."""
        assert self.process is not None
        self.process.send_signal(stop_signal)
        await self.process.wait()
        await self.start()


@dataclass
class Fleet:
    """Workers that are killed and replaced."""

    site: Site
    tally: Tally
    workers: dict[asyncio.subprocess.Process, Path] = field(default_factory=dict)

    async def add(self) -> None:
        log = self.site.outputs / f"worker-{self.tally.counts['workers']}.log"
        self.tally.counts["workers"] += 1
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(*COMMAND, "run"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.site.environment(),
            )
        self.workers[process] = log

    async def kill_one(self) -> None:
        """Kills a worker that has run a step. If starting workers were killed, none would work on a busy machine."""
        active = [process for process, log in self.workers.items() if b"step.taken" in log.read_bytes()]
        if not active:
            return
        victim = self.tally.rng.choice(active)
        self.tally.counts["workers killed"] += victim.returncode is None
        await self.end(victim)
        await self.add()

    async def end(self, process: asyncio.subprocess.Process) -> None:
        del self.workers[process]
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def kill_repeatedly(self) -> None:
        """Kills and replaces workers until cancelled. A worker that exits by itself is a defect, and replaced, too."""
        while True:
            await asyncio.sleep(self.tally.rng.uniform(*KILL_INTERVAL_S))
            for process in [process for process in self.workers if process.returncode is not None]:
                self.tally.counts["workers that ended by themselves"] += 1
                await self.end(process)
                await self.add()
            await self.kill_one()

    async def end_all(self) -> None:
        for process in list(self.workers):
            await self.end(process)

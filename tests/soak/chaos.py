"""What breaks: calls to S3 and to the platform, workers, Redis."""

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

FAILING = 0.1
"""Of all calls to S3, and of all calls to the platform."""
KILL_EVERY_S = (0.5, 1.5)
LARGE = 0.1
"""Of all exports: large enough for a multipart upload."""
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
    """What was done to the system."""

    counts: Counter[str] = field(default_factory=Counter)
    luck: random.Random = field(default_factory=random.Random)

    def strikes(self, what: str) -> bool:
        """Whether this call fails."""
        self.counts[f"{what} calls"] += 1
        if self.luck.random() >= FAILING:
            return False
        self.counts[f"{what} calls failed"] += 1
        return True


class Unlucky(FaultStore):
    """Spoils one call in ten in a way that a later attempt overcomes, and makes some files large."""

    def __init__(self, tally: Tally, world: World) -> None:
        super().__init__()
        self._tally = tally
        self._world = world

    def take(self, on: CallType, target: Target, *, flaky: bool, state: JobState | None = None) -> Fault | None:
        """The fault of this call."""
        del target, flaky, state
        if on == "submit":
            told = {"file_bytes": LARGE_BYTES if self._tally.luck.random() < LARGE else None}
            self._world.scenario = self._world.scenario.model_copy(update=told)
        if on not in FAULTS or not self._tally.strikes("platform"):
            return None
        return self._tally.luck.choice(FAULTS[on])


def unlucky_s3(tally: Tally) -> s3_server.Rule:
    """One call in ten is refused, or its answer is lost after it has taken effect."""
    ways = (s3_server.Refusal(503, "SlowDown"), s3_server.Refusal(500, "InternalError"), s3_server.Lost())
    return lambda _: tally.luck.choice(ways) if tally.strikes("S3") else None


@dataclass
class Redis:
    """A Redis of its own, which keeps what it was told in a file.

    Args:
        stack: Ends it.
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

    async def restart(self, how: signal.Signals) -> None:
        """End it and start it again on the same file."""
        assert self.process is not None
        self.process.send_signal(how)
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
        """Kill one that has done something: on a busy machine nobody would ever come to work otherwise."""
        grown = [process for process, log in self.workers.items() if b"step.taken" in log.read_bytes()]
        if not grown:
            return
        victim = self.tally.luck.choice(grown)
        self.tally.counts["workers killed"] += victim.returncode is None
        await self.end(victim)
        await self.add()

    async def end(self, process: asyncio.subprocess.Process) -> None:
        del self.workers[process]
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def rage(self) -> None:
        """Kill and replace until cancelled. One that has ended by itself is a defect, and replaced as well."""
        while True:
            await asyncio.sleep(self.tally.luck.uniform(*KILL_EVERY_S))
            for process in [process for process in self.workers if process.returncode is not None]:
                self.tally.counts["workers that ended by themselves"] += 1
                await self.end(process)
                await self.add()
            await self.kill_one()

    async def end_all(self) -> None:
        for process in list(self.workers):
            await self.end(process)

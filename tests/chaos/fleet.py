"""The processes of a chaos run: workers of every role and a gateway. Each reaches the services through own proxies."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from chaos import process as processes
from chaos.process import Step
from chaos.proxy import TcpProxy
from chaos.services import Services
from export_worker.demo.processes import free_port

SLOTS: dict[str, list[str]] = {
    "all-1": ["run", "--role", "all"],
    "all-2": ["run", "--role", "all"],
    "control-1": ["run", "--role", "control"],
    "control-2": ["run", "--role", "control"],
    "transfer-1": ["run", "--role", "transfer"],
    "transfer-2": ["run", "--role", "transfer"],
    "gateway-1": ["gateway"],
}
"""Every process by its name, and its arguments. A process that ends is replaced by another of the same name."""
DOWNLOAD = b"GET /download"
"""The beginning of the requests whose answers drip on the connections that drip."""


@dataclass(frozen=True)
class Loss:
    """A step that ran in a process when the process was killed."""

    step: Step
    killed_at_s: float


@dataclass
class Slot:
    """A process that runs under a name, the proxies through which it reaches the services, and its outputs so far."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    proxies: dict[str, TcpProxy]
    directory: Path
    process: ForkServerProcess | None = None
    outputs: list[Path] = field(default_factory=list)
    disturbed: bool = False

    @property
    def role(self) -> str:
        return self.name.partition("-")[0]

    @property
    def is_worker(self) -> bool:
        return self.role != "gateway"

    @property
    def has_begun(self) -> bool:
        """Whether the process works. If starting processes were killed, none would work on a busy machine."""
        if not self.is_worker:
            return b"gateway" in self.outputs[-1].read_bytes()
        journal = processes.journal_of(self.outputs[-1])
        return journal.exists() and journal.stat().st_size > 0

    @property
    def exited(self) -> bool:
        return self.process is None or self.process.exitcode is not None

    def running_steps(self) -> list[Step]:
        return processes.running_steps(self.outputs[-1])

    async def start(self) -> None:
        output = self.directory / f"{self.name}-{len(self.outputs)}.log"
        self.outputs.append(output)
        self.process = await asyncio.to_thread(processes.start, self.environment, self.arguments, output)

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.pid is not None and self.process.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def wait(self) -> None:
        if self.process is not None:
            await asyncio.to_thread(self.process.join)


@dataclass
class Fleet:
    """All processes, what was done to them, and the steps that were running when a process was killed."""

    slots: dict[str, Slot]
    gateway_url: str
    counts: Counter[str] = field(default_factory=Counter)
    losses: list[Loss] = field(default_factory=list)
    own_exits: list[str] = field(default_factory=list)
    actions: Path = Path("/dev/null")

    def note(self, action: str) -> None:
        """Writes an action with its time to the file `actions.log`."""
        with self.actions.open("a", encoding="utf-8") as file:
            file.write(f"{time.time():.3f} {action}\n")

    @property
    def workers(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.is_worker]

    @property
    def kills(self) -> int:
        return self.counts["kills"]

    @property
    def outputs(self) -> list[Path]:
        return [output for slot in self.slots.values() for output in slot.outputs]

    async def kill(self, slot: Slot) -> None:
        """Kills a process and starts another one in its place."""
        slot.signal(signal.SIGKILL)
        killed_at_s = time.time()
        await slot.wait()
        lost = slot.running_steps() if slot.is_worker else []
        self.note(f"killed {slot.outputs[-1].stem}, which ran {len(lost)} steps")
        self.losses += [Loss(step, killed_at_s) for step in lost]
        self.counts["kills"] += 1
        self.counts[f"kills of {slot.role}"] += 1
        self.counts.update(f"kills during {name} of {where}" for name, where in {_place(step) for step in lost})
        await slot.start()

    async def terminate(self, slot: Slot) -> None:
        """Stops a process with SIGTERM and starts another one in its place."""
        slot.signal(signal.SIGTERM)
        await slot.wait()
        self.note(f"stopped {slot.outputs[-1].stem} with SIGTERM")
        self.counts["stops with SIGTERM"] += 1
        await slot.start()

    async def replace_exited(self) -> None:
        """Replaces processes that ended by themselves, which none should do."""
        for slot in self.slots.values():
            if slot.exited:
                code = None if slot.process is None else slot.process.exitcode
                self.own_exits.append(f"{slot.outputs[-1].name} ended by itself with exit code {code}")
                await slot.start()

    async def end(self) -> None:
        for slot in self.slots.values():
            slot.signal(signal.SIGKILL)
        for slot in self.slots.values():
            await slot.wait()


def _place(step: Step) -> tuple[str, str]:
    return step.name, step.connection


@asynccontextmanager
async def start_fleet(services: Services, names: list[str] | None = None) -> AsyncIterator[Fleet]:
    """Starts all processes, or those of these names, and kills them at the end."""
    gateway_port = free_port()
    async with AsyncExitStack() as stack:
        slots = {}
        for name in names or list(SLOTS):
            proxies = {
                service: await stack.enter_async_context(
                    TcpProxy(port, DOWNLOAD if service == "drip" else None).serve()
                )
                for service, port in services.ports.items()
            }
            ports = {service: proxy.port for service, proxy in proxies.items()}
            environment = services.site(ports, gateway={"port": gateway_port}).environment()
            slots[name] = Slot(name, SLOTS[name], environment, proxies, services.directory)
        fleet = Fleet(slots, f"http://127.0.0.1:{gateway_port}", actions=services.directory / "actions.log")
        try:
            for slot in slots.values():
                await slot.start()
            yield fleet
        finally:
            await fleet.end()

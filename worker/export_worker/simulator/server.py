"""Runs the simulator in a test's event loop, or as a separate process."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from export_worker.simulator.app import build_app
from export_worker.simulator.world import WORLD, SimulatorSettings, World

SHUTDOWN_S = 1.0
"""Open connections are closed after this time, so that a test does not wait for a client that has stalled."""


@dataclass(frozen=True, slots=True)
class Simulator:
    """A running simulator.

    Args:
        url: The base URL, without a slash at the end.
        world: The state, for tests in the same process.
    """

    url: str
    world: World

    @classmethod
    @asynccontextmanager
    async def start(
        cls, *, host: str = "127.0.0.1", port: int = 0, settings: SimulatorSettings | None = None
    ) -> AsyncIterator["Simulator"]:
        """Serves until the context ends. Port 0 chooses a free port.

        Raises:
            OSError: The port is in use.
        """
        app = build_app(settings)
        runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_S, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            bound_port = runner.addresses[0][1]
            yield cls(f"http://{_url_host(host)}:{bound_port}", app[WORLD])
        finally:
            await runner.cleanup()


async def serve(host: str = "127.0.0.1", port: int = 0, settings: SimulatorSettings | None = None) -> None:
    """Prints one line with the URL, then serves until SIGINT or SIGTERM.

    Raises:
        OSError: The port is in use.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Simulator.start(host=host, port=port, settings=settings) as simulator:
        sys.stdout.write(f"platform simulator: {simulator.url}\n")
        sys.stdout.flush()
        await stop.wait()


def _url_host(host: str) -> str:
    """Returns the host for a URL. For a server that listens on all addresses, this is the loopback address."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host

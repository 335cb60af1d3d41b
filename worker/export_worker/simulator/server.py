"""Runs the simulator: within a test's event loop, or as a process of its own."""

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
"""Clients of a simulator are owed no patience."""


@dataclass(frozen=True, slots=True)
class Simulator:
    """A simulator that is being served.

    Args:
        url: Its address, without a slash at the end.
        world: Its state, for tests in the same process.
    """

    url: str
    world: World

    @classmethod
    @asynccontextmanager
    async def start(
        cls, *, host: str = "127.0.0.1", port: int = 0, settings: SimulatorSettings | None = None
    ) -> AsyncIterator["Simulator"]:
        """Serve until the context is left. Port 0 takes a free one.

        Raises:
            OSError: The port is taken.
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
    """Print one line with the address, then serve until SIGINT or SIGTERM.

    Raises:
        OSError: The port is taken.
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
    """The host as a URL has it; a server on all addresses is reached on this one."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host

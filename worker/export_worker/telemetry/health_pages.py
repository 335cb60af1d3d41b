"""Serves health and metrics pages over HTTP."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

from aiohttp import web

from export_worker.contract.model import isoformat
from export_worker.errors import ConfigError
from export_worker.telemetry.health import _log

IDLE_S = 75.0
"""A connection that asks for nothing, or whose question never ends, is closed; aiohttp's own hour lets many pile up."""


METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Pages(Protocol):
    """What the pages tell of a process."""

    def problems(self) -> dict[str, str]:
        """What keeps it from working, by part; empty when nothing does."""

    async def metrics(self) -> bytes:
        """What Prometheus gets."""


@asynccontextmanager
async def pages_served(pages: Pages, host: str, port: int | None) -> AsyncIterator[None]:
    """Serve the pages while the block runs, where the settings name a port.

    Raises:
        ConfigError: The port is taken.
    """
    if port is None:
        yield
        return
    async with AsyncExitStack() as stack:
        try:
            bound = await stack.enter_async_context(health_server(pages, host, port))
        except OSError as error:
            raise ConfigError(f"worker.health_port: cannot listen on {host}:{port} ({error.strerror})") from None
        _log.info("health.served", host=host, port=bound)
        yield


@asynccontextmanager
async def health_server(health: Pages, host: str, port: int) -> AsyncIterator[int]:
    """Serve the three pages while the block runs; gives the port, which is a free one for port 0.

    Raises:
        OSError: The port is taken.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "at": isoformat(datetime.now(UTC))})

    async def readyz(_: web.Request) -> web.Response:
        problems = health.problems()
        return web.json_response(
            {"status": "unready" if problems else "ready", "problems": problems}, status=503 if problems else 200
        )

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await health.metrics(), headers={"Content-Type": METRICS_TYPE})

    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=IDLE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()

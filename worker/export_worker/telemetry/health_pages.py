"""Serves the health and metrics pages over HTTP."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

import structlog
from aiohttp import web

from export_worker.contract.model import isoformat
from export_worker.errors import ConfigError

IDLE_TIMEOUT_S = 75.0
"""A connection without a complete request is closed after this time. aiohttp's default, an hour, would keep many idle
connections open."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_log = structlog.get_logger(__name__)


class Pages(Protocol):
    """The content of the pages of one process."""

    def problems(self) -> dict[str, str]:
        """Returns the reasons why the process is not ready, by part; empty when it is ready."""

    async def metrics(self) -> bytes:
        """Returns the metrics in Prometheus's text format."""


@asynccontextmanager
async def pages_served(pages: Pages, host: str, port: int | None) -> AsyncIterator[None]:
    """Serves the pages while the block runs; serves nothing when the settings name no port.

    Raises:
        ConfigError: The address cannot be bound.
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
    """Serves the three pages while the block runs, and yields the port. Port 0 picks a free one.

    Raises:
        OSError: The address cannot be bound.
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
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=IDLE_TIMEOUT_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()

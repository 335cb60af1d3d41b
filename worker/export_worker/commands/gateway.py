"""`export-worker gateway`: the HTTP API."""

import asyncio
from functools import partial

import click

from export_producers.gateway.server import serve
from export_worker.commands import options
from export_worker.config import load_config
from export_worker.redis.client import wait_for_redis
from export_worker.telemetry.logs import configure_logging
from export_worker.wiring.gateway import catalog_call, gateway_options
from export_worker.wiring.queue import build_queue
from export_worker.wiring.secrets import build_redactor


@click.command()
@options.log_level
def gateway(log_level: str) -> None:
    """Serve the HTTP API. Through it, services in any language can request exports."""
    config = load_config()
    settings = gateway_options(config)
    settings.check()
    redactor = build_redactor(config)
    configure_logging(redactor, log_level)

    async def run() -> None:
        async with build_queue(config) as queue:
            await serve(settings, queue, catalog_call(config, redactor), partial(wait_for_redis, config.redis_url))

    asyncio.run(run())

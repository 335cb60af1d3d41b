"""`export-worker gateway`: the HTTP API."""

import asyncio
from functools import partial
from importlib import import_module
from typing import cast

import click

from export_producers.client import ExportQueue
from export_producers.gateway.context import CatalogCall
from export_producers.gateway.options import GatewayOptions
from export_producers.gateway.server import serve
from export_worker.config import Config, load_config
from export_worker.credentials import Redactor, reveal, url_passwords
from export_worker.redis.client import wait_for_redis
from export_worker.telemetry.logs import configure_logging

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@click.command()
@click.option("--log-level", type=click.Choice(LEVELS), default="INFO", show_default=True)
def gateway(log_level: str) -> None:
    """Serve the HTTP API: the queue, for services in any language."""
    config = load_config()
    options = _options(config)
    options.check()
    redactor = Redactor()
    for secret in (*options.api_keys, *url_passwords(config.redis_url)):
        redactor.add(secret)
    configure_logging(redactor, log_level)
    catalog = _catalog(config, redactor)

    async def work() -> None:
        platforms = config.platforms() or None
        async with ExportQueue(config.redis_url, namespace=config.namespace, connections=platforms) as queue:
            await serve(options, queue, catalog, partial(wait_for_redis, config.redis_url))

    asyncio.run(work())


def _options(config: Config) -> GatewayOptions:
    settings = config.gateway
    keys = tuple(reveal(key, f"gateway.api_keys.{index}") for index, key in enumerate(settings.api_keys))
    return GatewayOptions(**(dict(settings) | {"api_keys": keys}))


def _catalog(config: Config, redactor: Redactor) -> CatalogCall | None:
    """What asks platforms, where it is installed: it needs the extra `worker`, the rest of the gateway does not."""
    try:
        module = import_module("export_worker.commands.catalog")
    except ModuleNotFoundError:
        return None
    return cast("CatalogCall", module.listing(config, redactor))

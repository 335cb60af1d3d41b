"""`export-worker gateway`: the HTTP API."""

import asyncio

from export_producers.gateway.server import serve
from export_worker.commands.ignored_settings import log_ignored_variables
from export_worker.commands.stopping import stop_on_signals
from export_worker.config import load_config
from export_worker.redis.client import wait_for_redis
from export_worker.telemetry.logs import configure_logging
from export_worker.wiring.gateway import catalog_call, gateway_options, installation_of
from export_worker.wiring.preview import preview_call
from export_worker.wiring.queue import build_queue
from export_worker.wiring.secrets import build_redactor

CLOSING_S = 10.0
"""Added to the time for running requests: to close connections."""
HANGING = "a client or Redis did not answer; clients can repeat their requests"


def gateway(log_level: str) -> None:
    """See `declarations.gateway`."""
    config = load_config()
    settings = gateway_options(config)
    settings.check()
    redactor = build_redactor(config)
    configure_logging(redactor, log_level)
    log_ignored_variables()

    async def run() -> None:
        stop = stop_on_signals("gateway.stop_forced", settings.stop_s + CLOSING_S, HANGING)
        # If Redis never answers, the address is probably wrong, and the process ends. Later outages only fail /readyz.
        await wait_for_redis(config.redis_url, stop)
        async with build_queue(config) as queue:
            catalog, preview = catalog_call(config, redactor), preview_call(config, redactor)
            installation = installation_of(config)
            await serve(settings, queue, catalog, stop, preview=preview, installation=installation)

    asyncio.run(run())

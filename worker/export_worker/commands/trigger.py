"""`export-worker trigger`: receives messages, and enqueues the exports that they request."""

import asyncio

import structlog

from export_worker.commands.ignored_settings import log_ignored_variables
from export_worker.commands.stopping import stop_on_signals
from export_worker.config import load_config
from export_worker.redis.client import wait_for_redis
from export_worker.telemetry.health_pages import pages_served
from export_worker.telemetry.logs import configure_logging
from export_worker.wiring.secrets import build_redactor
from export_worker.wiring.triggers import announce_trigger, open_trigger

STOP_LIMIT_S = 30.0
"""To finish the messages that are being enqueued and to close connections; Kubernetes waits for 45 s."""
HANGING = "Redis or the source of the messages did not answer; the source delivers unacknowledged messages again"

_log = structlog.get_logger(__name__)


def trigger(name: str, *, log_level: str) -> None:
    """See `declarations.trigger`."""
    config = load_config()
    redactor = build_redactor(config)
    configure_logging(redactor, log_level)
    log_ignored_variables()

    async def run() -> None:
        stop = stop_on_signals("trigger.stop_forced", STOP_LIMIT_S, HANGING)
        async with open_trigger(config, name, redactor, stop) as (running, pages):
            await wait_for_redis(config.redis_url, stop)
            await announce_trigger(config, name)
            async with pages_served(pages, config.worker.health_host, config.worker.health_port):
                _log.info("trigger.started", trigger=name)
                await running.run(stop)
            _log.info("trigger.stopped", trigger=name)

    asyncio.run(run())

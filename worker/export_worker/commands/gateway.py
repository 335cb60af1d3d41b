"""`export-worker gateway`: the HTTP API."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from typing import Any

from export_producers.gateway.server import serve
from export_worker.commands.ignored_settings import log_ignored_variables
from export_worker.commands.stopping import stop_on_signals
from export_worker.config import Config, load_config
from export_worker.credentials import Redactor
from export_worker.doctor.finding import Finding
from export_worker.redis.client import wait_for_any
from export_worker.telemetry.logs import configure_logging
from export_worker.wiring.gateway import catalog_call, gateway_options, installation_of
from export_worker.wiring.preview import preview_call
from export_worker.wiring.queue import build_queues, redis_urls
from export_worker.wiring.secrets import build_redactor

CLOSING_S = 10.0
"""Added to the time for running requests: to close connections."""
HANGING = "a client or Redis did not answer; clients can repeat their requests"


async def _doctor(config: Config, redactor: Redactor) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yields the findings of `doctor` about the configuration of this gateway."""
    # Its packages are large, so a gateway imports them with the first run.
    examined = await asyncio.to_thread(_import_doctor)
    async with aclosing(examined(config, redactor, os.environ)) as findings:
        async for finding in findings:
            yield asdict(finding)


def _import_doctor() -> Callable[[Config, Redactor, Mapping[str, str]], AsyncGenerator[Finding, None]]:
    from export_worker.doctor.report import examined  # noqa: PLC0415 - see above

    return examined


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
        await wait_for_any(redis_urls(config), stop)
        async with build_queues(config) as queues:
            catalog, preview = catalog_call(config, redactor), preview_call(config, redactor)
            installation = installation_of(config, redactor, partial(_doctor, config, redactor))
            await serve(settings, queues, catalog, stop, preview=preview, installation=installation)

    asyncio.run(run())

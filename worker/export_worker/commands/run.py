"""`export-worker run`: a worker."""

import asyncio
import os
import signal
import threading

import click
import structlog

from export_worker.config import load_config
from export_worker.contract.redis_keys import Role
from export_worker.telemetry.logs import configure_logging
from export_worker.wiring.secrets import build_redactor
from export_worker.wiring.worker import open_runtime
from export_worker.worker.claim_loop import CLEANUP_TIMEOUT_S

ROLES: dict[str, tuple[Role, ...]] = {
    "all": ("control", "transfer"),
    "control": ("control",),
    "transfer": ("transfer",),
}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FAREWELL_S = 5.0
"""On top of what steps get: to deliver what is left of the events, and to close connections."""

_log = structlog.get_logger(__name__)


@click.command()
@click.option("--role", type=click.Choice(list(ROLES)), default="all", show_default=True, help="What it does.")
@click.option("--burst", is_flag=True, help="Leave when no export is open.")
@click.option("--log-level", type=click.Choice(LEVELS), default="INFO", show_default=True)
def run(role: str, *, burst: bool, log_level: str) -> None:
    """Run a worker: control submits, polls and announces; transfer moves bytes."""
    config = load_config()
    redactor = build_redactor(config)
    configure_logging(redactor, log_level)

    async def work() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        limit_s = config.worker.drain_s + CLEANUP_TIMEOUT_S + FAREWELL_S

        def told_to_stop() -> None:
            if not stop.is_set():
                _leave_after(limit_s)
            stop.set()

        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, told_to_stop)
        async with open_runtime(config, redactor) as runtime:
            await runtime.serve(ROLES[role], stop, burst=burst)

    asyncio.run(work())


def _leave_after(limit_s: float) -> None:
    """End the process by then, whatever still hangs: a thread in a call to an S3 that is silent cannot be stopped.

    Nothing is lost by it: what this worker holds is taken up by another one when its lease ends, as after a death.
    """

    def leave() -> None:
        _log.warning("worker.stop_forced", after_s=limit_s, hint="S3 or a sink did not answer; others go on")
        os._exit(0)

    timer = threading.Timer(limit_s, leave)
    timer.daemon = True
    timer.start()

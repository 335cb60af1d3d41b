"""`export-worker run`: a worker."""

import asyncio
import os
import signal
import threading

import click
import structlog

from export_worker.commands import options
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
CLOSING_S = 5.0
"""Added to the time for running steps: to deliver the last events and to close connections."""

_log = structlog.get_logger(__name__)


@click.command()
@click.option(
    "--role", type=click.Choice(list(ROLES)), default="all", show_default=True, help="Which steps the worker runs."
)
@click.option("--burst", is_flag=True, help="Stop when no export is open.")
@options.log_level
def run(role: str, *, burst: bool, log_level: str) -> None:
    """Run a worker.

    The role `control` submits and polls exports. The role `transfer` moves files to S3. The role `all` does both.
    Workers of every role deliver completion events.
    """
    config = load_config()
    redactor = build_redactor(config)
    configure_logging(redactor, log_level)

    async def work() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        limit_s = config.worker.drain_s + CLEANUP_TIMEOUT_S + CLOSING_S

        def begin_stop() -> None:
            if not stop.is_set():
                _exit_after(limit_s)
            stop.set()

        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, begin_stop)
        async with open_runtime(config, redactor) as runtime:
            await runtime.serve(ROLES[role], stop, burst=burst)

    asyncio.run(work())


def _exit_after(limit_s: float) -> None:
    """Ends the process after this time, even if a call hangs: a thread that waits for S3 cannot be cancelled.

    No export is lost. Other workers resume the steps of this worker when its leases expire.
    """

    def leave() -> None:
        hint = "S3 or a sink did not answer; other workers resume the steps of this worker"
        _log.warning("worker.stop_forced", after_s=limit_s, hint=hint)
        os._exit(0)

    timer = threading.Timer(limit_s, leave)
    timer.daemon = True
    timer.start()

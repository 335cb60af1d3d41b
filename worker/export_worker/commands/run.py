"""`export-worker run`: a worker."""

import asyncio
import signal

import click

from export_worker.config import load_config
from export_worker.contract.keys import Role
from export_worker.runtime import build_redactor, open_runtime
from export_worker.telemetry import configure_logging

ROLES: dict[str, tuple[Role, ...]] = {
    "all": ("control", "transfer"),
    "control": ("control",),
    "transfer": ("transfer",),
}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


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
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, stop.set)
        async with open_runtime(config, redactor) as runtime:
            await runtime.serve(ROLES[role], stop, burst=burst)

    asyncio.run(work())

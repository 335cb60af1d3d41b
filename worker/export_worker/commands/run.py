"""`export-worker run`: a worker."""

import asyncio

from export_worker.commands.ignored_settings import log_ignored_variables
from export_worker.commands.stopping import stop_on_signals
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
HANGING = "S3 or a sink did not answer; other workers resume the steps of this worker"


def run(role: str, *, burst: bool, log_level: str) -> None:
    """See `declarations.run`."""
    config = load_config()
    redactor = build_redactor(config)
    configure_logging(redactor, log_level)
    log_ignored_variables()

    async def work() -> None:
        limit_s = config.worker.drain_s + CLEANUP_TIMEOUT_S + CLOSING_S
        stop = stop_on_signals("worker.stop_forced", limit_s, HANGING)
        async with open_runtime(config, redactor, roles=ROLES[role]) as runtime:
            await runtime.serve(ROLES[role], stop, burst=burst)

    asyncio.run(work())

"""Deletes the result of an export on its platform, after the export has succeeded and this was saved."""

import asyncio

import structlog

from export_worker.credentials import Redactor
from export_worker.errors import StepError
from export_worker.lifecycle.export import Export, Succeeded, Transferring
from export_worker.platforms.base import Discarding
from export_worker.redis.claims import ClaimedStep
from export_worker.step_context import gated
from export_worker.worker.connections import Connection

DISCARD_TIMEOUT_S = 10.0
"""The step keeps its slot in the worker meanwhile."""

_log = structlog.get_logger(__name__)


async def discard_result(
    claimed: ClaimedStep, after: Export, connection: Connection | None, redactor: Redactor
) -> None:
    """Asks the platform once to delete the result of an export. A failure is logged and changes nothing.

    Args:
        claimed: The step that has just been saved.
        after: The export after the step.
        connection: That of the export; None if this worker does not have it.
        redactor: Masks secrets in the log.
    """
    state = after.state
    before = claimed.export.state
    if not isinstance(state, Succeeded) or isinstance(before, Succeeded):
        return
    if isinstance(before, Transferring) and before.copy_of:
        return  # the result is discarded by the export that has transferred it
    if connection is None or not isinstance(connection.driver, Discarding):
        return
    try:
        async with asyncio.timeout(DISCARD_TIMEOUT_S):
            with gated(connection.request_gate(claimed)):
                await connection.driver.discard(after.request.export, state.operation_id)
    except (StepError, TimeoutError) as error:
        reason = redactor.text(str(error)) or f"no answer within {DISCARD_TIMEOUT_S:g} s"
        _log.warning("result.not_discarded", reason=reason)
    except Exception:  # noqa: BLE001 - the export has succeeded, whatever the driver does
        _log.exception("result.not_discarded")
    else:
        _log.info("result.discarded")

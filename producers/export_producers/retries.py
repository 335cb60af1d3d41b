"""Which failed exports a retry can help. Pure."""

from export_producers.records import Start, start_of_retry
from export_worker.contract.status import Status
from export_worker.errors import ErrorCode

ENDED_BY_TIME = ErrorCode.DEADLINE_EXCEEDED
"""The deadline of an export begins again with its retry."""
OF_ONE_OPERATION = frozenset({ErrorCode.PLATFORM_ERROR, ErrorCode.RESULT_EMPTY, ErrorCode.RESULT_MISSING})
"""What another operation of the platform may do better. The same operation has ended, and cannot."""


def may_succeed(status: Status, start: Start | None) -> bool:
    """Returns whether a retry of a failed export can end otherwise if nothing else has changed.

    Args:
        start: The step to restart from; None for the default.
    """
    error = status.error
    if error is None or error.retryable or error.code == ENDED_BY_TIME:
        return True
    return error.code in OF_ONE_OPERATION and (start or start_of_retry(status)) == "submit"

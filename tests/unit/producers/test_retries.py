"""Which failed exports a retry can help."""

from datetime import UTC, datetime
from typing import get_args

import pytest

from export_producers.records import Start, first_status
from export_producers.retries import may_succeed
from export_worker.contract.status import ErrorReport, Phase, Status
from export_worker.errors import ErrorCode
from support.redis_site import request_of


def failed(code: ErrorCode, step: str = "poll", *, retryable: bool = False) -> Status:
    """Returns the status of an export that has failed."""
    error = ErrorReport(code=code, message="m", step=step, retryable=retryable)
    status = first_status(request_of(), "0" * 32, datetime.now(UTC))
    return status.model_copy(update={"phase": Phase.FAILED, "error": error})


@pytest.mark.parametrize("code", list(ErrorCode))
def test_retryable_error_may_pass(code: ErrorCode) -> None:
    assert may_succeed(failed(code, retryable=True), None)


@pytest.mark.parametrize("start", [None, *get_args(Start)])
def test_deadline_begins_again_with_a_retry(start: Start | None) -> None:
    assert may_succeed(failed(ErrorCode.DEADLINE_EXCEEDED), start)


@pytest.mark.parametrize("code", [ErrorCode.PLATFORM_ERROR, ErrorCode.RESULT_EMPTY, ErrorCode.RESULT_MISSING])
def test_failed_operation_needs_another_operation(code: ErrorCode) -> None:
    assert [may_succeed(failed(code), start) for start in (None, "poll", "transfer", "submit")] == [
        False,
        False,
        False,
        True,
    ]
    assert may_succeed(failed(code, "submit"), None)


@pytest.mark.parametrize("code", [ErrorCode.PLATFORM_REFUSED, ErrorCode.SUBMIT_UNCLEAR, ErrorCode.OBJECT_EXISTS])
def test_final_error_stays_without_a_change_elsewhere(code: ErrorCode) -> None:
    assert not any(may_succeed(failed(code), start) for start in (None, *get_args(Start)))

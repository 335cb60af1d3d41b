"""Failures, deadlines and cancellations: retry or end."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.contract.status import Phase
from export_worker.errors import (
    AuthFailedError,
    DefectError,
    DownloadForbiddenError,
    ErrorCode,
    OperationFailedError,
    PlatformNotFoundError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    StepError,
)
from export_worker.lifecycle import decisions, endings, submits, transitions
from export_worker.lifecycle.export import Cancelled, Export, Failed, Running
from export_worker.lifecycle.observations import Pending, Ready, Submitted
from support.export_states import (
    FILES,
    POLICY,
    START,
    at,
    code_of,
    due_in_s,
    export_of,
    failed,
    half_stored,
    polled,
    running,
    stored,
    transferring,
)

# Failures


@pytest.mark.parametrize(("make", "step"), [(export_of, "submit"), (running, "poll"), (transferring, "transfer")])
def test_failure_is_retried_until_attempts_are_used_up(make: Any, step: str) -> None:
    export: Export = make()
    for attempt in range(1, POLICY.max_attempts):
        decision = endings.after_failure(export, PlatformUnavailableError("HTTP 502"), at(10), POLICY)
        export = decision.export
        assert (export.attempt, export.counters.retries) == (attempt, attempt)
        assert due_in_s(decision, at(10)) == POLICY.retry.ceiling_s(attempt - 1)
        assert export.error is not None
        assert (export.error.step, export.error.retryable) == (step, True)
        assert f"{step} failed (platform_unavailable), retry in" in str(decision.note)
    export = endings.after_failure(export, PlatformUnavailableError("HTTP 502"), at(10), POLICY).export
    assert export.phase is Phase.FAILED
    assert code_of(export) == ErrorCode.PLATFORM_UNAVAILABLE
    assert export.counters.retries == POLICY.max_attempts - 1


def test_refused_credential_is_retried_only_after_submit() -> None:
    waiting = endings.after_failure(running(), AuthFailedError("no"), at(1), POLICY).export
    assert waiting.phase is Phase.RUNNING
    assert waiting.error is not None
    assert waiting.error.retryable
    refused = endings.after_failure(export_of(), AuthFailedError("no"), at(1), POLICY).export
    assert refused.phase is Phase.FAILED
    assert code_of(refused) == ErrorCode.AUTH_FAILED


def test_refusal_is_retried_only_in_a_poll() -> None:
    error = PlatformRefusedError("Internal server error")
    export = running()
    for _ in range(1, POLICY.max_attempts):
        export = endings.after_failure(export, error, at(1), POLICY).export
        assert (export.phase, code_of(export)) == (Phase.RUNNING, ErrorCode.PLATFORM_REFUSED)
    assert endings.after_failure(export, error, at(1), POLICY).export.phase is Phase.FAILED
    for make in (export_of, transferring):
        assert endings.after_failure(make(), error, at(1), POLICY).export.phase is Phase.FAILED


def test_refusal_in_a_poll_is_final_for_unknown_jobs_and_requested_changes() -> None:
    unknown = endings.after_failure(running(), PlatformNotFoundError("no such job"), at(1), POLICY).export
    assert (unknown.phase, code_of(unknown)) == (Phase.FAILED, ErrorCode.PLATFORM_REFUSED)
    refused = endings.after_failure(running(), PlatformRefusedError("no"), at(1), POLICY, refusal_is_final=True).export
    assert refused.phase is Phase.FAILED


@pytest.mark.parametrize("error", [OperationFailedError("no"), DownloadForbiddenError("no")])
def test_failure_that_is_not_retryable_fails_export(error: StepError) -> None:
    export = endings.after_failure(running(), error, at(1), POLICY).export
    assert export.phase is Phase.FAILED
    assert export.error is not None
    assert (export.error.code, export.error.retryable) == (error.code, False)
    assert export.counters.retries == 0


@given(st.integers(1, 50))
def test_throttled_request_uses_no_attempt(count: int) -> None:
    export = running()
    for number in range(count):
        decision = endings.after_failure(export, PlatformThrottledError("429"), at(number), POLICY)
        export = decision.export
        assert due_in_s(decision, at(number)) == POLICY.retry.ceiling_s(number)
    assert (export.attempt, export.throttled, export.counters.retries) == (0, count, 0)
    assert export.phase is Phase.RUNNING
    assert code_of(export) == ErrorCode.PLATFORM_THROTTLED


@given(st.floats(0, 1e18), st.floats(0, 1), st.booleans())
def test_retry_waits_as_long_as_requested_up_to_deadline(wait_s: float, draw: float, slow: bool) -> None:
    kind = PlatformThrottledError if slow else PlatformUnavailableError
    moment = at(10, draw)
    decision = endings.after_failure(running(), kind("wait", retry_after_s=wait_s), moment, POLICY)
    least_s = min(max(wait_s, draw * 1.0), POLICY.deadline_s - 10)
    assert due_in_s(decision, moment) == pytest.approx(least_s, abs=1e-5)


def test_defect_is_retried() -> None:
    export = endings.after_failure(running(), DefectError("unexpected KeyError"), at(1), POLICY).export
    assert export.phase is Phase.RUNNING
    assert code_of(export) == ErrorCode.INTERNAL_ERROR


@given(st.integers(1, 50))
def test_spared_failure_uses_no_attempt(count: int) -> None:
    export = running()
    for number in range(count):
        error = PlatformUnavailableError("HTTP 502")
        decision = endings.after_failure(export, error, at(number), POLICY, spared=True)
        export = decision.export
        assert due_in_s(decision, at(number)) == POLICY.retry.ceiling_s(number)
    assert (export.attempt, export.throttled, export.counters.retries) == (0, count, 0)
    assert code_of(export) == ErrorCode.PLATFORM_UNAVAILABLE


# The deadline


@given(st.floats(0, 7200), st.floats(0, 1), st.none() | st.floats(0.001, 7200))
def test_next_step_is_due_between_now_and_deadline(after_s: float, draw: float, limit_s: float | None) -> None:
    moment = at(after_s, draw)
    for decision in (
        polled(running(deadline_s=limit_s), Pending("EXECUTING"), moment),
        polled(running(deadline_s=limit_s), Ready("FINISH", ()), moment),
        transitions.after_submit(export_of(deadline_s=limit_s), Submitted("op1"), moment, POLICY),
        endings.after_failure(running(deadline_s=limit_s), PlatformUnavailableError("502"), moment, POLICY),
    ):
        latest = max(moment.now, decisions.deadline(decision.export, POLICY))
        assert moment.now <= decision.export.due_at <= latest


def test_deadline_of_request_replaces_that_of_policy() -> None:
    assert decisions.deadline(export_of(), POLICY) == START + timedelta(hours=1)
    assert decisions.deadline(export_of(deadline_s=7200), POLICY) == START + timedelta(hours=2)


def test_deadline_counts_from_restart() -> None:
    again = transitions.restart(failed(), "submit", at(5000)).export
    assert again.set_going_at == at(5000).now
    assert again.created_at == START
    assert decisions.deadline(again, POLICY) == at(8600).now


@pytest.mark.parametrize(
    ("make", "step", "operation_id"),
    [(export_of, "submit", None), (running, "poll", "op1"), (transferring, "transfer", "op1")],
)
def test_deadline_fails_export_in_every_open_phase(make: Any, step: str, operation_id: str | None) -> None:
    export: Export = make()
    ended = endings.after_deadline(export, at(3600), POLICY).export
    assert isinstance(ended.state, Failed)
    assert ended.state.operation_id == operation_id
    assert ended.error is not None
    assert (ended.error.code, ended.error.step) == (ErrorCode.DEADLINE_EXCEEDED, step)
    assert ended.error.message == f"not finished within 3600 s of acceptance; its phase was {export.phase}"


@pytest.mark.parametrize(("make", "phase"), [(export_of, "queued"), (running, "running")])
def test_deadline_in_the_middle_of_a_submit_warns_of_started_jobs(make: Any, phase: str) -> None:
    ended = endings.after_deadline(make(), at(3600), POLICY, submitting=True).export
    assert ended.error is not None
    assert ended.error.message == (
        f"not finished within 3600 s of acceptance; its phase was {phase}; a submit whose response was lost may have "
        "started an operation on the platform"
    )


def test_deadline_message_contains_last_failure() -> None:
    export = endings.after_failure(running(), PlatformUnavailableError("HTTP 502"), at(1), POLICY).export
    ended = endings.after_deadline(export, at(3600), POLICY).export
    assert ended.error is not None
    assert ended.error.message.endswith("its phase was running; last failure: HTTP 502")


# Cancellations


@pytest.mark.parametrize(
    ("make", "reached"),
    [
        (export_of, {}),
        (running, {"operation_id": "op1", "stage": "CREATED"}),
        (transferring, {"operation_id": "op1", "stage": "FINISH", "files": list(FILES)}),
        (half_stored, {"operation_id": "op1", "files": list(FILES), "stored": [stored("下载 & 列表.csv")]}),
    ],
)
def test_cancel_keeps_results_so_far(make: Any, reached: dict[str, Any]) -> None:
    export: Export = make()
    decision = endings.after_cancel(export, at(9))
    state = decision.export.state
    assert isinstance(state, Cancelled)
    assert {name: getattr(state, name) for name in reached} == reached
    assert state.finished_at == decision.export.updated_at == at(9).now
    continues = "; op1 continues on the platform" if isinstance(export.state, Running) else ""
    assert (decision.note, decision.export.error) == (f"cancelled{continues}", export.error)
    assert decision.export.counters == export.counters


def test_cancel_note_reports_operation_on_platform() -> None:
    assert (
        endings.after_cancel(running(), at(9), on_platform=True).note == "cancelled; op1 is cancelled on the platform"
    )
    lost = submits.with_unclear_submit(export_of())
    assert (
        endings.after_cancel(lost, at(9)).note
        == "cancelled; a submit whose response was lost may have started an operation on the platform"
    )

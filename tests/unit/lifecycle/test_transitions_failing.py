"""What a failure leads to, and the end of patience."""

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
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    ResultMissingError,
    StepError,
    StorageError,
)
from export_worker.lifecycle import decisions, endings, transitions
from export_worker.lifecycle.export import Export, Failed
from export_worker.lifecycle.observations import Pending, Ready, Submitted
from support.export_states import POLICY, START, at, code_of, due_in_s, export_of, failed, polled, running, transferring

# Failing


@pytest.mark.parametrize(("make", "step"), [(export_of, "submit"), (running, "poll"), (transferring, "transfer")])
def test_attempts_are_used_up(make: Any, step: str) -> None:
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


def test_a_credential_that_a_running_job_has_had_is_waited_for() -> None:
    waiting = endings.after_failure(running(), AuthFailedError("no"), at(1), POLICY).export
    assert waiting.phase is Phase.RUNNING
    assert waiting.error is not None
    assert waiting.error.retryable
    refused = endings.after_failure(export_of(), AuthFailedError("no"), at(1), POLICY).export
    assert refused.phase is Phase.FAILED
    assert code_of(refused) == ErrorCode.AUTH_FAILED


@pytest.mark.parametrize("error", [PlatformRefusedError("no"), DownloadForbiddenError("no")])
def test_what_would_fail_again_is_not_tried_again(error: StepError) -> None:
    export = endings.after_failure(running(), error, at(1), POLICY).export
    assert export.phase is Phase.FAILED
    assert export.error is not None
    assert (export.error.code, export.error.retryable) == (error.code, False)
    assert export.counters.retries == 0


@given(st.integers(1, 50))
def test_throttling_uses_no_attempt(count: int) -> None:
    export = running()
    for number in range(count):
        decision = endings.after_failure(export, PlatformThrottledError("429"), at(number), POLICY)
        export = decision.export
        assert due_in_s(decision, at(number)) == POLICY.retry.ceiling_s(number)
    assert (export.attempt, export.throttled, export.counters.retries) == (0, count, 0)
    assert export.phase is Phase.RUNNING
    assert code_of(export) == ErrorCode.PLATFORM_THROTTLED


@given(st.floats(0, 1e18), st.floats(0, 1), st.booleans())
def test_the_other_side_may_ask_for_a_longer_wait_up_to_the_deadline(wait_s: float, draw: float, slow: bool) -> None:
    kind = PlatformThrottledError if slow else PlatformUnavailableError
    moment = at(10, draw)
    decision = endings.after_failure(running(), kind("wait", retry_after_s=wait_s), moment, POLICY)
    least_s = min(max(wait_s, draw * 1.0), POLICY.deadline_s - 10)
    assert due_in_s(decision, moment) == pytest.approx(least_s, abs=1e-5)


def test_a_defect_is_tried_again() -> None:
    export = endings.after_failure(running(), DefectError("unexpected KeyError"), at(1), POLICY).export
    assert export.phase is Phase.RUNNING
    assert code_of(export) == ErrorCode.INTERNAL_ERROR


@given(st.integers(1, 50))
def test_a_probe_of_a_platform_that_is_down_uses_no_attempt(count: int) -> None:
    export = running()
    for number in range(count):
        error = PlatformUnavailableError("HTTP 502")
        decision = endings.after_failure(export, error, at(number), POLICY, probe=True)
        export = decision.export
        assert due_in_s(decision, at(number)) == POLICY.retry.ceiling_s(number)
    assert (export.attempt, export.throttled, export.counters.retries) == (0, count, 0)
    assert code_of(export) == ErrorCode.PLATFORM_UNAVAILABLE


@pytest.mark.parametrize("error", [DefectError("KeyError"), StorageError("slow down"), ResultMissingError("404")])
def test_a_probe_that_fails_for_another_reason_uses_one(error: StepError) -> None:
    export = endings.after_failure(running(), error, at(1), POLICY, probe=True).export
    assert (export.attempt, export.counters.retries) == (1, 1)


def test_a_probe_that_is_refused_ends_its_export() -> None:
    assert (
        endings.after_failure(running(), PlatformRefusedError("no"), at(1), POLICY, probe=True).export.phase == "failed"
    )


# The deadline


@given(st.floats(0, 7200), st.floats(0, 1), st.none() | st.floats(0.001, 7200))
def test_no_wait_leads_past_the_deadline_nor_into_the_past(after_s: float, draw: float, limit_s: float | None) -> None:
    moment = at(after_s, draw)
    for decision in (
        polled(running(deadline_s=limit_s), Pending("EXECUTING"), moment),
        polled(running(deadline_s=limit_s), Ready("FINISH", ()), moment),
        transitions.after_submit(export_of(deadline_s=limit_s), Submitted("op1"), moment, POLICY),
        endings.after_failure(running(deadline_s=limit_s), PlatformUnavailableError("502"), moment, POLICY),
    ):
        latest = max(moment.now, decisions.deadline(decision.export, POLICY))
        assert moment.now <= decision.export.due_at <= latest


def test_a_request_may_say_its_own_deadline() -> None:
    assert decisions.deadline(export_of(), POLICY) == START + timedelta(hours=1)
    assert decisions.deadline(export_of(deadline_s=7200), POLICY) == START + timedelta(hours=2)


def test_the_deadline_counts_from_when_it_was_set_going() -> None:
    again = transitions.restart(failed(), "submit", at(5000)).export
    assert again.set_going_at == at(5000).now
    assert again.created_at == START
    assert decisions.deadline(again, POLICY) == at(8600).now


@pytest.mark.parametrize(
    ("make", "step", "operation_id"),
    [(export_of, "submit", None), (running, "poll", "op1"), (transferring, "transfer", "op1")],
)
def test_time_is_up(make: Any, step: str, operation_id: str | None) -> None:
    export: Export = make()
    ended = endings.after_deadline(export, at(3600), POLICY).export
    assert isinstance(ended.state, Failed)
    assert ended.state.operation_id == operation_id
    assert ended.error is not None
    assert (ended.error.code, ended.error.step) == (ErrorCode.DEADLINE_EXCEEDED, step)
    assert ended.error.message == f"not finished within 3600 s of acceptance; its phase was {export.phase}"


@pytest.mark.parametrize(
    ("make", "interrupted", "claims", "told"),
    [
        (export_of, True, 1, "queued; a submit whose response was lost may have started a job on the platform"),
        (export_of, False, 2, "queued; a submit whose response was lost may have started a job on the platform"),
        (running, True, 1, "running; the deadline interrupted a poll, which may have started a job on the platform"),
        (running, False, 2, "running"),
        (transferring, True, 1, "transferring"),
    ],
)
def test_time_is_up_in_the_middle_of_a_step(make: Any, interrupted: bool, claims: int, told: str) -> None:
    ended = endings.after_deadline(make(), at(3600), POLICY, interrupted=interrupted, claims=claims).export
    assert ended.error is not None
    assert ended.error.message == f"not finished within 3600 s of acceptance; its phase was {told}"


def test_time_is_up_names_the_last_failure() -> None:
    export = endings.after_failure(running(), PlatformUnavailableError("HTTP 502"), at(1), POLICY).export
    ended = endings.after_deadline(export, at(3600), POLICY).export
    assert ended.error is not None
    assert ended.error.message.endswith("its phase was running; last failure: HTTP 502")

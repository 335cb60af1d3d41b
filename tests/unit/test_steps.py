"""The state machine: each decision, then a walk through all of them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from export_worker import steps
from export_worker.backoff import Backoff
from export_worker.contract.codes import ErrorCode
from export_worker.contract.model import isoformat
from export_worker.contract.request import ExportRequest, GrowingioTagUsers
from export_worker.contract.status import ManifestObject, Phase, StoredObject
from export_worker.errors import (
    AuthFailedError,
    DefectError,
    DownloadForbiddenError,
    DownloadInterruptedError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    ResultMissingError,
    StepError,
    StorageError,
)
from export_worker.export import (
    Cancelled,
    Ended,
    Export,
    Failed,
    Queued,
    Running,
    Succeeded,
    Transferring,
    accepted,
    event_of,
    status_of,
)
from export_worker.observed import OperationFailed, Pending, Ready, RemoteFile, Stored, Submitted
from export_worker.pollplan import PollPlan
from export_worker.steps import EMPTY_LOOKS_MAX, Decision, Moment, Policy

START = datetime(2026, 11, 22, 3, tzinfo=UTC)
POLL = Backoff(2.0, 60.0)
POLICY = Policy(poll=PollPlan(POLL.first_s, POLL.max_s), retry=Backoff(1.0, 30.0), max_attempts=3, deadline_s=3600.0)
FILES = (RemoteFile("/a/下载 & 列表.csv", "下载 & 列表.csv"), RemoteFile("/a/b.csv", "b.csv"))


def export_of(**request: Any) -> Export:
    body = ExportRequest(connection="gio", export=GrowingioTagUsers(tag_key="t"), metadata={"order": "42"}, **request)
    return accepted("e1", body, START)


def at(after_s: float = 0.0, draw: float = 1.0) -> Moment:
    return Moment(START + timedelta(seconds=after_s), draw)


def stored(name: str = "b.csv", size_bytes: int = 10) -> ManifestObject:
    return ManifestObject(
        uri=f"s3://bucket/k/{name}",
        bucket="bucket",
        key=f"k/{name}",
        bytes=size_bytes // 2,
        etag="0cc1",
        checksum="CRC64NVME:AAAAAAAAAAA=",
        file_name=name,
        source_uri=f"/a/{name}",
        source_bytes=size_bytes,
    )


def running(after_s: float = 0.0, **request: Any) -> Export:
    submitting = steps.submitting(export_of(**request), 1)
    return steps.after_submit(submitting, Submitted("op1", "CREATED"), at(after_s), POLICY).export


def running_state(export: Export) -> Running:
    assert isinstance(export.state, Running)
    return export.state


def transferring_state(export: Export) -> Transferring:
    assert isinstance(export.state, Transferring)
    return export.state


def polled(export: Export, seen: Pending | Ready | OperationFailed, moment: Moment) -> Decision:
    return steps.after_poll(export, running_state(export), seen, moment, POLICY)


def transferring() -> Export:
    return polled(running(), Ready("FINISH", FILES), at(5)).export


def succeeded() -> Export:
    export = transferring()
    for name in ("下载 & 列表.csv", "b.csv"):
        export = steps.after_file(export, transferring_state(export), stored(name), at(6)).export
    sealed = Stored(tuple(transferring_state(export).stored), "s3://bucket/k/manifest.json")
    return steps.after_transfer(export, transferring_state(export), sealed, at(7)).export


def failed() -> Export:
    return steps.after_failure(running(), PlatformRefusedError("no such tag"), at(3), POLICY).export


def cancelled() -> Export:
    return steps.after_cancel(running(), at(3)).export


def half_stored() -> Export:
    export = transferring()
    return steps.after_file(export, transferring_state(export), stored("下载 & 列表.csv"), at(6)).export


def given_up(export: Export) -> Export:
    return steps.after_failure(export, DownloadForbiddenError("no"), at(8), POLICY).export


def saved(export: Export) -> Export:
    """As it comes back from the store."""
    return Export.model_validate_json(export.model_dump_json(exclude_none=True))


def due_in_s(decision: Decision, moment: Moment) -> float:
    return (decision.export.due_at - moment.now).total_seconds()


def code_of(export: Export) -> str:
    assert export.error is not None
    return export.error.code


# Submitting


@given(st.integers(1, 50), st.integers(1, 50))
def test_each_beginning_of_a_submit_counts(first: int, second: int) -> None:
    export = steps.submitting(export_of(), first)
    assert export.counters.submits == first
    again = steps.submitting(export, second)
    assert again.counters.submits == first + second
    assert again.model_copy(update={"counters": export_of().counters}) == export_of()


def test_a_submitted_export_waits_for_its_first_poll() -> None:
    decision = steps.after_submit(export_of(), Submitted("op1", "CREATED"), at(1, 0.5), POLICY)
    assert decision.export.state == Running(operation_id="op1", stage="CREATED", submitted_at=at(1).now)
    assert due_in_s(decision, at(1)) == 1.0
    assert decision.note == "submitted as op1"


def test_a_submit_that_was_begun_before_is_told() -> None:
    decision = steps.after_submit(export_of(), Submitted("op1", "CREATED"), at(1), POLICY, claims=2)
    assert decision.note == (
        "submitted again (an earlier submit may have reached the platform before its worker died) as op1"
    )


def test_the_first_look_comes_when_jobs_like_it_have_ended() -> None:
    seen_s = [30.0] * 20
    decision = steps.after_submit(export_of(), Submitted("op1"), at(1, 0.5), POLICY, seen_s=seen_s)
    assert due_in_s(decision, at(1)) == POLICY.poll.wait_s(0, 0.0, seen_s, 0.5) == 30.0


def test_a_job_that_is_done_at_submit_is_looked_at_at_once() -> None:
    decision = steps.after_submit(export_of(), Submitted("op1", "FINISH", done=True), at(1), POLICY)
    assert decision.export.phase is Phase.RUNNING
    assert due_in_s(decision, at(1)) == 0.0


# Polling


@given(st.integers(1, 300))
def test_polls_use_no_attempt_and_grow_patient(count: int) -> None:
    export = running()
    for number in range(count):
        moment = at(number)
        decision = polled(export, Pending("EXECUTING"), moment)
        export = decision.export
        assert due_in_s(decision, moment) == POLL.ceiling_s(number + 1)
        assert running_state(export).submitted_at == START
        assert running_state(export).looked_at == moment.now
    assert export.counters.model_dump() == {"polls": count, "submits": 1, "retries": 0}
    assert (export.attempt, export.error) == (0, None)


def test_the_next_look_comes_when_more_of_the_jobs_like_it_have_ended() -> None:
    seen_s = [10.0] * 10 + [30.0] * 10
    state = running_state(running())
    decision = steps.after_poll(running(), state, Pending("EXECUTING"), at(12, 0.5), POLICY, seen_s=seen_s)
    assert due_in_s(decision, at(12)) == POLICY.poll.wait_s(1, 12.0, seen_s, 0.5) == 18.0


def test_a_job_of_unknown_age_counts_as_new() -> None:
    seen_s = [10.0] * 10 + [30.0] * 10
    state = Running(operation_id="op1")
    decision = steps.after_poll(running(), state, Pending("EXECUTING"), at(12, 0.5), POLICY, seen_s=seen_s)
    assert due_in_s(decision, at(12)) == POLICY.poll.wait_s(1, 0.0, seen_s, 0.5)
    assert running_state(decision.export).submitted_at is None


def test_an_operation_may_go_on_under_another_handle() -> None:
    decision = polled(running(), Pending("QUERYING", operation_id="op2"), at(1))
    assert running_state(decision.export).operation_id == "op2"
    assert decision.note == "stage QUERYING, goes on as op2"
    assert polled(decision.export, Pending("QUERYING"), at(2)).note is None


def test_only_a_new_stage_is_news() -> None:
    first = polled(running(), Pending("EXECUTING"), at(1))
    assert first.note == "stage EXECUTING"
    assert polled(first.export, Pending("EXECUTING"), at(2)).note is None


@given(st.none() | st.text(max_size=20), st.none() | st.floats(0, 100))
def test_an_unknown_stage_is_still_running(stage: str | None, percent: float | None) -> None:
    export = polled(running(), Pending(stage, percent), at(1)).export
    assert export.phase is Phase.RUNNING
    assert status_of(export).platform_stage == stage
    assert status_of(export).progress.percent == percent


def test_a_poll_that_is_answered_ends_a_row_of_failures() -> None:
    export = steps.after_failure(running(), PlatformUnavailableError("502"), at(1), POLICY).export
    export = steps.after_failure(export, PlatformThrottledError("429"), at(2), POLICY).export
    assert (export.attempt, export.throttled) == (1, 1)
    export = polled(export, Pending("EXECUTING"), at(3)).export
    assert (export.attempt, export.throttled) == (0, 0)


def test_named_files_are_moved_at_once() -> None:
    decision = polled(running(), Ready("FINISH", FILES), at(5))
    assert decision.export.state == Transferring(operation_id="op1", stage="FINISH", files=list(FILES))
    assert due_in_s(decision, at(5)) == 0.0
    assert decision.export.role == "transfer"
    assert decision.note == "ready with 2 file(s)"


def test_done_without_files_is_looked_at_again_and_then_failed() -> None:
    export = running()
    for look in range(1, EMPTY_LOOKS_MAX + 1):
        decision = polled(export, Ready("FINISH", ()), at(look))
        export = decision.export
        assert export.phase is Phase.RUNNING
        assert export.attempt == 0
        assert due_in_s(decision, at(look)) == POLICY.retry.ceiling_s(look)
    export = polled(export, Ready("FINISH", ()), at(60)).export
    assert export.phase is Phase.FAILED
    assert code_of(export) == ErrorCode.RESULT_EMPTY
    assert export.counters.polls == EMPTY_LOOKS_MAX + 1


def test_empty_looks_are_bounded_whatever_comes_between() -> None:
    export = running()
    for _ in range(EMPTY_LOOKS_MAX):
        export = polled(export, Ready("FINISH", ()), at(1)).export
        export = polled(export, Pending("EXECUTING"), at(1)).export
    assert polled(export, Ready("FINISH", ()), at(2)).export.phase is Phase.FAILED


def test_files_that_are_named_late_are_files() -> None:
    export = polled(running(), Ready("FINISH", ()), at(1)).export
    assert polled(export, Ready("FINISH", FILES), at(2)).export.phase is Phase.TRANSFERRING


def test_the_platform_s_failure_is_told_in_its_words() -> None:
    decision = polled(running(), OperationFailed("ERROR", "no such tag"), at(1))
    export = decision.export
    assert export.state == Failed(operation_id="op1", stage="ERROR", finished_at=at(1).now)
    assert export.error is not None
    assert export.error.model_dump(mode="json") == {
        "code": "platform_error",
        "message": "no such tag",
        "step": "poll",
        "retryable": False,
    }
    assert decision.note == "failed: platform_error: no such tag"


# Moving


def test_each_file_counts_and_the_last_one_tells_when() -> None:
    export = transferring()
    export = steps.after_file(export, transferring_state(export), stored("a.csv"), at(6)).export
    assert transferring_state(export).landed_at is None
    assert status_of(export).progress.model_dump() == {
        "percent": None,
        "bytes_done": 10,
        "bytes_total": None,
        "files_done": 1,
        "files_total": 2,
    }
    export = steps.after_file(export, transferring_state(export), stored("b.csv"), at(7)).export
    assert transferring_state(export).landed_at == at(7).now
    assert saved(export).state == export.state


def test_a_file_that_stands_ends_a_row_of_failures() -> None:
    export = steps.after_failure(transferring(), DownloadInterruptedError("cut"), at(6), POLICY).export
    assert export.attempt == 1
    export = steps.after_file(export, transferring_state(export), stored(), at(7)).export
    assert export.attempt == 0


def test_success_forgets_the_failures_on_the_way() -> None:
    export = steps.after_failure(transferring(), StorageError("slow down"), at(6), POLICY).export
    assert export.error is not None
    sealed = Stored((stored(),), "s3://bucket/k/manifest.json")
    ended = steps.after_transfer(export, transferring_state(export), sealed, at(7)).export
    assert ended.error is None
    assert ended.counters.retries == 1


def test_a_missing_result_is_asked_for_anew() -> None:
    decision = steps.after_failure(transferring(), ResultMissingError("404"), at(6), POLICY)
    assert decision.export.state == Running(operation_id="op1", stage="FINISH")
    assert decision.export.attempt == 1
    assert code_of(decision.export) == ErrorCode.RESULT_MISSING


def test_a_result_that_is_named_but_never_there_does_not_loop_for_ever() -> None:
    export = transferring()
    for attempt in range(1, POLICY.max_attempts):
        export = steps.after_failure(export, ResultMissingError("404"), at(attempt), POLICY).export
        assert export.phase is Phase.RUNNING
        export = polled(export, Ready("FINISH", FILES), at(attempt)).export
    export = steps.after_failure(export, ResultMissingError("404"), at(9), POLICY).export
    assert export.phase is Phase.FAILED
    assert code_of(export) == ErrorCode.RESULT_MISSING


def test_a_missing_answer_to_a_submit_or_poll_steps_nowhere() -> None:
    for export in (export_of(), running()):
        again = steps.after_failure(export, ResultMissingError("404"), at(1), POLICY).export
        assert again.state == export.state


# Failing


@pytest.mark.parametrize(("make", "step"), [(export_of, "submit"), (running, "poll"), (transferring, "transfer")])
def test_attempts_are_used_up(make: Any, step: str) -> None:
    export: Export = make()
    for attempt in range(1, POLICY.max_attempts):
        decision = steps.after_failure(export, PlatformUnavailableError("HTTP 502"), at(10), POLICY)
        export = decision.export
        assert (export.attempt, export.counters.retries) == (attempt, attempt)
        assert due_in_s(decision, at(10)) == POLICY.retry.ceiling_s(attempt - 1)
        assert export.error is not None
        assert (export.error.step, export.error.retryable) == (step, True)
        assert f"{step} failed (platform_unavailable), again in" in str(decision.note)
    export = steps.after_failure(export, PlatformUnavailableError("HTTP 502"), at(10), POLICY).export
    assert export.phase is Phase.FAILED
    assert code_of(export) == ErrorCode.PLATFORM_UNAVAILABLE
    assert export.counters.retries == POLICY.max_attempts - 1


def test_a_credential_that_a_running_job_has_had_is_waited_for() -> None:
    waiting = steps.after_failure(running(), AuthFailedError("no"), at(1), POLICY).export
    assert waiting.phase is Phase.RUNNING
    assert waiting.error is not None
    assert waiting.error.retryable
    refused = steps.after_failure(export_of(), AuthFailedError("no"), at(1), POLICY).export
    assert refused.phase is Phase.FAILED
    assert code_of(refused) == ErrorCode.AUTH_FAILED


@pytest.mark.parametrize("error", [PlatformRefusedError("no"), DownloadForbiddenError("no")])
def test_what_would_fail_again_is_not_tried_again(error: StepError) -> None:
    export = steps.after_failure(running(), error, at(1), POLICY).export
    assert export.phase is Phase.FAILED
    assert export.error is not None
    assert (export.error.code, export.error.retryable) == (error.code, False)
    assert export.counters.retries == 0


@given(st.integers(1, 50))
def test_throttling_uses_no_attempt(count: int) -> None:
    export = running()
    for number in range(count):
        decision = steps.after_failure(export, PlatformThrottledError("429"), at(number), POLICY)
        export = decision.export
        assert due_in_s(decision, at(number)) == POLICY.retry.ceiling_s(number)
    assert (export.attempt, export.throttled, export.counters.retries) == (0, count, 0)
    assert export.phase is Phase.RUNNING
    assert code_of(export) == ErrorCode.PLATFORM_THROTTLED


@given(st.floats(0, 1e18), st.floats(0, 1), st.booleans())
def test_the_other_side_may_ask_for_a_longer_wait_up_to_the_deadline(wait_s: float, draw: float, slow: bool) -> None:
    kind = PlatformThrottledError if slow else PlatformUnavailableError
    moment = at(10, draw)
    decision = steps.after_failure(running(), kind("wait", retry_after_s=wait_s), moment, POLICY)
    least_s = min(max(wait_s, draw * 1.0), POLICY.deadline_s - 10)
    assert due_in_s(decision, moment) == pytest.approx(least_s, abs=1e-5)


def test_a_defect_is_tried_again() -> None:
    export = steps.after_failure(running(), DefectError("unexpected KeyError"), at(1), POLICY).export
    assert export.phase is Phase.RUNNING
    assert code_of(export) == ErrorCode.INTERNAL_ERROR


@given(st.integers(1, 50))
def test_a_probe_of_a_platform_that_is_down_uses_no_attempt(count: int) -> None:
    export = running()
    for number in range(count):
        error = PlatformUnavailableError("HTTP 502")
        decision = steps.after_failure(export, error, at(number), POLICY, probe=True)
        export = decision.export
        assert due_in_s(decision, at(number)) == POLICY.retry.ceiling_s(number)
    assert (export.attempt, export.throttled, export.counters.retries) == (0, count, 0)
    assert code_of(export) == ErrorCode.PLATFORM_UNAVAILABLE


@pytest.mark.parametrize("error", [DefectError("KeyError"), StorageError("slow down"), ResultMissingError("404")])
def test_a_probe_that_fails_for_another_reason_uses_one(error: StepError) -> None:
    export = steps.after_failure(running(), error, at(1), POLICY, probe=True).export
    assert (export.attempt, export.counters.retries) == (1, 1)


def test_a_probe_that_is_refused_ends_its_export() -> None:
    assert (
        steps.after_failure(running(), PlatformRefusedError("no"), at(1), POLICY, probe=True).export.phase == "failed"
    )


# The deadline


@given(st.floats(0, 7200), st.floats(0, 1), st.none() | st.floats(0.001, 7200))
def test_no_wait_leads_past_the_deadline_nor_into_the_past(after_s: float, draw: float, limit_s: float | None) -> None:
    moment = at(after_s, draw)
    for decision in (
        polled(running(deadline_s=limit_s), Pending("EXECUTING"), moment),
        polled(running(deadline_s=limit_s), Ready("FINISH", ()), moment),
        steps.after_submit(export_of(deadline_s=limit_s), Submitted("op1"), moment, POLICY),
        steps.after_failure(running(deadline_s=limit_s), PlatformUnavailableError("502"), moment, POLICY),
    ):
        latest = max(moment.now, steps.deadline(decision.export, POLICY))
        assert moment.now <= decision.export.due_at <= latest


def test_a_request_may_say_its_own_deadline() -> None:
    assert steps.deadline(export_of(), POLICY) == START + timedelta(hours=1)
    assert steps.deadline(export_of(deadline_s=7200), POLICY) == START + timedelta(hours=2)


def test_the_deadline_counts_from_when_it_was_set_going() -> None:
    again = steps.restart(failed(), "submit", at(5000)).export
    assert again.set_going_at == at(5000).now
    assert again.created_at == START
    assert steps.deadline(again, POLICY) == at(8600).now


@pytest.mark.parametrize(
    ("make", "step", "operation_id"),
    [(export_of, "submit", None), (running, "poll", "op1"), (transferring, "transfer", "op1")],
)
def test_time_is_up(make: Any, step: str, operation_id: str | None) -> None:
    export: Export = make()
    ended = steps.after_deadline(export, at(3600), POLICY).export
    assert isinstance(ended.state, Failed)
    assert ended.state.operation_id == operation_id
    assert ended.error is not None
    assert (ended.error.code, ended.error.step) == (ErrorCode.DEADLINE_EXCEEDED, step)
    assert ended.error.message == f"not done within 3600 s of acceptance; it was {export.phase}"


def test_time_is_up_names_the_last_failure() -> None:
    export = steps.after_failure(running(), PlatformUnavailableError("HTTP 502"), at(1), POLICY).export
    ended = steps.after_deadline(export, at(3600), POLICY).export
    assert ended.error is not None
    assert ended.error.message.endswith("it was running, last failure: HTTP 502")


# Cancelling


@pytest.mark.parametrize(
    ("make", "reached"),
    [
        (export_of, {}),
        (running, {"operation_id": "op1", "stage": "CREATED"}),
        (transferring, {"operation_id": "op1", "stage": "FINISH", "files": list(FILES)}),
        (half_stored, {"operation_id": "op1", "files": list(FILES), "stored": [stored("下载 & 列表.csv")]}),
    ],
)
def test_cancelling_keeps_what_was_reached(make: Any, reached: dict[str, Any]) -> None:
    export: Export = make()
    decision = steps.after_cancel(export, at(9))
    state = decision.export.state
    assert isinstance(state, Cancelled)
    assert {name: getattr(state, name) for name in reached} == reached
    assert state.finished_at == decision.export.updated_at == at(9).now
    assert (decision.note, decision.export.error) == ("cancelled", export.error)
    assert decision.export.counters == export.counters


# Setting going again


STARTS = ("submit", "poll", "transfer")
CREATED, FINISHED = Running(operation_id="op1", stage="CREATED"), Running(operation_id="op1", stage="FINISH")
HALF = Transferring(operation_id="op1", stage="FINISH", files=list(FILES), stored=[stored("下载 & 列表.csv")])
REACHED = {
    "nothing": (steps.after_cancel(export_of(), at(3)).export, (Queued(), Queued(), Queued())),
    "operation": (failed(), (Queued(), CREATED, CREATED)),
    "operation-cancelled": (cancelled(), (Queued(), CREATED, CREATED)),
    "half-the-files": (given_up(half_stored()), (Queued(), FINISHED, HALF)),
    "everything": (succeeded(), (Queued(), FINISHED, FINISHED)),
}


@pytest.mark.parametrize(
    ("ended", "start", "state"),
    [
        pytest.param(ended, start, state, id=f"{name}-{start}")
        for name, (ended, states) in REACHED.items()
        for start, state in zip(STARTS, states, strict=True)
    ],
)
def test_an_ended_export_goes_on_from_what_it_had_reached(ended: Export, start: str, state: Any) -> None:
    decision = steps.restart(ended, start, at(100))
    again = decision.export
    assert again.state == state
    assert again.due_at == again.set_going_at == again.updated_at == at(100).now
    assert (again.error, again.attempt, again.throttled) == (None, 0, 0)
    assert again.generation == ended.generation + 1
    assert (again.created_at, again.counters, again.request) == (ended.created_at, ended.counters, ended.request)
    assert decision.note == f"set going again from {again.step_name}"


def test_files_that_stand_in_s3_are_not_moved_again() -> None:
    export = half_stored()
    export = steps.after_file(export, transferring_state(export), stored("b.csv"), at(7)).export
    again = steps.restart(saved(given_up(export)), "transfer", at(100)).export
    assert transferring_state(again).stored == transferring_state(export).stored
    # Without it nothing could be sealed: it tells when the last of them landed.
    assert transferring_state(again).landed_at == at(7).now


@pytest.mark.parametrize("make", [export_of, running, transferring])
def test_an_open_export_keeps_its_state_when_it_is_set_going(make: Any) -> None:
    export: Export = make()
    assert steps.restart(export, "submit", at(100)).export.state == export.state


# What is told


def test_status_of_a_queued_export() -> None:
    assert json.loads(status_of(export_of()).model_dump_json()) == {
        "export_id": "e1",
        "phase": "queued",
        "platform_stage": None,
        "operation_id": None,
        "connection": "gio",
        "kind": "growingio.tag_users",
        "progress": {"percent": None, "bytes_done": 0, "bytes_total": None, "files_done": 0, "files_total": None},
        "counters": {"polls": 0, "submits": 0, "retries": 0},
        "created_at": "2026-11-22T03:00:00.000Z",
        "updated_at": "2026-11-22T03:00:00.000Z",
        "due_at": "2026-11-22T03:00:00.000Z",
        "finished_at": None,
        "error": None,
        "objects": [],
        "manifest": None,
        "metadata": {"order": "42"},
    }


def test_status_of_a_running_export() -> None:
    status = status_of(polled(running(), Pending("EXECUTING", 40.0), at(1)).export)
    assert (status.phase, status.platform_stage, status.operation_id) == (Phase.RUNNING, "EXECUTING", "op1")
    assert status.progress.percent == 40.0
    assert status.due_at == at(5).now
    assert status.updated_at == at(1).now


def test_status_of_a_transferring_export() -> None:
    export = transferring()
    export = steps.after_file(export, transferring_state(export), stored(), at(6)).export
    status = status_of(export)
    assert (status.phase, status.platform_stage) == (Phase.TRANSFERRING, "FINISH")
    assert [type(item) for item in status.objects] == [StoredObject]
    assert status.objects[0].uri == "s3://bucket/k/b.csv"
    assert status.manifest is None


def test_status_of_a_succeeded_export() -> None:
    status = status_of(succeeded())
    assert status.phase is Phase.SUCCEEDED
    assert (status.due_at, status.finished_at) == (None, at(7).now)
    assert status.manifest == "s3://bucket/k/manifest.json"
    assert [item.file_name for item in status.objects] == ["下载 & 列表.csv", "b.csv"]
    assert status.progress.model_dump() == {
        "percent": 100.0,
        "bytes_done": 20,
        "bytes_total": 20,
        "files_done": 2,
        "files_total": 2,
    }


def test_status_of_a_failed_export() -> None:
    status = status_of(failed())
    assert (status.phase, status.operation_id, status.platform_stage) == (Phase.FAILED, "op1", "CREATED")
    assert (status.due_at, status.finished_at) == (None, at(3).now)
    assert status.error is not None
    assert status.objects == []


@pytest.mark.parametrize(
    ("make", "role", "step"),
    [
        (export_of, "control", "submit"),
        (running, "control", "poll"),
        (transferring, "transfer", "transfer"),
        (succeeded, "control", "transfer"),
        (failed, "control", "transfer"),
        (cancelled, "control", "transfer"),
    ],
)
def test_who_looks_at_it_next(make: Any, role: str, step: str) -> None:
    export: Export = make()
    assert (export.role, export.step_name) == (role, step)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(succeeded, "export.succeeded"), (failed, "export.failed"), (cancelled, "export.cancelled")],
)
def test_the_event_of_an_end_is_the_same_each_time(make: Any, kind: str) -> None:
    export: Export = make()
    event = event_of(export, "exports")
    assert (event.id, event.type, event.subject) == ("e1.1", kind, "e1")
    assert event.source == "/export-worker/exports"
    assert event.data == status_of(export)
    assert event.time == event.data.finished_at
    assert event_of(saved(export), "exports").model_dump_json() == event.model_dump_json()
    again = steps.after_cancel(steps.restart(export, "submit", at(50)).export, at(51)).export
    assert event_of(again, "exports").id == "e1.2"


@pytest.mark.parametrize("make", [export_of, running, transferring])
def test_an_open_export_has_no_event(make: Any) -> None:
    with pytest.raises(ValueError, match="only an ended export"):
        event_of(make(), "exports")


@pytest.mark.parametrize("make", [succeeded, failed, cancelled])
def test_an_ended_export_takes_no_step(make: Any) -> None:
    for error in (PlatformRefusedError("no"), PlatformUnavailableError("502"), ResultMissingError("404")):
        with pytest.raises(TypeError, match="takes no step"):
            steps.after_failure(make(), error, at(9), POLICY)
    with pytest.raises(TypeError, match="takes no step"):
        steps.after_deadline(make(), at(9), POLICY)
    with pytest.raises(TypeError, match="takes no step"):
        steps.after_cancel(make(), at(9))


def test_a_newer_worker_may_have_written_more() -> None:
    record = json.loads(running().model_dump_json()) | {"colour": "blue"}
    record["state"]["mood"] = "good"
    assert Export.model_validate_json(json.dumps(record)) == running()


# A walk

ORDER = [Phase.QUEUED, Phase.RUNNING, Phase.TRANSFERRING]
ENDED = {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED}
draws = st.floats(0, 1)
delays_s = st.floats(0, 90)
stages = st.none() | st.sampled_from(["EXECUTING", "DATA_READY", "UNHEARD_OF"])
retry_afters = st.none() | st.floats(0, 1e12)
failures = st.one_of(
    st.builds(PlatformUnavailableError, st.just("HTTP 502"), retry_after_s=retry_afters),
    st.builds(PlatformThrottledError, st.just("HTTP 429"), retry_after_s=retry_afters),
    st.builds(ResultMissingError, st.just("HTTP 404")),
    st.builds(PlatformRefusedError, st.just("HTTP 400")),
    st.builds(StorageError, st.just("slow down")),
)
durations = st.lists(st.floats(0, 7200), max_size=20)


def saved_moment(moment: datetime | None) -> str:
    """As it is kept: to the millisecond."""
    assert moment is not None
    return isoformat(moment)


class Walk(RuleBasedStateMachine):
    """Takes steps as the worker does: read the record, decide, save."""

    @initialize(deadline_s=st.none() | st.floats(1, 3600), patient=st.booleans())
    def accept(self, deadline_s: float | None, patient: bool) -> None:
        self.policy = Policy(POLICY.poll, POLICY.retry, 50 if patient else 3, 600.0)
        self.export = export_of(deadline_s=deadline_s)
        self.now = START
        self.claims = 1
        self.generation = 1
        self.submits = 0

    @property
    def open(self) -> bool:
        return not self.export.phase.terminal

    def moment(self, draw: float) -> Moment:
        return Moment(self.now, draw)

    def look(self, delay_s: float, draw: float) -> bool:
        """Its time has come. False when it has run out."""
        self.now = max(self.now, self.export.due_at) + timedelta(seconds=delay_s)
        assert (self.now >= steps.deadline(self.export, self.policy)) == (
            (self.now - self.export.set_going_at).total_seconds()
            >= (self.export.request.deadline_s or self.policy.deadline_s)
        )
        if self.now < steps.deadline(self.export, self.policy):
            return True
        self.commit(steps.after_deadline(self.export, self.moment(draw), self.policy))
        return False

    def keep(self, decision: Decision, *, may_step_back: bool = False) -> None:
        before, after = self.export, decision.export
        assert self.open, "a terminal phase has changed"
        assert (after.generation, after.set_going_at) == (before.generation, before.set_going_at)
        went_back = (before.phase, after.phase) == (Phase.TRANSFERRING, Phase.RUNNING)
        assert after.phase in ENDED or ORDER.index(after.phase) - ORDER.index(before.phase) in {0, 1} or went_back
        assert may_step_back or not went_back
        for name, count in before.counters:
            assert getattr(after.counters, name) >= count
        assert after.updated_at == self.now
        assert (after.export_id, after.request, after.created_at) == (before.export_id, before.request, START)
        self.export = saved(after)
        # Moments are kept to the millisecond; everything else, to the letter.
        assert self.export.model_dump(mode="json") == after.model_dump(mode="json")
        assert status_of(self.export).model_dump_json() == status_of(after).model_dump_json()
        assert saved(self.export) == self.export

    def commit(self, decision: Decision, *, may_step_back: bool = False) -> None:
        if not decision.export.phase.terminal:
            latest = max(self.now, steps.deadline(decision.export, self.policy))
            assert self.now <= decision.export.due_at <= latest
        self.keep(decision, may_step_back=may_step_back)

    def fail(self, error: StepError, draw: float, *, probe: bool = False) -> None:
        missing = isinstance(error, ResultMissingError)
        before = self.export
        decision = steps.after_failure(self.export, error, self.moment(draw), self.policy, probe=probe)
        self.commit(decision, may_step_back=missing)
        if probe and isinstance(error, PlatformUnavailableError):
            assert (self.open, self.export.attempt) == (True, before.attempt)

    @precondition(lambda self: self.open and isinstance(self.export.state, Queued))
    @rule(
        delay_s=delays_s,
        draw=draws,
        stage=stages,
        done=st.booleans(),
        error=st.none() | failures,
        dies=st.booleans(),
        probe=st.booleans(),
        seen_s=durations,
    )
    def submit(
        self,
        delay_s: float,
        draw: float,
        stage: str | None,
        done: bool,
        error: StepError | None,
        dies: bool,
        probe: bool,
        seen_s: list[float],
    ) -> None:
        if not self.look(delay_s, draw):
            return
        if dies:
            self.claims += 1
            return
        claims, self.claims = self.claims, 1
        self.submits += claims
        begun = steps.submitting(self.export, claims)
        if error is not None:
            self.export = begun
            self.fail(error, draw, probe=probe)
        else:
            submitted = Submitted("op1", stage, done)
            decision = steps.after_submit(
                begun, submitted, self.moment(draw), self.policy, claims=claims, seen_s=seen_s
            )
            assert ("again" in str(decision.note)) == (claims > 1)
            self.commit(decision)
            assert saved_moment(running_state(self.export).submitted_at) == saved_moment(self.now)

    @precondition(lambda self: self.open and isinstance(self.export.state, Running))
    @rule(
        delay_s=delays_s,
        draw=draws,
        seen=st.one_of(
            st.builds(Pending, stages, st.none() | st.floats(0, 100)),
            st.just(Ready("FINISH", ())),
            st.just(Ready("FINISH", FILES)),
            st.just(OperationFailed("ERROR", "no such tag")),
            failures,
        ),
        probe=st.booleans(),
        seen_s=durations,
    )
    def poll(
        self,
        delay_s: float,
        draw: float,
        seen: Pending | Ready | OperationFailed | StepError,
        probe: bool,
        seen_s: list[float],
    ) -> None:
        if not self.look(delay_s, draw):
            return
        if isinstance(seen, StepError):
            self.fail(seen, draw, probe=probe)
            return
        state = running_state(self.export)
        self.commit(steps.after_poll(self.export, state, seen, self.moment(draw), self.policy, seen_s=seen_s))
        if isinstance(seen, Pending):
            assert running_state(self.export).submitted_at == state.submitted_at
            assert saved_moment(running_state(self.export).looked_at) == saved_moment(self.now)

    @precondition(lambda self: self.open and isinstance(self.export.state, Transferring))
    @rule(delay_s=delays_s, draw=draws, files=st.integers(0, 2), error=st.none() | failures, dies=st.booleans())
    def transfer(self, delay_s: float, draw: float, files: int, error: StepError | None, dies: bool) -> None:
        if not self.look(delay_s, draw):
            return
        left = FILES[len(transferring_state(self.export).stored) :]
        for file in left if error is None and not dies else left[:files]:
            state = transferring_state(self.export)
            self.keep(steps.after_file(self.export, state, stored(file.name), self.moment(draw)))
        state = transferring_state(self.export)
        assert (state.landed_at is not None) == (len(state.stored) == len(FILES))
        if error is not None:
            self.fail(error, draw)
        elif not dies:
            sealed = Stored(tuple(state.stored), "s3://bucket/k/manifest.json")
            self.commit(steps.after_transfer(self.export, state, sealed, self.moment(draw)))

    @precondition(lambda self: self.open)
    @rule(delay_s=delays_s, draw=draws)
    def cancel(self, delay_s: float, draw: float) -> None:
        self.now += timedelta(seconds=delay_s)
        before = self.export
        self.keep(steps.after_cancel(self.export, self.moment(draw)))
        assert self.export.phase is Phase.CANCELLED
        assert (self.export.counters, self.export.error) == (before.counters, before.error)

    @precondition(lambda self: not self.open)
    @rule(delay_s=delays_s, draw=draws, start=st.sampled_from(STARTS))
    def set_going_again(self, delay_s: float, draw: float, start: str) -> None:
        before = self.export.state
        assert isinstance(before, Ended)
        self.now += timedelta(seconds=delay_s)
        again = steps.restart(self.export, start, self.moment(draw)).export
        self.claims = 1
        self.generation += 1
        reached = ["submit"] if before.operation_id is None else ["submit", "poll"]
        if isinstance(before, Failed | Cancelled) and before.files:
            reached.append("transfer")
        assert again.step_name == (start if start in reached else reached[-1])
        if isinstance(again.state, Running | Transferring):
            assert again.state.operation_id == before.operation_id
        if isinstance(again.state, Transferring):
            assert again.state.stored == before.stored
            assert (again.state.landed_at is not None) == (len(before.stored) == len(FILES))
        assert (again.attempt, again.throttled, again.error) == (0, 0, None)
        assert again.due_at == again.set_going_at == self.now
        self.export = saved(again)
        assert saved(self.export) == self.export

    @precondition(lambda self: not self.open)
    @rule(draw=draws, error=failures)
    def nothing_more(self, draw: float, error: StepError) -> None:
        with pytest.raises(TypeError):
            steps.after_failure(self.export, error, self.moment(draw), self.policy)
        with pytest.raises(TypeError):
            steps.after_cancel(self.export, self.moment(draw))

    @invariant()
    def every_begun_submit_is_counted(self) -> None:
        assert self.export.counters.submits == self.submits

    @invariant()
    def open_means_attempts_are_left(self) -> None:
        assert not self.open or self.export.attempt < self.policy.max_attempts

    @invariant()
    def every_end_has_one_event(self) -> None:
        if not self.open:
            event = event_of(self.export, "exports")
            assert event.id == f"e1.{self.generation}"
            assert event.type == f"export.{self.export.phase}"
            # A cancelled one keeps the failure that it was waiting out, if there was one.
            assert self.export.error is None or not isinstance(self.export.state, Succeeded)
            assert self.export.error is not None or not isinstance(self.export.state, Failed)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)

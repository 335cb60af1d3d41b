"""Transitions after submits, polls and stored files."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.contract.status import Phase
from export_worker.errors import (
    DownloadInterruptedError,
    ErrorCode,
    PlatformThrottledError,
    PlatformUnavailableError,
    ResultMissingError,
    StorageError,
)
from export_worker.lifecycle import endings, submits, transitions
from export_worker.lifecycle.decisions import Decision, OperationRetry, StepHistory
from export_worker.lifecycle.export import Export, Failed, Queued, Running, Transferring, status_of
from export_worker.lifecycle.observations import OperationFailed, Pending, Ready, RemoteFile, Stored, Submitted
from export_worker.lifecycle.transitions import EMPTY_POLLS_MAX
from support.export_states import (
    FILES,
    POLICY,
    POLL,
    START,
    at,
    code_of,
    due_in_s,
    export_of,
    polled,
    running,
    running_state,
    saved,
    stored,
    transferring,
    transferring_state,
)

# Submits


def test_submit_schedules_first_poll() -> None:
    decision = transitions.after_submit(export_of(), Submitted("op1", "CREATED"), at(1, 0.5), POLICY)
    assert decision.export.state == Running(operation_id="op1", stage="CREATED", submitted_at=at(1).now)
    assert due_in_s(decision, at(1)) == 1.0
    assert decision.note == "submitted as op1"


def test_submit_after_unclear_one_warns_in_note_and_resets_the_count() -> None:
    export = submits.count_submit(submits.with_unclear_submit(submits.count_submit(export_of())))
    decision = transitions.after_submit(export, Submitted("op1", "CREATED"), at(1), POLICY)
    assert decision.note == "submitted again as op1: the platform may have received 1 earlier submit(s)"
    assert (decision.export.counters.submits, decision.export.unclear_submits) == (2, 0)


def test_submit_with_known_durations_schedules_first_poll_at_usual_end() -> None:
    durations_s = [30.0] * 20
    decision = transitions.after_submit(
        export_of(), Submitted("op1"), at(1, 0.5), POLICY, history=StepHistory(durations_s)
    )
    assert due_in_s(decision, at(1)) == POLICY.poll.wait_s(0, 0.0, durations_s, 0.5) == 30.0


def test_submit_of_finished_operation_is_polled_at_once() -> None:
    decision = transitions.after_submit(export_of(), Submitted("op1", "FINISH", done=True), at(1), POLICY)
    assert decision.export.phase is Phase.RUNNING
    assert due_in_s(decision, at(1)) == 0.0


# Polls


@given(st.integers(1, 300))
def test_pending_polls_use_no_attempt_and_back_off(count: int) -> None:
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


def test_pending_poll_with_known_durations_waits_for_next_usual_end() -> None:
    durations_s = [10.0] * 10 + [30.0] * 10
    state = running_state(running())
    decision = transitions.after_poll(
        running(), state, Pending("EXECUTING"), at(12, 0.5), POLICY, history=StepHistory(durations_s)
    )
    assert due_in_s(decision, at(12)) == POLICY.poll.wait_s(1, 12.0, durations_s, 0.5) == 18.0


def test_pending_poll_of_operation_of_unknown_age_assumes_new_operation() -> None:
    durations_s = [10.0] * 10 + [30.0] * 10
    state = Running(operation_id="op1")
    decision = transitions.after_poll(
        running(), state, Pending("EXECUTING"), at(12, 0.5), POLICY, history=StepHistory(durations_s)
    )
    assert due_in_s(decision, at(12)) == POLICY.poll.wait_s(1, 0.0, durations_s, 0.5)
    assert running_state(decision.export).submitted_at is None


def test_pending_poll_may_replace_operation_id() -> None:
    decision = polled(running(), Pending("QUERYING", operation_id="op2"), at(1))
    assert running_state(decision.export).operation_id == "op2"
    assert decision.note == "stage QUERYING, continues as op2"
    assert polled(decision.export, Pending("QUERYING"), at(2)).note is None


def test_poll_that_submits_is_noted_and_counted() -> None:
    export = submits.count_submit(running())
    decision = polled(export, Pending("QUERYING", operation_id="op2", submitted=True), at(1))
    assert decision.note == "stage QUERYING, submitted as op2"
    assert decision.export.counters.submits == 2


def test_poll_that_submits_after_unclear_submit_warns_in_note_and_resets_the_count() -> None:
    seen = Pending("QUERYING", operation_id="op2", submitted=True)
    decision = polled(submits.with_unclear_submit(running()), seen, at(1))
    note = "submitted again as op2: the platform may have received 1 earlier submit(s)"
    assert decision.note == f"stage QUERYING, {note}"
    assert decision.export.unclear_submits == 0


def test_poll_without_submit_keeps_the_count_of_unclear_submits() -> None:
    decision = polled(submits.with_unclear_submit(running()), Pending("QUERYING", operation_id="op2"), at(1))
    assert (decision.note, decision.export.counters.submits) == ("stage QUERYING, continues as op2", 1)
    assert decision.export.unclear_submits == 1


def test_pending_poll_has_note_only_for_new_stage() -> None:
    first = polled(running(), Pending("EXECUTING"), at(1))
    assert first.note == "stage EXECUTING"
    assert polled(first.export, Pending("EXECUTING"), at(2)).note is None


@given(st.none() | st.text(max_size=20), st.none() | st.floats(0, 100))
def test_poll_with_unknown_stage_keeps_export_running(stage: str | None, percent: float | None) -> None:
    export = polled(running(), Pending(stage, percent), at(1)).export
    assert export.phase is Phase.RUNNING
    assert status_of(export).platform_stage == stage
    assert status_of(export).progress.percent == percent


def test_pending_poll_resets_failures_in_a_row() -> None:
    export = endings.after_failure(running(), PlatformUnavailableError("502"), at(1), POLICY).export
    export = endings.after_failure(export, PlatformThrottledError("429"), at(2), POLICY).export
    assert (export.attempt, export.throttled) == (1, 1)
    export = polled(export, Pending("EXECUTING"), at(3)).export
    assert (export.attempt, export.throttled) == (0, 0)


def test_ready_poll_starts_transfer_at_once() -> None:
    decision = polled(running(), Ready("FINISH", FILES), at(5))
    assert decision.export.state == Transferring(operation_id="op1", stage="FINISH", files=list(FILES))
    assert due_in_s(decision, at(5)) == 0.0
    assert decision.export.role == "transfer"
    assert decision.note == "ready with 2 file(s)"


def test_ready_poll_without_files_is_repeated_and_then_fails() -> None:
    export = running()
    for poll in range(1, EMPTY_POLLS_MAX + 1):
        decision = polled(export, Ready("FINISH", ()), at(poll))
        export = decision.export
        assert export.phase is Phase.RUNNING
        assert export.attempt == 0
        assert due_in_s(decision, at(poll)) == POLICY.retry.ceiling_s(poll)
    export = polled(export, Ready("FINISH", ()), at(60)).export
    assert export.phase is Phase.FAILED
    assert code_of(export) == ErrorCode.RESULT_EMPTY
    assert export.counters.polls == EMPTY_POLLS_MAX + 1


def test_polls_without_files_are_bounded_with_pending_polls_between() -> None:
    export = running()
    for _ in range(EMPTY_POLLS_MAX):
        export = polled(export, Ready("FINISH", ()), at(1)).export
        export = polled(export, Pending("EXECUTING"), at(1)).export
    assert polled(export, Ready("FINISH", ()), at(2)).export.phase is Phase.FAILED


def test_ready_poll_with_files_after_one_without_starts_transfer() -> None:
    export = polled(running(), Ready("FINISH", ()), at(1)).export
    assert polled(export, Ready("FINISH", FILES), at(2)).export.phase is Phase.TRANSFERRING


def test_failed_operation_fails_export_with_platform_message() -> None:
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


# Transfers


def test_stored_files_are_counted_and_time_of_last_file_is_kept() -> None:
    export = transferring()
    export = transitions.after_files(export, transferring_state(export), [stored("a.csv")], at(6)).export
    assert transferring_state(export).landed_at is None
    assert status_of(export).progress.model_dump() == {
        "percent": None,
        "bytes_done": 10,
        "bytes_total": None,
        "files_done": 1,
        "files_total": 2,
    }
    export = transitions.after_files(export, transferring_state(export), [stored("b.csv")], at(7)).export
    assert transferring_state(export).landed_at == at(7).now
    assert saved(export).state == export.state


def test_stored_file_resets_failures_in_a_row() -> None:
    export = endings.after_failure(transferring(), DownloadInterruptedError("cut"), at(6), POLICY).export
    assert export.attempt == 1
    export = transitions.after_files(export, transferring_state(export), [stored()], at(7)).export
    assert export.attempt == 0


def test_move_transfers_all_files_again_and_notes_the_stored_ones() -> None:
    export = transferring()
    for file in FILES:
        export = transitions.after_files(export, transferring_state(export), [stored(file.name)], at(6)).export
    failing = export.model_copy(update={"attempt": 3})
    before = transferring_state(failing)
    assert before.landed_at is not None
    decision = transitions.after_move(failing, before, at(7))
    state = transferring_state(decision.export)
    assert (state.files, state.stored, state.stored_bytes, state.landed_at) == (before.files, [], 0, None)
    assert decision.export.attempt == 3
    assert [files.keys for files in decision.export.earlier_files] == [[item.key for item in before.stored]]
    assert decision.note is not None
    assert decision.note.startswith(f"restarted all files: {len(FILES)} file(s) are stored under other keys")


def test_success_clears_error_and_keeps_retry_count() -> None:
    export = endings.after_failure(transferring(), StorageError("slow down"), at(6), POLICY).export
    assert export.error is not None
    stored_all = Stored((stored(),), "s3://bucket/k/_manifest.json")
    ended = transitions.after_transfer(export, transferring_state(export), stored_all, at(7)).export
    assert ended.error is None
    assert ended.counters.retries == 1


def test_missing_file_returns_export_to_polling() -> None:
    decision = endings.after_failure(transferring(), ResultMissingError("404"), at(6), POLICY)
    names = [file.name for file in FILES]
    assert decision.export.state == Running(operation_id="op1", stage="FINISH", names=names)
    assert decision.export.attempt == 1
    assert code_of(decision.export) == ErrorCode.RESULT_MISSING


def test_file_that_stays_missing_fails_export() -> None:
    export = transferring()
    for attempt in range(1, POLICY.max_attempts):
        export = endings.after_failure(export, ResultMissingError("404"), at(attempt), POLICY).export
        assert export.phase is Phase.RUNNING
        export = polled(export, Ready("FINISH", FILES), at(attempt)).export
    export = endings.after_failure(export, ResultMissingError("404"), at(9), POLICY).export
    assert export.phase is Phase.FAILED
    assert code_of(export) == ErrorCode.RESULT_MISSING


def test_platform_that_names_other_missing_files_at_each_poll_fails_export() -> None:
    """One file is stored at each attempt, so the attempts are never used up."""
    export, polls = transferring(), 0
    while export.phase is Phase.TRANSFERRING:
        polls += 1
        export = transitions.after_files(export, transferring_state(export), [stored()], at(polls)).export
        export = endings.after_failure(export, ResultMissingError("404"), at(polls), POLICY).export
        if export.phase is Phase.RUNNING:
            files = tuple(RemoteFile("/a", f"{polls}-{number}-{'x' * 1000}.csv") for number in range(1000))
            export = polled(export, Ready("FINISH", files), at(polls)).export
        assert polls < 50
    assert export.phase is Phase.FAILED
    assert code_of(export) == ErrorCode.TOO_MANY_FILES
    assert polls > 5


def one_stored(then: Ready) -> Export:
    """Returns an export with two files: the first is stored, the second was missing, and a new poll returned `then`."""
    export = transferring()
    export = transitions.after_files(export, transferring_state(export), [stored("下载 & 列表.csv")], at(6)).export
    export = endings.after_failure(export, ResultMissingError("410"), at(7), POLICY).export
    return polled(export, then, at(8)).export


def test_stored_file_is_kept_when_platform_names_same_files_again() -> None:
    renamed = tuple(RemoteFile(f"/fresh{file.uri}", file.name) for file in FILES)
    state = transferring_state(one_stored(Ready("FINISH", renamed)))
    assert [item.file_name for item in state.stored] == ["下载 & 列表.csv"]
    assert state.files == list(renamed)


@pytest.mark.parametrize("files", [FILES[:1], FILES[::-1], (*FILES, RemoteFile("/a/c.csv", "c.csv"))])
def test_stored_files_are_dropped_when_platform_names_other_files(files: tuple[RemoteFile, ...]) -> None:
    assert transferring_state(one_stored(Ready("FINISH", files))).stored == []


def test_stored_files_are_dropped_for_another_operation() -> None:
    export = transferring()
    export = transitions.after_files(export, transferring_state(export), [stored("下载 & 列表.csv")], at(6)).export
    export = endings.after_failure(export, ResultMissingError("410"), at(7), POLICY).export
    export = polled(export, Pending("AGAIN", operation_id="op2"), at(8)).export
    export = polled(export, Ready("FINISH", FILES), at(9)).export
    assert transferring_state(export).stored == []


def test_second_file_that_stays_missing_fails_export() -> None:
    export = one_stored(Ready("FINISH", FILES))
    attempts = 1
    while export.phase is Phase.TRANSFERRING:
        export = endings.after_failure(export, ResultMissingError("410"), at(9 + attempts), POLICY).export
        attempts += 1
        if export.phase is Phase.RUNNING:
            export = polled(export, Ready("FINISH", FILES), at(9 + attempts)).export
    assert (export.phase, attempts) == (Phase.FAILED, POLICY.max_attempts)


def test_missing_result_of_submit_or_poll_keeps_state() -> None:
    for export in (export_of(), running()):
        again = endings.after_failure(export, ResultMissingError("404"), at(1), POLICY).export
        assert again.state == export.state


# Operations that the platform reports as failed


RETRYING = replace(POLICY, operation_retry=OperationRetry(times=2, after_s=600.0))
ERROR = OperationFailed("ERROR", "out of memory")


def after_error(export: Export, after_s: float) -> Decision:
    return transitions.after_poll(export, running_state(export), ERROR, at(after_s), RETRYING)


def submitted_again(export: Export, after_s: float) -> Export:
    return transitions.after_submit(submits.count_submit(export), Submitted("op2"), at(after_s), RETRYING).export


def test_failed_operation_is_submitted_again_after_a_wait_as_often_as_the_connection_says() -> None:
    first = after_error(running(), 1)
    assert (first.export.state, due_in_s(first, at(1))) == (Queued(), 600.0)
    assert first.note == "operation failed, submit 1 of 2 more in 600.0 s: out of memory"
    assert code_of(first.export) == ErrorCode.PLATFORM_ERROR
    second = after_error(submitted_again(saved(first.export), 601), 602)
    assert second.note == "operation failed, submit 2 of 2 more in 600.0 s: out of memory"
    last = after_error(submitted_again(saved(second.export), 1202), 1203).export
    assert last.error is not None
    assert last.error.message == "out of memory; 2 earlier operation(s) of the export have failed as well"
    assert (last.phase, last.counters.submits, last.counters.retries) == (Phase.FAILED, 3, 2)


def test_wait_after_a_failed_operation_ends_at_the_deadline() -> None:
    decision = after_error(running(deadline_s=60), 10)
    assert due_in_s(decision, at(10)) == 50.0
    ended = endings.after_deadline(decision.export, at(60), RETRYING).export
    assert code_of(ended) == ErrorCode.DEADLINE_EXCEEDED
    assert ended.error is not None
    assert ended.error.message.endswith("its phase was queued; last failure: out of memory")


def test_failed_operation_is_not_submitted_again_while_a_submit_is_unclear() -> None:
    """A driver may submit in a poll. An operation of such a submit may still run."""
    assert after_error(submits.with_unclear_submit(running()), 1).export.phase is Phase.FAILED


def test_unclear_submit_after_a_failed_operation_follows_resubmit() -> None:
    policy = replace(RETRYING, resubmit="never")
    queued = submits.count_submit(after_error(running(), 1).export)
    unclear = PlatformUnavailableError("HTTP 504", unclear=True)
    assert code_of(endings.after_failure(queued, unclear, at(601), policy).export) == ErrorCode.SUBMIT_UNCLEAR


def test_retry_by_hand_counts_failed_operations_from_the_beginning() -> None:
    queued = after_error(running(), 1).export
    cancelled = endings.after_cancel(queued, at(2)).export
    assert cancelled.operation_retries == 1
    assert transitions.restart(cancelled, "submit", at(3)).export.operation_retries == 0

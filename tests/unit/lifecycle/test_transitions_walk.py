"""A random walk through all decisions of the state machine, as a worker makes them."""

from datetime import datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from export_worker.contract.model import isoformat
from export_worker.contract.status import Phase
from export_worker.errors import (
    ErrorCode,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    ResultMissingError,
    StepError,
    StorageError,
    SubmitUnclearError,
)
from export_worker.lifecycle import decisions, endings, submits, transitions
from export_worker.lifecycle.decisions import Decision, Moment, OperationRetry, Policy, StepHistory
from export_worker.lifecycle.export import (
    Cancelled,
    Ended,
    Failed,
    Queued,
    Running,
    Succeeded,
    Transferring,
    status_of,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Ready, Stored, Submitted
from export_worker.lifecycle.resubmit import Resubmit
from export_worker.lifecycle.submits import UNCLEAR_MAX
from support.events import event_of
from support.export_states import (
    FILES,
    POLICY,
    START,
    STARTS,
    code_of,
    export_of,
    running_state,
    saved,
    stored,
    transferring_state,
)

ORDER = [Phase.QUEUED, Phase.RUNNING, Phase.TRANSFERRING]
ENDED = {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED}
draws = st.floats(0, 1)
delays_s = st.floats(0, 90)
stages = st.none() | st.sampled_from(["EXECUTING", "DATA_READY", "UNKNOWN"])
retry_afters = st.none() | st.floats(0, 1e12)
failures = st.one_of(
    st.builds(PlatformUnavailableError, st.just("HTTP 502"), retry_after_s=retry_afters),
    st.builds(PlatformThrottledError, st.just("HTTP 429"), retry_after_s=retry_afters),
    st.builds(ResultMissingError, st.just("HTTP 404")),
    st.builds(PlatformRefusedError, st.just("HTTP 400")),
    st.builds(StorageError, st.just("slow down")),
)
unclear_failures = st.builds(
    PlatformUnavailableError, st.just("HTTP 504"), retry_after_s=retry_afters, unclear=st.just(True)
)
durations = st.lists(st.floats(0, 7200), max_size=20)


def saved_moment(moment: datetime | None) -> str:
    """Returns the time as a record contains it: in milliseconds."""
    assert moment is not None
    return isoformat(moment)


class Walk(RuleBasedStateMachine):
    """Runs steps as the worker does: read the record, decide, save."""

    @initialize(
        deadline_s=st.none() | st.floats(1, 3600).map(lambda seconds: round(seconds, 6)),
        many_attempts=st.booleans(),
        resubmit=st.sampled_from(list(UNCLEAR_MAX)),
        retry=st.builds(OperationRetry, st.integers(0, 2), st.floats(1, 900)),
    )
    def accept(self, deadline_s: float | None, many_attempts: bool, resubmit: Resubmit, retry: OperationRetry) -> None:
        self.policy = Policy(POLICY.poll, POLICY.retry, 50 if many_attempts else 3, 600.0, resubmit, retry)
        self.export = export_of(deadline_s=deadline_s)
        self.now = START
        self.generation = 1
        self.submits = 0
        self.unclear = 0
        self.failed_operations = 0

    @property
    def open(self) -> bool:
        return not self.export.phase.terminal

    def moment(self, draw: float) -> Moment:
        return Moment(self.now, draw)

    def is_in_time(self, delay_s: float, draw: float) -> bool:
        """Moves the time to the next step. Returns False if the deadline has passed and the export was ended."""
        self.now = max(self.now, self.export.due_at) + timedelta(seconds=delay_s)
        assert (self.now >= decisions.deadline(self.export, self.policy)) == (
            (self.now - self.export.set_going_at).total_seconds()
            >= (self.export.request.deadline_s or self.policy.deadline_s)
        )
        if self.now < decisions.deadline(self.export, self.policy):
            return True
        self.commit(endings.after_deadline(self.export, self.moment(draw), self.policy))
        return False

    def save(self, decision: Decision, *, may_step_back: bool = False) -> None:
        before, after = self.export, decision.export
        assert self.open, "a terminal phase has changed"
        assert (after.generation, after.set_going_at) == (before.generation, before.set_going_at)
        stepped_back = (before.phase, after.phase) == (Phase.TRANSFERRING, Phase.RUNNING)
        starts_over = (before.phase, after.phase) == (Phase.RUNNING, Phase.QUEUED)
        forward = after.phase in ENDED or ORDER.index(after.phase) - ORDER.index(before.phase) in {0, 1}
        assert forward or stepped_back or starts_over
        assert may_step_back or not (stepped_back or starts_over)
        for name, count in before.counters:
            assert getattr(after.counters, name) >= count
        assert after.updated_at == self.now
        assert (after.export_id, after.request, after.created_at) == (before.export_id, before.request, START)
        self.export = saved(after)
        # Times are saved in milliseconds, everything else exactly.
        assert self.export.model_dump(mode="json") == after.model_dump(mode="json")
        assert status_of(self.export).model_dump_json() == status_of(after).model_dump_json()
        assert saved(self.export) == self.export

    def commit(self, decision: Decision, *, may_step_back: bool = False) -> None:
        if not decision.export.phase.terminal:
            latest = max(self.now, decisions.deadline(decision.export, self.policy))
            assert self.now <= decision.export.due_at <= latest
        self.save(decision, may_step_back=may_step_back)

    def fail(self, error: StepError, draw: float, *, spared: bool = False) -> None:
        missing = isinstance(error, ResultMissingError)
        before = self.export
        decision = endings.after_failure(self.export, error, self.moment(draw), self.policy, spared=spared)
        self.commit(decision, may_step_back=missing)
        if spared and not error.unclear:
            assert (self.open, self.export.attempt) == (True, before.attempt)

    @precondition(lambda self: self.open and isinstance(self.export.state, Queued))
    @rule(
        delay_s=delays_s,
        draw=draws,
        stage=stages,
        done=st.booleans(),
        error=st.none() | failures | unclear_failures,
        dies=st.booleans(),
        spared=st.booleans(),
        durations_s=durations,
    )
    def submit(
        self,
        delay_s: float,
        draw: float,
        stage: str | None,
        done: bool,
        error: StepError | None,
        dies: bool,
        spared: bool,
        durations_s: list[float],
    ) -> None:
        if not self.is_in_time(delay_s, draw):
            return
        if not submits.may_submit(self.export, self.policy):
            assert self.unclear > UNCLEAR_MAX[self.policy.resubmit]
            self.fail(SubmitUnclearError(submits.WORKER_LOST), draw)
            assert (self.export.phase, code_of(self.export)) == (Phase.FAILED, ErrorCode.SUBMIT_UNCLEAR)
            return
        self.submits += 1
        self.export = submits.count_submit(self.export)
        if dies:
            self.unclear += 1
            self.export = submits.count_open(submits.with_open_submit(self.export))
            return
        if error is not None:
            self.unclear += error.unclear
            self.fail(error, draw, spared=spared and error.outage)
            assert not error.unclear or self.open or code_of(self.export) == ErrorCode.SUBMIT_UNCLEAR
        else:
            submitted = Submitted("op1", stage, done)
            decision = transitions.after_submit(
                self.export, submitted, self.moment(draw), self.policy, history=StepHistory(durations_s)
            )
            assert ("again" in str(decision.note)) == (self.unclear > 0)
            self.unclear = 0
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
        spared=st.booleans(),
        durations_s=durations,
    )
    def poll(
        self,
        delay_s: float,
        draw: float,
        seen: Pending | Ready | OperationFailed | StepError,
        spared: bool,
        durations_s: list[float],
    ) -> None:
        if not self.is_in_time(delay_s, draw):
            return
        if isinstance(seen, StepError):
            self.fail(seen, draw, spared=spared and seen.outage)
            return
        state = running_state(self.export)
        failed = isinstance(seen, OperationFailed)
        self.commit(
            transitions.after_poll(
                self.export, state, seen, self.moment(draw), self.policy, history=StepHistory(durations_s)
            ),
            may_step_back=failed,
        )
        if failed:
            self.failed_operations += 1
            is_last = self.failed_operations > self.policy.operation_retry.times
            assert self.export.phase is (Phase.FAILED if is_last else Phase.QUEUED)
            assert code_of(self.export) == ErrorCode.PLATFORM_ERROR
        if isinstance(seen, Pending):
            assert running_state(self.export).submitted_at == state.submitted_at
            assert saved_moment(running_state(self.export).looked_at) == saved_moment(self.now)

    @precondition(lambda self: self.open and isinstance(self.export.state, Transferring))
    @rule(delay_s=delays_s, draw=draws, files=st.integers(0, 2), error=st.none() | failures, dies=st.booleans())
    def transfer(self, delay_s: float, draw: float, files: int, error: StepError | None, dies: bool) -> None:
        if not self.is_in_time(delay_s, draw):
            return
        left = FILES[len(transferring_state(self.export).stored) :]
        for file in left if error is None and not dies else left[:files]:
            state = transferring_state(self.export)
            self.save(transitions.after_files(self.export, state, [stored(file.name)], self.moment(draw)))
        state = transferring_state(self.export)
        assert (state.landed_at is not None) == (len(state.stored) == len(FILES))
        if error is not None:
            self.fail(error, draw)
        elif not dies:
            stored_all = Stored(tuple(state.stored), "s3://bucket/k/_manifest.json")
            self.commit(transitions.after_transfer(self.export, state, stored_all, self.moment(draw)))

    @precondition(lambda self: self.open)
    @rule(delay_s=delays_s, draw=draws)
    def cancel(self, delay_s: float, draw: float) -> None:
        self.now += timedelta(seconds=delay_s)
        before = self.export
        self.save(endings.after_cancel(self.export, self.moment(draw)))
        assert self.export.phase is Phase.CANCELLED
        assert (self.export.counters, self.export.error) == (before.counters, before.error)

    @precondition(lambda self: not self.open)
    @rule(delay_s=delays_s, draw=draws, start=st.sampled_from(STARTS))
    def restart(self, delay_s: float, draw: float, start: str) -> None:
        before = self.export.state
        assert isinstance(before, Ended)
        self.now += timedelta(seconds=delay_s)
        again = transitions.restart(self.export, start, self.moment(draw)).export
        self.unclear = self.failed_operations = 0
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
    def ended_export_takes_no_step(self, draw: float, error: StepError) -> None:
        with pytest.raises(TypeError):
            endings.after_failure(self.export, error, self.moment(draw), self.policy)
        with pytest.raises(TypeError):
            endings.after_cancel(self.export, self.moment(draw))

    @invariant()
    def every_started_submit_is_counted(self) -> None:
        assert self.export.counters.submits == self.submits

    @invariant()
    def open_export_has_attempts_left(self) -> None:
        assert not self.open or self.export.attempt < self.policy.max_attempts

    @invariant()
    def every_end_has_one_event_id(self) -> None:
        if not self.open:
            event = event_of(self.export, "exports")
            assert event.id == f"e1.{self.generation}"
            assert event.type == f"export.{self.export.phase}"
            # A cancelled export keeps the failure after which it was waiting, if there was one.
            assert self.export.error is None or not isinstance(self.export.state, Succeeded)
            assert self.export.error is not None or not isinstance(self.export.state, Failed)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)

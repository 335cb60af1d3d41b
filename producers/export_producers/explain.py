"""Finds out why an export waits and until when, or how it ended. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from export_producers.pauses import ConnectionPause
from export_producers.readable import count_of, score_of
from export_producers.reasons import (
    AnyNote,
    AnyReason,
    CallsPaused,
    Cancelled,
    CancelRequested,
    ConnectionPaused,
    EntryMissing,
    Explanation,
    Failed,
    Fix,
    InTurns,
    LastError,
    NoStage,
    OfferedToOthers,
    Overdue,
    Paused,
    Retry,
    Scheduled,
    SharesOperation,
    SlotEstimate,
    Slow,
    Stage,
    StepRuns,
    StoreUnusable,
    Succeeded,
    Usual,
    WaitingForSlot,
    WaitingForWorker,
    WaitsForWindow,
)
from export_producers.retries import ENDED_BY_TIME, OF_ONE_OPERATION
from export_worker.contract.redis_keys import NO_END_MS, CallKind
from export_worker.contract.request import NORMAL, Priority
from export_worker.contract.slowness import DURATIONS_MIN, eta_of, is_slow, usual_s
from export_worker.contract.status import ErrorReport, Phase, Status
from export_worker.errors import ErrorCode

UNKNOWN_ERROR = ErrorReport(
    code=ErrorCode.INTERNAL_ERROR, message="the record has no error", step="unknown", retryable=True
)
"""Of a failed export whose record has no error. No worker writes such a record."""


@dataclass(frozen=True, slots=True)
class Pause:
    """An open circuit breaker.

    Args:
        until_ms: When the next call may be made, in ms since the epoch.
        failures: Checks that failed in a row, or exports for which calls of one kind failed.
    """

    until_ms: float
    failures: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What Redis has about one export.

    Args:
        due_ms: When its queue entry is due, in ms since the epoch; None if there is no entry.
        claimed: A worker has claimed its step and has not released it.
        cancel_requested: Its cancellation was requested.
        parked: How many exports wait before it for a slot of its connection; None if it does not wait for a slot.
        parked_s: Seconds since it waits for a slot; 0 if it does not.
        waiting: How many transfers of its connection wait before it for a worker; None if it does not wait for one.
        offered_to_others: The last worker that claimed its step could not run the step, so other workers get it first.
        slots: Exports of its connection that are running on the platform.
        platform: The pause of all calls to the platform of its connection; None for a transfer, which such a pause does
            not concern.
        kind: The pause of the exports whose calls of the next step's kind have failed; None if this export is not one
            of them.
        running_s: Seconds since it got its slot on the platform; 0 if it has none.
        durations_s: How long the last operations of its kind took on its connection.
        store_problem: Why no running transfer worker can use the store of its connection; None if one can.
        leader: The export whose operation this queued one shares; None if it shares none, or is the first itself.
        operator_pause: The pause of its connection that an operator has requested; None if there is none.
        window_ms: When the next submit window of its connection begins, in ms since the epoch; None if it is in one.
        slots_max: How many exports of its connection may run on the platform; None if that is not known.
    """

    status: Status
    now: datetime
    due_ms: float | None
    claimed: bool
    cancel_requested: bool
    parked: int | None
    waiting: int | None
    offered_to_others: bool
    slots: int
    platform: Pause | None
    kind: Pause | None
    running_s: float = 0.0
    parked_s: float = 0.0
    durations_s: Sequence[float] = ()
    store_problem: str | None = None
    leader: str | None = None
    operator_pause: ConnectionPause | None = None
    window_ms: float | None = None
    slots_max: int | None = None

    def at(self, ms: float) -> datetime:
        """Returns the time of a score."""
        return datetime.fromtimestamp(min(ms, NO_END_MS) / 1000, UTC)

    @property
    def step(self) -> CallKind:
        """What the next step of the export does."""
        return call_kind(self.status.phase)


def explanation(facts: Facts) -> Explanation:
    """Returns why an export waits and until when, or how it ended."""
    status, now = facts.status, facts.now
    if status.phase.terminal:
        return Explanation(status.export_id, now, _end(status), after=_advice(status))
    reason = _wait(facts)
    before = (CancelRequested(),) if facts.cancel_requested else ()
    after = (*_order(reason, status), *_cause(reason, status), *_comparison(reason, facts))
    return Explanation(status.export_id, now, reason, before, after)


def _end(status: Status) -> AnyReason:
    finished_at = status.finished_at or status.updated_at
    match status.phase:
        case Phase.SUCCEEDED:
            return Succeeded(finished_at=finished_at, files=len(status.objects), manifest=str(status.manifest))
        case Phase.CANCELLED:
            return Cancelled(finished_at=finished_at)
        case _:
            error = status.error or UNKNOWN_ERROR
            return Failed(
                finished_at=finished_at,
                step=error.step,
                error_code=error.code,
                message=error.message,
                retryable=error.retryable,
            )


def _advice(status: Status) -> tuple[AnyNote, ...]:
    """Returns what to do about an export that has not succeeded. No retry is advised that cannot help."""
    if status.phase is Phase.SUCCEEDED:
        return ()
    error = status.error
    if status.phase is Phase.CANCELLED or error is None or error.retryable or error.code == ENDED_BY_TIME:
        return (Retry(export_id=status.export_id),)
    return (Fix(error_code=error.code, start="submit" if error.code in OF_ONE_OPERATION else None),)


def _wait(facts: Facts) -> AnyReason:
    connection = facts.status.connection
    if facts.parked is not None:
        return _held(facts) or WaitingForSlot(connection=connection, ahead=facts.parked, running=facts.slots)
    if facts.offered_to_others:
        return OfferedToOthers(connection=connection)
    if facts.waiting is not None:
        return _store_problem(facts) or WaitingForWorker(connection=connection, ahead=facts.waiting)
    if facts.due_ms is None:
        return EntryMissing()
    return _planned(facts, facts.due_ms)


def _planned(facts: Facts, due_ms: float) -> AnyReason:
    """Returns why an export waits that has an entry in its queue."""
    if facts.claimed:
        return StepRuns(step=facts.step, until=facts.at(due_ms))
    if facts.leader is not None:
        return SharesOperation(leader=facts.leader)
    return _held(facts) or _store_problem(facts) or _pause(facts) or _due(facts, facts.at(due_ms))


def _held(facts: Facts) -> ConnectionPaused | WaitsForWindow | None:
    """Returns the pause by an operator, or the wait for a submit window. Only submits respect them."""
    if facts.step != "submit":
        return None
    connection, pause = facts.status.connection, facts.operator_pause
    if pause is not None and (pause.until is None or pause.until > facts.now):
        return ConnectionPaused(connection=connection, until=pause.until, by=pause.by, reason=pause.reason)
    opening = opening_of(facts)
    if opening is None or (facts.due_ms is not None and facts.at(facts.due_ms) > opening):
        return None
    return WaitsForWindow(connection=connection, until=opening)


def opening_of(facts: Facts) -> datetime | None:
    """Returns when the next submit window of a queued export begins; None if its connection is in one."""
    if facts.window_ms is None or facts.status.phase is not Phase.QUEUED:
        return None
    opening = facts.at(facts.window_ms)
    return opening if opening > facts.now else None


def _store_problem(facts: Facts) -> StoreUnusable | None:
    if facts.store_problem is None:
        return None
    return StoreUnusable(connection=facts.status.connection, problem=facts.store_problem)


def _pause(facts: Facts) -> AnyReason | None:
    """Returns why the next call for the export is paused, or None if it is not."""
    connection = facts.status.connection
    if (pause := facts.platform) is not None and (until := facts.at(pause.until_ms)) > facts.now:
        return Paused(connection=connection, until=until, failures=pause.failures)
    if (pause := facts.kind) is not None and (until := facts.at(pause.until_ms)) > facts.now:
        return CallsPaused(connection=connection, step=facts.step, until=until, failures=pause.failures)
    return None


def _due(facts: Facts, due_at: datetime) -> AnyReason:
    if due_at > facts.now:
        return Scheduled(step=facts.step, due_at=due_at)
    return Overdue(step=facts.step, due_at=due_at, role="transfer" if facts.step == "transfer" else "control")


def _order(reason: AnyReason, status: Status) -> tuple[AnyNote, ...]:
    """Returns in which order exports are served, if others are before this one."""
    if not isinstance(reason, WaitingForSlot | WaitingForWorker) or not reason.ahead:
        return ()
    given = (status.request or {}).get("priority")
    return (InTurns(priority=next((each for each in get_args(Priority) if each == given), NORMAL)),)


def _cause(reason: AnyReason, status: Status) -> tuple[AnyNote, ...]:
    """Returns why an export waits for the time of its next step: its last error, or what the platform reports."""
    if not isinstance(reason, Scheduled | CallsPaused):
        return ()
    if (error := status.error) is not None:
        return (LastError(error_code=error.code, message=error.message),)
    if status.phase is not Phase.RUNNING:
        return ()
    polls = status.counters.polls
    return (Stage(stage=status.platform_stage, polls=polls) if status.platform_stage else NoStage(polls=polls),)


def _comparison(reason: AnyReason, facts: Facts) -> tuple[AnyNote, ...]:
    """Returns how usual the wait is, compared with the last exports of its kind, if enough are known."""
    running_s, durations_s = facts.running_s, facts.durations_s
    samples = len(durations_s)
    if samples < DURATIONS_MIN:
        return ()
    if isinstance(reason, WaitingForSlot) and reason.running:
        # Each of the running exports frees a slot once in the usual time.
        left_s = eta_of(durations_s).p50 * (reason.ahead + 1) / reason.running
        return (SlotEstimate(waited_s=facts.parked_s, left_s=left_s, samples=samples),)
    if isinstance(reason, WaitsForWindow) and facts.parked is not None and facts.slots_max:
        # The exports before it start when the window begins, as many at a time as there are slots.
        rounds = facts.parked // facts.slots_max
        left_s = (reason.until - facts.now).total_seconds() + eta_of(durations_s).p50 * rounds
        return (SlotEstimate(waited_s=facts.parked_s, left_s=left_s, samples=samples),)
    if not running_s:
        return ()
    usual = usual_s(durations_s)
    if usual is not None and is_slow(running_s, durations_s):
        return (Slow(running_s=running_s, p90_s=usual, samples=samples),)
    eta = eta_of(durations_s)
    return (Usual(running_s=running_s, p50_s=eta.p50, p95_s=eta.p95, samples=samples),)


def call_kind(phase: Phase) -> CallKind:
    """Returns which calls the next step of an export makes."""
    if phase is Phase.TRANSFERRING:
        return "transfer"
    return "poll" if phase is Phase.RUNNING else "submit"


def pause_of(until_ms: bytes | None, failures: bytes | None) -> Pause | None:
    """Returns the pause that the fields of a circuit breaker state."""
    return None if until_ms is None else Pause(score_of(until_ms), count_of(failures))

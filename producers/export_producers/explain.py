"""Explains in one line why an export waits and until when, or how it ended. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from export_producers.durations import age, duration
from export_worker.contract.model import isoformat
from export_worker.contract.redis_keys import CallKind
from export_worker.contract.slowness import is_slow, usual_s
from export_worker.contract.status import Phase, Status


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
    durations_s: Sequence[float] = ()
    store_problem: str | None = None


def explanation(facts: Facts) -> str:
    """Returns the explanation as one line of whole sentences."""
    if facts.status.phase.terminal:
        return _ended(facts)
    requested = "Cancellation requested. " if facts.cancel_requested else ""
    return requested + _waiting(facts) + _slow(facts)


def _ended(facts: Facts) -> str:
    status = facts.status
    at = "" if status.finished_at is None else f" at {_at(status.finished_at, facts)}"
    restart = f"To restart it, run `export-worker retry {status.export_id}`."
    match status.phase:
        case Phase.SUCCEEDED:
            return (
                f"The export succeeded{at}. It stored {len(status.objects)} file(s) and the manifest {status.manifest}."
            )
        case Phase.CANCELLED:
            return f"The export was cancelled{at}. {restart}"
        case _:
            error = status.error
            reason = "" if error is None else f" in its {error.step} step: [{error.code}] {error.message}"
            return f"The export failed{at}{reason}. {restart}"


def _waiting(facts: Facts) -> str:
    connection = facts.status.connection
    if facts.parked is not None:
        return (
            f"Waiting for a free slot of connection {connection} (max_in_flight). Exports ahead of it: {facts.parked}. "
            f"Exports running on the platform: {facts.slots}."
        )
    if facts.offered_to_others:
        return (
            f"The last worker that claimed this export does not know connection {connection}, "
            "runs an older version, or cannot use its store. "
            "Other workers can claim the export at once. After some seconds, every worker can claim it again."
        )
    if facts.waiting is not None:
        return _store_problem(facts) or (
            "Waiting for a transfer worker with free capacity. "
            f"Exports of connection {connection} ahead of it: {facts.waiting}. Connections take turns."
        )
    if facts.due_ms is None:
        return "The queue entry of this export is missing. The sweep of a worker restores the entry within one minute."
    due_at = datetime.fromtimestamp(facts.due_ms / 1000, UTC)
    if facts.claimed:
        return (
            f"A worker is running its {_step(facts.status)} step. "
            f"If that worker stops responding, another worker claims the step after {_at(due_at, facts)}."
        )
    return _store_problem(facts) or _paused(facts) or _due(facts, due_at)


def _slow(facts: Facts) -> str:
    """Returns how long it runs and its kind usually takes, if it runs for much longer."""
    usual = usual_s(facts.durations_s)
    if usual is None or not is_slow(facts.running_s, facts.durations_s):
        return ""
    return (
        f" It has been on the platform for {duration(facts.running_s)}, much longer than usual: "
        f"nine tenths of the last {len(facts.durations_s)} exports of its kind took at most {duration(usual)}."
    )


def _store_problem(facts: Facts) -> str | None:
    if facts.store_problem is None:
        return None
    return (
        f"No transfer worker can use the store of connection {facts.status.connection}: {facts.store_problem}. "
        "Each worker checks its store every few seconds, and then claims transfers again."
    )


def _paused(facts: Facts) -> str | None:
    """Returns why the next call for the export is paused, or None if it is not."""
    status = facts.status
    if (until := _pause_end(facts.platform, facts)) is not None and facts.platform is not None:
        return (
            f"Connection {status.connection} is paused until {until}: its platform did not answer "
            f"{facts.platform.failures} checks in a row. "
            "Then a worker checks the platform again. If the platform answers, all exports resume."
        )
    if (until := _pause_end(facts.kind, facts)) is not None and facts.kind is not None:
        return (
            f"{_step(status).capitalize()}s of connection {status.connection} are paused until {until} for this and "
            f"all other exports for which one has failed: {facts.kind.failures} exports, without a success "
            f"in between. Then one export is tried. If it succeeds, all exports resume.{_reason(status)}"
        )
    return None


def call_kind(phase: Phase) -> CallKind:
    """Returns which calls the next step of an export makes."""
    if phase is Phase.TRANSFERRING:
        return "transfer"
    return "poll" if phase is Phase.RUNNING else "submit"


def pause_of(until_ms: bytes | None, failures: bytes | None) -> Pause | None:
    """Returns the pause that the fields of a circuit breaker state."""
    return None if until_ms is None else Pause(float(until_ms), int(failures or 0))


def _pause_end(pause: Pause | None, facts: Facts) -> str | None:
    if pause is None or pause.until_ms <= facts.now.timestamp() * 1000:
        return None
    return _at(datetime.fromtimestamp(pause.until_ms / 1000, UTC), facts)


def _at(moment: datetime, facts: Facts) -> str:
    """Returns a time with its age: `2026-11-22T03:05:00.000Z (in 5 min)`."""
    return f"{isoformat(moment)} ({age(moment, facts.now)})"


def _due(facts: Facts, due_at: datetime) -> str:
    status = facts.status
    if due_at > facts.now:
        return f"Waiting until {_at(due_at, facts)} for its next {_step(status)} step.{_reason(status)}"
    role = "transfer" if status.phase is Phase.TRANSFERRING else "control"
    return (
        f"Its {_step(status)} step has been due since {_at(due_at, facts)}, but no worker has claimed it. "
        f"Check that a {role} worker is running."
    )


def _step(status: Status) -> str:
    return call_kind(status.phase)


def _reason(status: Status) -> str:
    if status.error is not None:
        return f" Last error: [{status.error.code}] {status.error.message}."
    if status.phase is Phase.RUNNING:
        stage = f"reports stage {status.platform_stage}" if status.platform_stage else "has not reported a stage"
        return f" The platform {stage} after {status.counters.polls} poll(s)."
    return ""

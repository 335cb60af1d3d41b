"""Explains in one line why an export waits and until when, or how it ended. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime

from export_worker.contract.model import isoformat
from export_worker.contract.status import Phase, Status


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
        failures: Consecutive failures of the service that its next step calls: the platform of its connection, or for a
            transfer the host of its files.
        paused_until_ms: When that service may be called again, in ms since the epoch; None if calls are not paused.
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
    failures: int
    paused_until_ms: float | None
    store_problem: str | None = None


def explanation(facts: Facts) -> str:
    """Returns the explanation as one line of whole sentences."""
    if facts.status.phase.terminal:
        return _ended(facts.status)
    requested = "Cancellation requested. " if facts.cancel_requested else ""
    return requested + _waiting(facts)


def _ended(status: Status) -> str:
    at = "" if status.finished_at is None else f" at {isoformat(status.finished_at)}"
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
    paused = _paused(facts)
    if facts.waiting is not None:
        return paused or (
            "Waiting for a transfer worker with free capacity. "
            f"Exports of connection {connection} ahead of it: {facts.waiting}. Connections take turns."
        )
    if facts.due_ms is None:
        return "The queue entry of this export is missing. The sweep of a worker restores the entry within one minute."
    due_at = datetime.fromtimestamp(facts.due_ms / 1000, UTC)
    if facts.claimed:
        return (
            f"A worker is running its {_step(facts.status)} step. "
            f"If that worker stops responding, another worker claims the step after {isoformat(due_at)}."
        )
    return paused or _due(facts, due_at)


def _paused(facts: Facts) -> str | None:
    """Returns why calls to the service that the next step needs are paused, or None if they are not."""
    status, paused_ms = facts.status, facts.paused_until_ms
    if facts.store_problem is not None:
        return (
            f"No transfer worker can use the store of connection {status.connection}: {facts.store_problem}. "
            "Each worker checks its store every few seconds, and then claims transfers again."
        )
    if paused_ms is None or paused_ms <= facts.now.timestamp() * 1000:
        return None
    until = isoformat(datetime.fromtimestamp(paused_ms / 1000, UTC))
    if status.phase is Phase.TRANSFERRING:
        return (
            f"Transfers of connection {status.connection} are paused until {until}: the host of its files was "
            f"unreachable {facts.failures} times in a row. Then one export tests that service. "
            "If the service answers, all transfers resume."
        )
    return (
        f"Connection {status.connection} is paused until {until}: its platform did not answer "
        f"{facts.failures} times in a row. "
        "Then one export tests the platform. If the platform answers, all exports resume."
    )


def _due(facts: Facts, due_at: datetime) -> str:
    status = facts.status
    if due_at > facts.now:
        return f"Waiting until {isoformat(due_at)} for its next {_step(status)} step.{_reason(status)}"
    role = "transfer" if status.phase is Phase.TRANSFERRING else "control"
    return (
        f"Its {_step(status)} step has been due since {isoformat(due_at)}, but no worker has claimed it. "
        f"Check that a {role} worker is running."
    )


def _step(status: Status) -> str:
    return {Phase.QUEUED: "submit", Phase.RUNNING: "poll"}.get(status.phase, "transfer")


def _reason(status: Status) -> str:
    if status.error is not None:
        return f" Last error: [{status.error.code}] {status.error.message}."
    if status.phase is Phase.RUNNING:
        stage = f"reports stage {status.platform_stage}" if status.platform_stage else "has not reported a stage"
        return f" The platform {stage} after {status.counters.polls} poll(s)."
    return ""

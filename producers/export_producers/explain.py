"""Says in one sentence why an export waits and until when. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime

from export_worker.contract.model import isoformat
from export_worker.contract.status import Phase, Status


@dataclass(frozen=True, slots=True)
class Facts:
    """What can be seen of one export.

    Args:
        due_ms: Score of its queue entry; None when it has none.
        held: A worker has begun its step, and has not said how it ended.
        cancelled: Somebody asked for its end.
        parked: How many wait before it for a slot of its connection; None when it does not wait for one.
        waiting: How many transfers of its connection wait before it for a worker; None when it does not wait for one.
        aside: The last worker that looked at it could do nothing for it, and the others are asked.
        slots: Exports of its connection that are on the platform.
        failures: Failures in a row of what its next step needs: the connection's platform, or for a transfer the host
            of its files, or S3.
        paused_until_ms: When that may be called again; None when it is not paused.
    """

    status: Status
    now: datetime
    due_ms: float | None
    held: bool
    cancelled: bool
    parked: int | None
    waiting: int | None
    aside: bool
    slots: int
    failures: int
    paused_until_ms: float | None


def explanation(facts: Facts) -> str:
    """The sentence."""
    status = facts.status
    if status.phase.terminal:
        return _ended(status)
    words = _waiting(facts)
    return f"Somebody asked for its end; {words[0].lower()}{words[1:]}" if facts.cancelled else words


def _ended(status: Status) -> str:
    at = "" if status.finished_at is None else f" at {isoformat(status.finished_at)}"
    match status.phase:
        case Phase.SUCCEEDED:
            return f"It succeeded{at}: {len(status.objects)} file(s) and {status.manifest}."
        case Phase.CANCELLED:
            return f"It was cancelled{at}; `export-worker retry {status.export_id}` sets it going again."
        case _:
            why = (
                ""
                if status.error is None
                else f" in its {status.error.step} [{status.error.code}]: {status.error.message}"
            )
            return f"It failed{at}{why}; `export-worker retry {status.export_id}` tries again from there."


def _waiting(facts: Facts) -> str:
    status = facts.status
    if facts.parked is not None:
        return (
            f"It waits for a free slot of connection {status.connection}, behind {facts.parked} other(s); "
            f"{facts.slots} export(s) are on the platform now (max_in_flight)."
        )
    if facts.aside:
        return (
            f"The worker that looked at it last does not know connection {status.connection}, or is of an older "
            "version; the others are asked, and within seconds all of them again."
        )
    paused = _paused(facts)
    if facts.waiting is not None:
        return paused or (
            f"It waits for a transfer worker that has room, behind {facts.waiting} other(s) of connection "
            f"{status.connection}; connections take turns."
        )
    if facts.due_ms is None:
        return "Its queue entry is missing; the next sweep of a worker brings it back within a minute."
    due_at = datetime.fromtimestamp(facts.due_ms / 1000, UTC)
    if facts.held:
        return f"A worker is at it now ({_step(status)}); should it die, another takes over after {isoformat(due_at)}."
    return paused or _due(facts, due_at)


def _paused(facts: Facts) -> str | None:
    """What its next step needs is out of reach."""
    status, paused_ms = facts.status, facts.paused_until_ms
    if paused_ms is None or paused_ms <= facts.now.timestamp() * 1000:
        return None
    until = isoformat(datetime.fromtimestamp(paused_ms / 1000, UTC))
    if status.phase is Phase.TRANSFERRING:
        return (
            f"Transfers of connection {status.connection} are paused until {until}: the host of its files, or S3, was "
            f"out of reach {facts.failures} times in a row; one export then looks again, and all go on when it can."
        )
    return (
        f"Connection {status.connection} is paused until {until}: its platform has not answered "
        f"{facts.failures} times in a row; it is then looked at by one export, and goes on for all."
    )


def _due(facts: Facts, due_at: datetime) -> str:
    status = facts.status
    if due_at > facts.now:
        return f"It waits until {isoformat(due_at)} for its next {_step(status)}{_because(status)}."
    role = "transfer" if status.phase is Phase.TRANSFERRING else "control"
    since = isoformat(due_at)
    return f"It is due for its {_step(status)} since {since}, and no {role} worker has taken it; is one running?"


def _step(status: Status) -> str:
    return {Phase.QUEUED: "submit", Phase.RUNNING: "poll"}.get(status.phase, "transfer")


def _because(status: Status) -> str:
    if status.error is not None:
        return f", after [{status.error.code}] {status.error.message}"
    if status.phase is Phase.RUNNING:
        return f"; the platform says {status.platform_stage or 'nothing yet'} ({status.counters.polls} polls so far)"
    return ""

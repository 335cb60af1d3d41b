"""What a step decides, and the values that every decision depends on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.export import Export
from export_worker.lifecycle.poll_schedule import PollSchedule
from export_worker.lifecycle.resubmit import Resubmit


@dataclass(frozen=True, slots=True)
class OperationRetry:
    """What follows when the platform reports that an operation has failed.

    Args:
        times: How often an export is submitted again.
        after_s: Seconds between the failure and the next submit.
    """

    times: int = 0
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How long the exports of one connection wait, and when they fail.

    Args:
        poll: Waits between polls.
        retry: Waits between attempts.
        max_attempts: An export fails after this many failures in a row.
        deadline_s: Seconds from acceptance after which an export fails, unless its request has its own deadline.
        resubmit: How often a submit is repeated that the platform may have received.
        operation_retry: What follows when the platform reports that an operation has failed.
    """

    poll: PollSchedule
    retry: Backoff
    max_attempts: int
    deadline_s: float
    resubmit: Resubmit = "once"
    operation_retry: OperationRetry = OperationRetry()


@dataclass(frozen=True, slots=True)
class Moment:
    """The time and the random number that one decision uses.

    Args:
        now: The time, with a zone.
        draw: A random number from 0 to 1, for jitter.
    """

    now: datetime
    draw: float


@dataclass(frozen=True, slots=True)
class StepHistory:
    """What was known about operations like that of a step when the step was claimed.

    Args:
        durations_s: How long the last operations of this kind took on this connection.
    """

    durations_s: Sequence[float] = ()


NO_HISTORY = StepHistory()
"""The history of a step without known durations."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next value of an export.

    Args:
        export: The next value. It is due at `export.due_at`, unless its phase is terminal.
        note: A line for the timeline. None for frequent events, such as a poll that returned "not yet".
        took_over: The export has taken over from another one whose operation it shares; see `sharing`.
    """

    export: Export
    note: str | None = None
    took_over: bool = False


def deadline(export: Export, policy: Policy) -> datetime:
    """Returns the time at which an export that is still open fails."""
    return export.set_going_at + timedelta(seconds=export.request.deadline_s or policy.deadline_s)


def due_after(export: Export, moment: Moment, wait_s: float, policy: Policy) -> datetime:
    """Returns the time of the next step: after the wait, or at the deadline if that is earlier."""
    # Bounded before it is added: a wait of any length must stay within the range of datetime.
    left_s = (deadline(export, policy) - moment.now).total_seconds()
    return moment.now + timedelta(seconds=max(0.0, min(wait_s, left_s)))


def updated(export: Export, moment: Moment, **changes: Any) -> Export:
    """Returns a copy of the export with these changes."""
    return export.model_copy(update={"updated_at": moment.now, **changes})


def progressed(export: Export, moment: Moment, **changes: Any) -> Export:
    """Returns a copy of the export with these changes. Progress resets the counts of failures in a row."""
    return updated(export, moment, attempt=0, throttled=0, **changes)

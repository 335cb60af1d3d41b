"""What is done to many exports, which exports it is done to, and how it is done to one."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from export_producers.choices import LIST_MAX
from export_producers.filters import OPEN_PHASES, PHASES_OF_STATE, ExportFilter
from export_producers.queue import Queue
from export_producers.records import Start
from export_producers.retries import may_succeed
from export_worker.contract.status import Phase, Status
from export_worker.errors import ErrorCode, ExportNotFoundError, InvalidRequestError

Action = Literal["retry", "cancel"]

PIECE = 500
"""Exports that are read at once: some 10 ms of Redis's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOrder:
    """An action on every export that matches.

    Args:
        where: Which exports. Without a phase: failed exports for a retry, open ones for a cancellation.
        start: The step to restart from; None for the step that failed.
        hopeless: Also retry exports whose error a retry alone cannot fix, because the cause is fixed now.
        per_second: How many exports in each second at most; None for as many as Redis can.
    """

    action: Action
    where: ExportFilter
    start: Start | None = None
    hopeless: bool = False
    per_second: float | None = None

    @property
    def passes(self) -> tuple[ExportFilter, ...]:
        """One filter for each phase, in the order in which exports change their phase."""
        if self.where.phase is not None:
            return (self.where,)
        phases = (Phase.FAILED,) if self.action == "retry" else PHASES_OF_STATE.get(self.where.state, OPEN_PHASES)
        return tuple(replace(self.where, phase=phase) for phase in phases)

    def obstacle(self, status: Status, known: Collection[str]) -> str | None:
        """Returns the error code with which the retry of an export would end; None if the action can help.

        A filter by connection says that workers have the connection.

        Args:
            known: The known connections; empty if none is known.
        """
        if self.action == "cancel":
            return None
        if known and self.where.connection is None and status.connection not in known:
            return ErrorCode.UNKNOWN_CONNECTION
        return None if self.hopeless or may_succeed(status, self.start) else code_of(status)


@dataclass(frozen=True, slots=True)
class Position:
    """Where the exports of an order are read on.

    Args:
        passed: How many of the order's passes are complete.
        cursor: The cursor of the next page in the pass that runs.
    """

    passed: int = 0
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the exports that match, newest first.

    Args:
        next: The position after this piece.
    """

    statuses: Sequence[Status]
    next: Position


async def pieces(queue: Queue, order: BulkOrder, position: Position = Position()) -> AsyncIterator[Piece]:
    """Yields the exports that match from a position on, with two round trips for each piece."""
    passes = order.passes
    while position.passed < len(passes):
        page = await queue.page(limit=PIECE, cursor=position.cursor, where=passes[position.passed])
        following = Position(position.passed + 1) if page.cursor is None else replace(position, cursor=page.cursor)
        yield Piece(page.statuses, following)
        position = following


async def still_in_state(queue: Queue, order: BulkOrder, statuses: Sequence[Status]) -> Sequence[Status]:
    """Returns the exports that have not left the state of the order since they were selected.

    Their statuses do not say it. Exports that follow each other in the listing are between two times of its index, so
    few entries are read. Needs three round trips; none for an order without a state.

    Args:
        statuses: Exports of one pass.
    """
    if order.where.state is None or not statuses:
        return statuses
    times = sorted(status.created_at for status in statuses)
    where = replace(
        order.where,
        phase=statuses[0].phase,
        since=times[0],
        until=times[-1] + timedelta(milliseconds=1),
        export_ids=frozenset(status.export_id for status in statuses),
    )
    left = {status.export_id for status in (await queue.page(limit=LIST_MAX, where=where)).statuses}
    return [status for status in statuses if status.export_id in left]


async def act(queue: Queue, order: BulkOrder, export_id: str, ended_at: datetime | None = None) -> Status | None:
    """Acts on one export. Needs four round trips at most.

    Args:
        ended_at: Its `finished_at` when it was selected: an export that has been restarted since is left as it is.

    Returns:
        Its status: after the restart, or before the cancellation. None if it no longer matches, because another caller
        has acted on it, it has changed its phase, or its retention has ended.
    """
    try:
        status = await queue.status(export_id)
        if not any(where.matches(status) for where in order.passes):
            return None
        if order.action == "retry":
            return await queue.retry(export_id, order.start, ended_at=ended_at)
        return None if (await queue.cancel(export_id)).terminal else status
    except (InvalidRequestError, ExportNotFoundError):
        return None


def code_of(status: Status) -> str:
    """Returns the error code of a failed export, or the phase of any other."""
    return str(status.phase) if status.error is None or not status.phase.terminal else str(status.error.code)

"""Reads failed exports, and groups them by cause."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from export_producers.filters import ExportFilter
from export_producers.queue import Queue
from export_producers.reads.causes import cause_of
from export_producers.reads.failures_document import FailureGroup, Failures
from export_producers.records import decode_cursor
from export_producers.retries import may_succeed
from export_worker.contract.status import Phase, Status

FAILURES_MAX = 5000
"""Failed exports that are read: some megabytes."""
READ_AT_ONCE = 1000
"""Failed exports of one page. Other calls of the process are served between two pages."""
GROUPS_MAX = 100
"""Groups that are returned. More are no help for people."""
PARTS = 24
"""Parts of the time in which the failures of a group are counted."""
SAMPLE = 5
"""Ids of exports in each group."""


async def read_failures(queue: Queue, where: ExportFilter) -> Failures:
    """Returns the newest failed exports that match, in groups by cause.

    Each page of 1,000 takes one round trip. At most five pages are read, each of which examines 5,000 exports at most.

    Args:
        where: Which exports. Its phase is ignored.
    """
    where = replace(where, phase=Phase.FAILED)
    statuses: list[Status] = []
    cursor, total = None, None
    for number in range(FAILURES_MAX // READ_AT_ONCE):
        page = await queue.page(limit=READ_AT_ONCE, cursor=cursor, where=where)
        statuses += page.statuses
        total = page.total if number == 0 else total
        cursor = page.cursor
        if cursor is None:
            break
    times = [_failed_at(status) for status in statuses]
    last = datetime.now(UTC)
    first = min(where.since or min(times, default=last), last)
    groups = grouped(statuses, first, last)
    return Failures(
        groups=groups[:GROUPS_MAX],
        counted_since=first,
        counted_until=last,
        groups_left_out=max(0, len(groups) - GROUPS_MAX),
        total=len(statuses) if cursor is None else total,
        searched_until=None if cursor is None else decode_cursor(cursor).created_at,
    )


def grouped(statuses: Iterable[Status], first: datetime, last: datetime) -> list[FailureGroup]:
    """Returns failed exports in groups by cause, the largest first.

    Args:
        statuses: The newest first.
        first: The start of the time for which the failures are counted.
        last: The end of it.
    """
    groups: dict[tuple[str, ...], list[Status]] = defaultdict(list)
    for status in statuses:
        groups[_cause(status)].append(status)
    found = [_group(cause, members, first, last) for cause, members in groups.items()]
    return sorted(found, key=lambda group: (group.count, group.last_at), reverse=True)


def _cause(status: Status) -> tuple[str, ...]:
    error = status.error
    step, code, message = ("", "", "") if error is None else (error.step, str(error.code), error.message)
    names = [status.operation_id, status.export_id]
    return (status.connection, status.kind, step, code, cause_of(message, status.request, names))


def _group(cause: tuple[str, ...], members: Sequence[Status], first: datetime, last: datetime) -> FailureGroup:
    connection, kind, step, code, message = cause
    times = [_failed_at(status) for status in members]
    return FailureGroup(
        connection=connection,
        kind=kind,
        step=step,
        code=code,
        message=message,
        count=len(members),
        first_at=min(times),
        last_at=max(times),
        counts=_counts(times, first, last),
        export_ids=[status.export_id for status in members[:SAMPLE]],
        retryable=any(status.error is not None and status.error.retryable for status in members),
        hopeless=sum(not may_succeed(status, None) for status in members),
    )


def _failed_at(status: Status) -> datetime:
    return status.finished_at or status.updated_at


def _counts(times: Iterable[datetime], first: datetime, last: datetime) -> list[int]:
    counts = [0] * PARTS
    length = max((last - first) / PARTS, timedelta(microseconds=1))
    for time in times:
        # Clocks of other machines differ a little.
        counts[max(0, min((time - first) // length, PARTS - 1))] += 1
    return counts

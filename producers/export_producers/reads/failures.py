"""Reads failed exports, and groups them by cause."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from export_producers.filters import ExportFilter
from export_producers.reads.causes import cause_of
from export_producers.reads.failures_document import FailureGroup, Failures
from export_producers.records import Page
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


class Listing(Protocol):
    """What failures are read from: one queue, or several."""

    async def page(
        self, phase: Phase | None = None, limit: int = ..., cursor: str | None = None, *, where: ExportFilter = ...
    ) -> Page:
        """Returns one page of exports."""


async def read_failures(queue: Listing, where: ExportFilter) -> Failures:
    """Returns the newest failed exports that match, in groups by cause.

    Each page of 1,000 takes one round trip. At most five pages are read, each of which examines 5,000 exports at most.

    Args:
        where: Which exports. Its phase is ignored.
    """
    where = replace(where, phase=Phase.FAILED)
    causes = Causes()
    cursor, total, searched_until, missing = None, None, None, set[str]()
    for number in range(FAILURES_MAX // READ_AT_ONCE):
        page = await queue.page(limit=READ_AT_ONCE, cursor=cursor, where=where)
        causes.add(page.statuses)
        total = page.total if number == 0 else total
        missing.update(page.missing)
        cursor, searched_until = page.cursor, page.searched_until or causes.oldest_at
        if cursor is None:
            break
    last = datetime.now(UTC)
    first = min(where.since or causes.first_at or last, last)
    groups = causes.largest(GROUPS_MAX)
    return Failures(
        groups=[_group(cause, members, first, last) for cause, members in groups],
        counted_since=first,
        counted_until=last,
        groups_left_out=causes.groups - len(groups),
        total=causes.count if cursor is None else total,
        searched_until=None if cursor is None else searched_until,
        missing_queues=sorted(missing),
    )


Cause = tuple[str, ...]
"""The connection, kind, step, code and message."""


@dataclass(slots=True)
class Members:
    """The failed exports with one cause.

    Args:
        times: When they failed.
    """

    times: list[datetime] = field(default_factory=list)
    export_ids: list[str] = field(default_factory=list)
    retryable: bool = False
    hopeless: int = 0

    def add(self, status: Status) -> None:
        """Adds an export, older than all before it."""
        self.times.append(status.finished_at or status.updated_at)
        if len(self.export_ids) < SAMPLE:
            self.export_ids.append(status.export_id)
        self.retryable = self.retryable or (status.error is not None and status.error.retryable)
        self.hopeless += not may_succeed(status, None)


class Causes:
    """Groups failed exports by cause. It keeps no statuses, so thousands take little memory."""

    def __init__(self) -> None:
        self._groups: dict[Cause, Members] = defaultdict(Members)
        self.oldest_at: datetime | None = None
        """When the last export that was added was accepted; None without any."""

    def add(self, statuses: Iterable[Status]) -> None:
        """Adds failed exports, the newest first."""
        for status in statuses:
            self._groups[_cause(status)].add(status)
            self.oldest_at = status.created_at

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(self._groups)

    @property
    def count(self) -> int:
        """How many exports there are in all groups."""
        return sum(len(members.times) for members in self._groups.values())

    @property
    def first_at(self) -> datetime | None:
        """When the first one failed; None without any."""
        return min((min(members.times) for members in self._groups.values()), default=None)

    def largest(self, most: int) -> list[tuple[Cause, Members]]:
        """Returns the largest groups, the largest first, and of two of one size the one that failed last."""

        def size(group: tuple[Cause, Members]) -> tuple[int, datetime]:
            return len(group[1].times), max(group[1].times)

        return sorted(self._groups.items(), key=size, reverse=True)[:most]


def _cause(status: Status) -> Cause:
    error = status.error
    step, code, message = ("", "", "") if error is None else (error.step, str(error.code), error.message)
    names = [status.operation_id, status.export_id]
    return (status.connection, status.kind, step, code, cause_of(message, status.request, names))


def _group(cause: Cause, members: Members, first: datetime, last: datetime) -> FailureGroup:
    connection, kind, step, code, message = cause
    return FailureGroup(
        connection=connection,
        kind=kind,
        step=step,
        code=code,
        message=message,
        count=len(members.times),
        first_at=min(members.times),
        last_at=max(members.times),
        counts=_counts(members.times, first, last),
        export_ids=members.export_ids,
        retryable=members.retryable,
        hopeless=members.hopeless,
    )


def _counts(times: Iterable[datetime], first: datetime, last: datetime) -> list[int]:
    counts = [0] * PARTS
    length = max((last - first) / PARTS, timedelta(microseconds=1))
    for time in times:
        # Clocks of other machines differ a little.
        counts[max(0, min((time - first) // length, PARTS - 1))] += 1
    return counts

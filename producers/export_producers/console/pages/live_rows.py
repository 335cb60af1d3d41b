"""The live part of the page Exports: which rows of it change, and which exports are new."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from export_producers.choices import Language
from export_producers.console.frame import parts
from export_producers.filters import ExportFilter
from export_producers.queues.queues import ExportQueues
from export_producers.reads.batched import BatchedRead
from export_producers.reads.changes import Change, ChangeFilter
from export_worker.contract.status import Phase, Status

PAGE_ROWS = 50
ROWS_MAX = 150
"""Rows that change in place. Tabs that were opened later may have other rows."""


@dataclass(slots=True)
class LiveRows:
    """One page of a list, in all tabs that show it.

    Args:
        statuses: Reads the exports that have changed, once for all pages.
        render: Renders the rows of exports, by the names of their parts.
        shown: The exports in the rows.
        oldest: The creation of the last export that has room on the page; None if there is room for any.
    """

    queue: ExportQueues
    statuses: BatchedRead[Status | None]
    where: ExportFilter
    cursor: str | None
    render: Callable[[Sequence[Status]], Awaitable[Mapping[str, str]]]
    language: Language
    shown: dict[str, None] = field(default_factory=dict)
    oldest: datetime | None = None

    async def read(self) -> Mapping[str, str]:
        """Returns all rows of the page and its total, after two round trips."""
        found = await self.queue.page(limit=PAGE_ROWS, cursor=self.cursor, where=self.where)
        self._show(status.export_id for status in found.statuses)
        self.oldest = found.statuses[-1].created_at if found.cursor is not None and found.statuses else None
        return {**parts(self.language, "exports", {"total": found.total}), **await self.render(found.statuses)}

    async def update(self, changes: Sequence[Change]) -> Mapping[str, str]:
        """Returns the rows that have changed, and the names of new ones, after one round trip for all pages."""
        wanted = [each.export_id for each in changes if each.export_id in self.shown or self._may_enter(each)]
        statuses = [status for status in (await self.statuses.get(wanted)).values() if status is not None]
        new = [status for status in statuses if status.export_id not in self.shown and self._enters(status)]
        changed = [status for status in statuses if status.export_id in self.shown]
        return {**await self.render(changed), **{part_of(status): "" for status in new}}

    def _show(self, export_ids: Iterable[str]) -> None:
        newest = dict.fromkeys(export_ids)
        kept = [export_id for export_id in self.shown if export_id not in newest]
        self.shown = dict.fromkeys([*kept, *newest][-ROWS_MAX:])

    def _may_enter(self, change: Change) -> bool:
        """Returns whether a change may bring an export to the first page."""
        where = self.where
        phase = Phase.FAILED if where.error is not None else where.phase
        filtered = ChangeFilter(where.connections, where.connection, where.kind)
        is_new = change.was is None if phase is None else phase == change.phase != change.was
        is_new = is_new and self.where.state is None  # a change does not say who waits or is slow
        return self.cursor is None and is_new and filtered.matches(change)

    def _enters(self, status: Status) -> bool:
        return self.where.matches(status) and (self.oldest is None or status.created_at >= self.oldest)


def part_of(status: Status) -> str:
    """Returns the name of the part of a page that has the row of an export."""
    return f"export-{status.export_id}"

"""Merges the pages of several queues: of exports, of events and of the activity. Pure."""

from collections.abc import Mapping

from export_producers.activity import ActivityEntry, ActivityPage
from export_producers.events.deliveries import Delivery
from export_producers.events.listing import EventPage, Position, State
from export_producers.queues.fan_out import Answers
from export_producers.queues.merging import Entry, Order, Part, Positions, merged
from export_producers.records import Page
from export_worker.contract.status import Status

Totals = Mapping[str, int | None]


def merged_exports(pages: Answers[Page], limit: int, before: Positions) -> Page:
    """Returns the newest exports of all queues.

    Args:
        pages: The page of each queue after its position, and any page of the queues that have no more.
        before: The position of each queue.
    """
    parts = {name: _exports(page) for name, page in pages.by_queue.items() if name in before}
    found = merged(parts, limit, before)
    totals = [page.total for page in pages.found]
    return Page(
        list(found.items),
        found.cursor,
        None if None in totals else sum(total or 0 for total in totals),
        None if found.bound is None or len(found.items) >= limit else found.bound[0],
        missing=pages.missing,
        archive=next((page.archive for page in pages.found if page.archive is not None), None),
    )


def _exports(page: Page) -> Part[Status]:
    cursors = [position.cursor for position in page.positions] or [""] * len(page.statuses)
    entries = [
        Entry((status.created_at, status.export_id), cursor, status)
        for status, cursor in zip(page.statuses, cursors, strict=True)
    ]
    bound: Order = () if page.searched_until is None else (page.searched_until,)
    return Part(entries, page.cursor, bound or (entries[-1].order if entries else ()))


def merged_events(pages: Answers[EventPage], state: State, limit: int, before: Positions) -> EventPage:
    """Returns the next events of all queues. Pending ones are sorted by their time, others by the last time first."""
    sign = -1 if state == "pending" else 1
    parts = {name: _events(page, sign) for name, page in pages.by_queue.items() if name in before}
    found = merged(parts, limit, before)
    totals = [page.total for page in pages.found]
    total = None if None in totals else sum(total or 0 for total in totals)
    return EventPage(list(found.items), found.cursor, total, missing=pages.missing)


def _events(page: EventPage, sign: int) -> Part[Delivery]:
    entries = [
        Entry((sign * position.at_ms,), position.cursor, delivery)
        for delivery, position in zip(page.deliveries, page.positions, strict=True)
    ]
    bound = () if page.cursor is None else (sign * Position.of(page.cursor).at_ms,)
    return Part(entries, page.cursor, bound)


def merged_activity(pages: Answers[ActivityPage], limit: int, before: Positions) -> ActivityPage:
    """Returns the newest acts of all queues."""
    parts = {name: _acts(page) for name, page in pages.by_queue.items() if name in before}
    found = merged(parts, limit, before)
    return ActivityPage(list(found.items), found.cursor, pages.missing)


def _acts(page: ActivityPage) -> Part[ActivityEntry]:
    entries = [Entry(_order(entry.id), entry.id, entry) for entry in page.entries]
    return Part(entries, page.cursor, () if page.cursor is None else _order(page.cursor))


def _order(entry_id: str) -> Order:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)

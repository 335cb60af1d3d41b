"""Reads the pages of a listing from Redis, with one round trip for each page."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from export_producers.archive import ArchiveReader
from export_producers.filters import EVERY_EXPORT, ExportFilter
from export_producers.lua import script
from export_producers.reads.overview_document import Overview
from export_producers.records import RECORD_FIELDS, Page, Position, decode_cursor
from export_producers.states import state_arguments
from export_producers.statuses import read_statuses, readable_status
from export_producers.storage import Storage
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Status
from export_worker.redis.scripts import Script

EXAMINED_MAX = 5000
"""Entries of an index that one page reads: some milliseconds of Redis's time, or 40 ms if a search reads the record of
each. The page then has a cursor."""

LARGE_RECORD_BYTES = 4000
"""A search reads records. A record of this size counts as two entries, one of twice this size as three, and so on."""

UNSURE_MAX = 1000
"""Statuses that one page reads and compares with the filter while the indexes are incomplete."""


@dataclass(frozen=True, slots=True)
class Found:
    """What `list.lua` found.

    Args:
        positions: The exports, newest first.
        next: The position from which the next page continues; None if there is no next page.
        total: How many exports match; None if that is unknown.
        statuses: The status of each export. None: the export exists no longer, or its record cannot be read.
    """

    positions: Sequence[Position]
    next: Position | None
    total: int | None
    statuses: Mapping[Position, Status | None]

    @classmethod
    def of(cls, answer: Mapping[str, Any], values: Sequence[Any]) -> Self:
        """Reads the answer of the script, and the record of each export that it answered with."""
        positions = [_position(pair) for pair in answer.get("found", ())]
        following = _position(answer["next"]) if "next" in answer else None
        records = zip(*[iter(values)] * (len(RECORD_FIELDS) + 1), strict=True)
        statuses = {
            each: readable_status(each.export_id, record, stored)
            for each, (*record, stored) in zip(positions, records, strict=True)
        }
        return cls(positions, following, answer.get("total"), statuses)


def _position(pair: Sequence[str]) -> Position:
    export_id, created_ms, number = pair
    return Position(int(number), int(created_ms), export_id)


class Listing:
    """Reads pages of the exports of one namespace."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._redis = storage.client
        self._keys = storage.keys
        self._archive = ArchiveReader(storage)
        self._script = Script(storage.client, script("list"))

    async def page(self, where: ExportFilter, limit: int, cursor: str | None, overview: Overview | None) -> Page:
        """Returns up to `limit` exports.

        Args:
            cursor: The cursor of the previous page; None for the first page.
            overview: What says which exports wait and which are slow, if the filter has a state.

        Raises:
            InvalidRequestError: The cursor is invalid.
        """
        position = None if cursor is None else decode_cursor(cursor)
        async with self._storage.calls():
            page = await self._page(where, limit, position, overview)
        return replace(page, archive=await self._archive.pointer(where.since or where.until))

    async def _page(
        self, where: ExportFilter, limit: int, after: Position | None, overview: Overview | None = None
    ) -> Page:
        """Returns up to `limit` exports after a position.

        Exports that the filter names by their ids are one page. Open exports need three calls of the script at once.

        Args:
            after: The position from the cursor of the previous page; None for the first page.
            overview: What says which exports wait and which are slow, if the filter has a state.
        """
        if where.export_ids is not None and where.state is None:
            return await self._named(where, where.export_ids)
        first, *others = (self._find(each, limit, after, overview) for each in where.of_each_phase)
        found = merged(await asyncio.gather(first, *others), limit) if others else await first
        return page_of(found, where, limit)

    async def _find(self, where: ExportFilter, limit: int, after: Position | None, overview: Overview | None) -> Found:
        """Finds exports of one phase at most, with one round trip."""
        keys = self._keys
        answer, values = await self._script.with_documents(
            [keys.created],
            {
                "prefix": keys.prefix,
                "facets": where.facets,
                "connections": None if where.connections is None else sorted(where.connections),
                "phase": where.indexed_phase,
                "since_ms": None if where.since is None else epoch_ms(where.since),
                "until_ms": None if where.until is None else epoch_ms(where.until),
                "after_number": None if after is None else after.number,
                "after_ms": None if after is None else after.created_ms,
                "after_id": None if after is None else after.export_id,
                "limit": limit,
                "unsure_limit": max(limit, UNSURE_MAX),
                "examine_max": EXAMINED_MAX,
                "sought_name": where.sought_name,
                "sought_metadata": where.search,
                "sought_id": where.sought_id,
                "sought_key": None if where.search is None else keys.dedupe(where.search),
                "sought_texts": where.sought_texts,
                "large_bytes": LARGE_RECORD_BYTES,
                **({} if overview is None else state_arguments(where, overview)),
                "fields": RECORD_FIELDS,
            },
        )
        return Found.of(answer, values)

    async def _named(self, where: ExportFilter, export_ids: frozenset[str]) -> Page:
        statuses = await read_statuses(self._redis, self._keys, sorted(export_ids))
        matching = [status for status in statuses if status is not None and where.matches(status)]
        return Page(sorted(matching, key=lambda status: status.created_at, reverse=True), None, len(matching))


def merged(finds: Sequence[Found], limit: int) -> Found:
    """Returns what was found in several indexes of open exports as if it was found in one.

    An index may have more exports after the position at which its search has stopped. So the result ends at the first
    of these positions.
    """
    last = max((found.next for found in finds if found.next is not None), default=None)
    positions = {each for found in finds for each in found.positions if last is None or each >= last}
    newest_first = sorted(positions, reverse=True)
    most = max(limit, *(len(found.positions) for found in finds))
    totals = [found.total for found in finds]
    total = None if None in totals else sum(count for count in totals if count is not None)
    following = newest_first[most - 1] if len(newest_first) > most else last
    statuses = {position: status for found in finds for position, status in found.statuses.items()}
    return Found(newest_first[:most], following, total, statuses)


def page_of(found: Found, where: ExportFilter, limit: int) -> Page:
    """Returns the page of the exports that match."""
    is_every = where == EVERY_EXPORT
    matching = [
        (position, status)
        for position in found.positions
        if (status := found.statuses[position]) is not None and (is_every or where.matches(status))
    ]
    page = [status for _, status in matching[:limit]]
    positions = [position for position, _ in matching[:limit]]
    following = matching[limit - 1][0] if len(matching) > limit else found.next
    if following is None:
        return Page(page, None, found.total, positions=positions)
    searched_until = following.created_at if len(page) < limit else None
    return Page(page, following.cursor, found.total, searched_until, positions)

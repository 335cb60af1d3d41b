"""The activity: who has changed what through the HTTP API, in one Redis stream."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ConfigDict, ValidationError

from export_producers.reads.joined import JoinedCalls
from export_producers.storage import Storage
from export_worker.contract.model import Model, Timestamp, epoch_ms
from export_worker.errors import FieldProblem, InvalidRequestError

ENTRIES_MAX = 100_000
"""Entries that are kept: some 40 MB in Redis."""
KEPT_MS = 90 * 86_400_000
"""How long entries are kept. Afterwards, names of people are no longer needed to explain an export."""
EXAMINED_MAX = 1000
"""Entries that one page reads: some 300 KB, and 10 ms to parse them. The page then has a cursor."""
CONDITIONS = ("who", "action", "export_id", "connection", "outcome")
"""The fields of an act by which the activity is filtered."""

_CURSOR = re.compile(r"[1-9][0-9]{0,14}-[0-9]{1,10}", re.ASCII)


class Act(Model):
    """One act: who has changed what, and with which result."""

    model_config = ConfigDict(extra="ignore", strict=False)

    who: str
    """The name of the key, or of the user behind the proxy."""
    kind: str
    """What the name is: `key`, `api_key`, `person` or `anonymous`."""
    role: str
    """The role at this moment."""
    address: str | None = None
    """From where the call came."""
    action: str
    """What was requested, such as `enqueue`, `cancel` or `retry`."""
    export_id: str | None = None
    """The export, if the act concerns one."""
    connection: str | None = None
    """The connection, if the act concerns one."""
    outcome: str
    """`done`; `service_unreachable` or `internal_error` if it is not known whether it was done."""
    detail: dict[str, str] = {}
    """What else is known, such as the reason that the caller has given."""

    def meets(self, conditions: Mapping[str, str]) -> bool:
        """Returns whether the act has these values.

        Args:
            conditions: Names of `CONDITIONS` with the values that they must have.
        """
        return all(getattr(self, name) == value for name, value in conditions.items())


class ActivityEntry(Act):
    """One entry of the activity."""

    id: str
    """The id of the entry. Later entries have higher ids."""
    at: Timestamp
    """When it happened."""


@dataclass(frozen=True, slots=True)
class ActivityRange:
    """The part of the activity that a page is taken from.

    Args:
        before: The cursor of the previous page; None for the newest entries.
        since: Only entries of this time or later.
        until: Only entries before this time.
    """

    before: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def highest(self) -> str:
        """The highest id, as XREVRANGE has it."""
        if self.before is not None:
            return f"({self.before}"
        return "+" if self.until is None else f"({_entry_ms(self.until)}-0"

    @property
    def lowest(self) -> str:
        """The lowest id, as XREVRANGE has it."""
        return "-" if self.since is None else f"{_entry_ms(self.since)}-0"


def _entry_ms(moment: datetime) -> int:
    """Returns the part of an id that is a time. Redis has no entry before the epoch, and refuses such ids."""
    return max(1, epoch_ms(moment))


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """One page, newest first.

    Args:
        cursor: For the next page; None if this is the last one.
        missing: The queues whose acts are missing, because their Redis cannot be reached.
    """

    entries: list[ActivityEntry]
    cursor: str | None
    missing: tuple[str, ...] = ()


class ActivityLog:
    """Writes and reads the activity of one namespace."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._redis: Any = storage.client
        self._key = storage.keys.activity
        self._joined = JoinedCalls(self._add)

    async def add(self, act: Act) -> None:
        """Adds an entry and removes old ones, with one round trip. An entry without a successor for 90 days expires.

        Raises:
            ServiceUnreachableError: Redis is unreachable, or refuses the command.
        """
        await self._joined.answer(act.model_dump_json(exclude_none=True))

    async def _add(self, acts: Sequence[str]) -> Sequence[object]:
        async with self._storage.calls(), self._redis.pipeline(transaction=False) as pipe:
            for act in acts:
                pipe.xadd(self._key, {"act": act}, maxlen=ENTRIES_MAX)
            pipe.xtrim(self._key, minid=int(time.time() * 1000) - KEPT_MS, approximate=False)
            pipe.pexpire(self._key, KEPT_MS)
            answers: list[object] = await pipe.execute()
        return answers

    async def page(self, wanted: Callable[[Act], bool], part: ActivityRange, limit: int) -> ActivityPage:
        """Returns the newest entries that are wanted, with one round trip that reads 1,000 entries at most.

        A page can have fewer entries than `limit` and still have a cursor.

        Raises:
            ServiceUnreachableError: Redis is unreachable, or refuses the command.
        """
        async with self._storage.calls():
            read = await self._redis.xrevrange(self._key, part.highest, part.lowest, count=EXAMINED_MAX)
        found = [entry for raw in read if (entry := _entry(*raw)) is not None and wanted(entry)]
        if len(found) > limit:
            return ActivityPage(found[:limit], found[limit - 1].id)
        return ActivityPage(found, read[-1][0].decode() if len(read) == EXAMINED_MAX else None)


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> ActivityEntry | None:
    """Returns an entry; None if it was written by a version whose entries this one cannot read."""
    with suppress(ValidationError, KeyError):
        name = entry_id.decode()
        at = datetime.fromtimestamp(int(name.partition("-")[0]) / 1000, UTC)
        act = Act.model_validate_json(fields[b"act"])
        return ActivityEntry(id=name, at=at, **act.model_dump())
    return None


def checked_cursor(cursor: str) -> str:
    """Returns the cursor of an earlier page.

    Raises:
        InvalidRequestError: It is none.
    """
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidRequestError([FieldProblem("cursor", "must be the cursor of an earlier page")])
    return cursor

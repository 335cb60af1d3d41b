"""Reads the log of ended exports: when each export ended, by hour. `lua/indexes.lua` describes and writes it.

An export that is restarted has an entry for each of its ends. The sweep removes the log of an hour when the retention
of all its exports has passed, and leaves out exports that it has forgotten.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from arq.connections import ArqRedis

from export_worker.contract.redis_keys import HOUR_S, Keys
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script

HOUR_MS = HOUR_S * 1000
ENTRIES_MAX = 1000
"""Entries that one call reads: about a millisecond of Redis's time."""


@dataclass(frozen=True, slots=True)
class EndedEntry:
    """One end of an export.

    Args:
        generation: 1 for the first end of the export, and one more for each retry.
        position: Where the entry is in the log of its hour.
    """

    export_id: str
    ended_ms: int
    generation: int
    position: int = 0

    @property
    def event_id(self) -> str:
        """The id of the completion event of this end."""
        return f"{self.export_id}.{self.generation}"


class EndedLog:
    """The log of one namespace."""

    def __init__(self, redis: ArqRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._read, self._close = (Script(redis, script("indexes", name)) for name in ("read_ended", "close_ended"))

    async def hours(self) -> list[int]:
        """Returns the hours (ms) that have entries, the oldest first."""
        return [int(hour) for hour in await self._redis.zrange(self._keys.ended_hours, 0, -1)]

    async def of_hour(self, hour_ms: int, first: int = 0, limit: int = ENTRIES_MAX) -> list[EndedEntry]:
        """Returns entries of one hour, in their order. The order never changes, and a closed hour gets no more.

        A worker that commits late adds to a later hour than that of the end.

        Args:
            first: The position of the first entry to return.
            limit: Positions that are read. Exports that the sweep has forgotten have no entry.
        """
        answer = await self._read.document(
            [self._keys.ended_log(hour_ms)], {"prefix": self._keys.prefix, "first": first, "limit": limit}
        )
        return [EndedEntry(*fields) for fields in answer.get("entries", ())]

    async def length(self, hour_ms: int) -> int:
        """Returns the number of entries of one hour, with those of forgotten exports."""
        answer = await self._read.document(
            [self._keys.ended_log(hour_ms)], {"prefix": self._keys.prefix, "first": 0, "limit": 0}
        )
        return int(answer["length"])

    async def since(self, from_ms: int) -> AsyncIterator[EndedEntry]:
        """Yields the entries of all exports that ended at a time or later, hour by hour, in the order of the log."""
        for hour_ms in await self.hours():
            if hour_ms + HOUR_MS <= from_ms:
                continue
            for first in range(0, await self.length(hour_ms), ENTRIES_MAX):
                for entry in await self.of_hour(hour_ms, first):
                    if entry.ended_ms >= from_ms:
                        yield entry

    async def close(self, hour_ms: int) -> bool:
        """Ends the log of an hour, and of all before it. Exports that end from now on are added to later hours.

        Returns:
            False while ends of version 0.2 may still be added by the sweep. Nothing was closed then.
        """
        keys = self._keys
        answer = await self._close.word(
            [keys.ended_closed, keys.created, keys.ended], {"prefix": keys.prefix, "hour_ms": hour_ms}
        )
        return answer == "closed"

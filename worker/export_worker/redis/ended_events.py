"""The log of ended exports by hour, as the index of their events has it: an event for each end of each export."""

from dataclasses import dataclass

from arq.connections import ArqRedis

from export_worker.contract.redis_keys import HOUR_S, Keys

HOUR_MS = HOUR_S * 1000


@dataclass(frozen=True, slots=True)
class EndedEntry:
    """One end of an export.

    Args:
        ended_ms: When the export ended (ms since the epoch).
        generation: 1 for the first end of the export, and one more for each retry.
    """

    export_id: str
    ended_ms: int
    generation: int


class EndedEvents:
    """The log of one namespace."""

    def __init__(self, redis: ArqRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def hours(self) -> list[int]:
        """Returns the starts (ms) of the hours from the oldest to the newest end."""
        ends = [
            *await self._redis.zrange(self._keys.events, 0, 0, withscores=True),
            *await self._redis.zrange(self._keys.events, -1, -1, withscores=True),
        ]
        first, *_, last = [int(score) // HOUR_MS for _, score in ends] or [0, -1]
        return [hour * HOUR_MS for hour in range(first, last + 1)]

    async def close(self, hour_ms: int) -> bool:
        """Returns true. A worker that has lost its lease ends no export, so an hour that is long over gets no more."""
        return hour_ms >= 0

    async def length(self, hour_ms: int) -> int:
        """Returns the number of ends in one hour."""
        return int(await self._redis.zcount(self._keys.events, *_bounds(hour_ms)))

    async def of_hour(self, hour_ms: int, first: int, limit: int) -> list[EndedEntry]:
        """Returns ends of one hour, the oldest first."""
        found = await self._redis.zrangebyscore(
            self._keys.events, *_bounds(hour_ms), start=first, num=limit, withscores=True
        )
        return [_entry(member.decode(), int(score)) for member, score in found]


def _bounds(hour_ms: int) -> tuple[str, str]:
    return str(hour_ms), f"({hour_ms + HOUR_MS}"


def _entry(event_id: str, ended_ms: int) -> EndedEntry:
    export_id, _, generation = event_id.partition(".")
    return EndedEntry(export_id, ended_ms, int(generation))

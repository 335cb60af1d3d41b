"""Reads what workers have counted about ended exports, by connection and hour."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from arq.connections import ArqRedis

from export_producers.readable import count_of
from export_producers.reads.overview import NAMES_MAX
from export_producers.reads.stats_document import EndedByPhase, StatsHour
from export_worker.contract.durations import BUCKETS_S, LAST_BUCKET, bucket_of
from export_worker.contract.redis_keys import HOUR_S, Keys

DAYS_MAX = 14
"""Workers keep the counts of so many days."""
HASHES_MAX = 1000
"""Hashes that one round trip reads: some milliseconds, in which Redis serves other clients as well."""
_BUCKETS = (*map(bucket_of, BUCKETS_S), LAST_BUCKET)


class StatsReader:
    """Reads the statistics of one namespace."""

    def __init__(self, redis: ArqRedis, keys: Keys) -> None:
        self._redis: Any = redis
        self._keys = keys

    async def read(
        self, connections: Sequence[str] | None, first: datetime, last: datetime
    ) -> dict[str, list[StatsHour]]:
        """Returns the hours of each connection, with a round trip for each 1,000 hours.

        Args:
            connections: None for all connections that are announced or have exports: one more round trip.
            first: A time in the first hour.
            last: A time in the last hour.
        """
        names = await self._names() if connections is None else connections
        hours = list(hours_between(first, last))
        keys = [self._keys.hour(name, hour) for name in names for hour in hours]
        found = iter(await self._hashes(keys))
        return {name: [_hour(hour, next(found)) for hour in hours] for name in names}

    async def _names(self) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hkeys(self._keys.connections)
            pipe.hkeys(self._keys.codes("connection"))
            announced, stored = await pipe.execute()
        return sorted({name.decode(errors="replace") for name in (*announced, *stored)})[:NAMES_MAX]

    async def _hashes(self, keys: Sequence[str]) -> list[Mapping[bytes, bytes]]:
        found: list[Mapping[bytes, bytes]] = []
        for position in range(0, len(keys), HASHES_MAX):
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in keys[position : position + HASHES_MAX]:
                    pipe.hgetall(key)
                found += await pipe.execute()
        return found


def hours_between(first: datetime, last: datetime) -> Iterator[datetime]:
    """Yields the start of every hour from that of the first time to that of the last one."""
    start_s = int(first.timestamp() // HOUR_S) * HOUR_S
    while start_s <= last.timestamp():
        yield datetime.fromtimestamp(start_s, UTC)
        start_s += HOUR_S


def _hour(start: datetime, fields: Mapping[bytes, bytes]) -> StatsHour:
    counts: dict[str, dict[str, int]] = {"ended": {}, "error": {}, "duration": {}, "bytes": {}}
    for field, count in fields.items():
        group, _, name = field.decode(errors="replace").partition(":")
        if group in counts:
            counts[group][name] = count_of(count)
    return StatsHour(
        start=start,
        ended=EndedByPhase.model_validate(counts["ended"]),
        codes=counts["error"],
        bytes=counts["bytes"].get("", 0),
        durations=[counts["duration"].get(bucket, 0) for bucket in _BUCKETS],
    )


def empty_hours(first: datetime, last: datetime) -> list[StatsHour]:
    """Returns the hours of a connection of which nothing was counted. Pure."""
    return [_hour(hour, {}) for hour in hours_between(first, last)]


def summed(series: Sequence[Sequence[StatsHour]]) -> list[StatsHour]:
    """Returns the sums of several connections, hour by hour. All must have the same hours. Pure."""
    return [_sum(hours) for hours in zip(*series, strict=True)]


def _sum(hours: Sequence[StatsHour]) -> StatsHour:
    ended: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    for hour in hours:
        ended.update(hour.ended.model_dump())
        codes.update(hour.codes)
    return StatsHour(
        start=hours[0].start,
        ended=EndedByPhase.model_validate(ended),
        codes=dict(codes),
        bytes=sum(hour.bytes for hour in hours),
        durations=[sum(counts) for counts in zip(*(hour.durations for hour in hours), strict=True)],
    )


def too_long(first: datetime, last: datetime) -> bool:
    """Returns whether a period is longer than workers keep counts."""
    return last - first > timedelta(days=DAYS_MAX)

"""`Reads`: what can be read about all exports together."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from arq.connections import ArqRedis

from export_producers.reads.changes import ChangeReader
from export_producers.reads.connection import ConnectionFacts, read_connection
from export_producers.reads.overview import OverviewReader
from export_producers.reads.overview_document import Overview
from export_producers.reads.stats import StatsReader
from export_producers.reads.stats_document import StatsHour
from export_producers.reads.workers import WorkerState, read_workers
from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import translate_redis_errors


class Reads:
    """Reads what concerns no single export. An `ExportQueue` has it as `reads`.

    Args:
        url: The address of Redis, for error messages.
        now: Returns the time that all processes use.

    Every method raises `ServiceUnreachableError` if Redis is unreachable or refuses a command.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, url: str, now: Callable[[], Awaitable[datetime]]) -> None:
        self._url = url
        self._now = now
        self._redis, self._keys = redis, keys
        self._overview = OverviewReader(redis, keys)
        self._stats = StatsReader(redis, keys)
        self.changes = ChangeReader(redis, keys, url)
        """Reads which exports have changed."""

    async def overview(self) -> Overview:
        """Returns the state of exports, connections, queue, workers, sinks, triggers and Redis, in one round trip."""
        now = await self._now()
        async with translate_redis_errors(self._url):
            return await self._overview.read(now)

    async def connection(self, name: str, kinds: Sequence[str]) -> ConnectionFacts:
        """Returns what the overview does not have of a connection, in one round trip.

        Args:
            kinds: The kinds whose durations are read.
        """
        now = await self._now()
        async with translate_redis_errors(self._url):
            return await read_connection(self._redis, self._keys, name, kinds, now)

    async def workers(self) -> list[WorkerState]:
        """Returns the workers that run with the steps that they run, in two round trips."""
        async with translate_redis_errors(self._url):
            return await read_workers(self._redis, self._keys)

    async def stats(
        self, connections: Sequence[str] | None, first: datetime, last: datetime
    ) -> dict[str, list[StatsHour]]:
        """Returns what ended in each hour by connection, with a round trip for each 1,000 hours of all connections.

        Args:
            connections: None for all connections, which costs one more round trip.
            first: A time in the first hour.
            last: A time in the last hour.
        """
        async with translate_redis_errors(self._url):
            return await self._stats.read(connections, first, last)

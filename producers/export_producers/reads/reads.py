"""`Reads`: what can be read about all exports together."""

from collections.abc import Sequence
from datetime import datetime

from export_producers.reads.changes import ChangeReader
from export_producers.reads.connection import ConnectionFacts, read_connection
from export_producers.reads.overview import OverviewReader
from export_producers.reads.overview_document import Overview, WorkerState
from export_producers.reads.stats import StatsReader
from export_producers.reads.stats_document import StatsHour
from export_producers.reads.workers import read_workers
from export_producers.storage import Storage


class Reads:
    """Reads what concerns no single export. An `ExportQueue` has it as `reads`.

    Every method raises `ServiceUnreachableError` if Redis is unreachable or refuses a command.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._overview = OverviewReader(storage.client, storage.keys)
        self._stats = StatsReader(storage.client, storage.keys)
        self.changes = ChangeReader(storage)
        """Reads which exports have changed."""

    async def overview(self) -> Overview:
        """Returns the state of exports, connections, queue, workers, sinks, triggers and Redis, in one round trip."""
        now = await self._storage.now()
        async with self._storage.calls():
            return await self._overview.read(now)

    async def connections(self) -> dict[str, str]:
        """Returns connection → platform: the connections that workers have announced. Needs one round trip."""
        async with self._storage.calls() as redis:
            announced = await redis.hgetall(self._storage.keys.connections)
        return {name.decode(): platform.decode() for name, platform in announced.items()}

    async def connection(self, name: str, kinds: Sequence[str]) -> ConnectionFacts:
        """Returns what the overview does not have of a connection, in one round trip.

        Args:
            kinds: The kinds whose durations are read.
        """
        now = await self._storage.now()
        async with self._storage.calls():
            return await read_connection(self._storage.client, self._storage.keys, name, kinds, now)

    async def workers(self) -> list[WorkerState]:
        """Returns the workers that run with the steps that they run, in two round trips."""
        async with self._storage.calls():
            return await read_workers(self._storage.client, self._storage.keys)

    async def stats(
        self, connections: Sequence[str] | None, first: datetime, last: datetime
    ) -> dict[str, list[StatsHour]]:
        """Returns what ended in each hour by connection, with a round trip for each 1,000 hours of all connections.

        Args:
            connections: None for all connections, which costs one more round trip.
            first: A time in the first hour.
            last: A time in the last hour.
        """
        async with self._storage.calls():
            return await self._stats.read(connections, first, last)

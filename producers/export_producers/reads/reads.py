"""`Reads`: what can be read about all exports together."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from arq.connections import ArqRedis

from export_producers.reads.overview import OverviewReader
from export_producers.reads.overview_document import Overview
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
        self._overview = OverviewReader(redis, keys)

    async def overview(self) -> Overview:
        """Returns the state of exports, connections, queue, workers, sinks, triggers and Redis, in one round trip."""
        now = await self._now()
        async with translate_redis_errors(self._url):
            return await self._overview.read(now)

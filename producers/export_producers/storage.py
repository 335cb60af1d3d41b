"""Where the queue stores its exports, for what is stored beside them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from arq.connections import ArqRedis

from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import Commands, commands, translate_redis_errors


@dataclass(frozen=True, slots=True)
class Storage:
    """One namespace in Redis.

    Args:
        client: The client of the queue.
        url: The address of Redis, for errors. It may hold a password.
    """

    client: ArqRedis
    keys: Keys
    url: str

    @asynccontextmanager
    async def calls(self) -> AsyncIterator[Commands]:
        """Yields the commands of Redis, and translates the errors of one call.

        Raises:
            ServiceUnreachableError: Redis cannot be reached or refuses a command.
        """
        async with translate_redis_errors(self.url):
            yield commands(self.client)

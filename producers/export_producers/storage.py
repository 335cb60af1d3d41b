"""Where the queue stores its exports, for what is stored beside them."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from arq.connections import ArqRedis

from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import Commands, commands, translate_redis_errors
from export_worker.redis.clock import SharedClock, set_clock

CLOCK_SYNC_S = 60.0
"""Time between two synchronizations of the clock. A host's clock drifts by less than 1 ms in this time."""


@dataclass(slots=True)
class Clock:
    """The time that all processes use, as far as this process knows it.

    Args:
        next_sync_s: When it is set again, on the monotonic clock.
    """

    time: SharedClock = field(default_factory=SharedClock)
    next_sync_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Storage:
    """One namespace in Redis.

    Args:
        client: The client of the queue.
        url: The address of Redis, for errors. It may hold a password.
        clock: See `now`.
    """

    client: ArqRedis
    keys: Keys
    url: str
    clock: Clock = field(default_factory=Clock, compare=False)

    @asynccontextmanager
    async def calls(self) -> AsyncIterator[Commands]:
        """Yields the commands of Redis, and translates the errors of one call.

        Raises:
            ServiceUnreachableError: Redis cannot be reached or refuses a command.
        """
        async with translate_redis_errors(self.url):
            yield commands(self.client)

    async def now(self) -> datetime:
        """Returns the time that all processes use, with one round trip a minute at most. See `SharedClock`.

        Raises:
            ServiceUnreachableError: Redis cannot be reached or refuses a command.
        """
        now_s = time.monotonic()
        if now_s >= self.clock.next_sync_s:
            async with translate_redis_errors(self.url):
                await set_clock(self.clock.time, self.client, self.keys)
            self.clock.next_sync_s = now_s + CLOCK_SYNC_S
        return self.clock.time()

"""Opens the replay for the command `events`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from export_worker.config import Config
from export_worker.contract.redis_keys import Keys
from export_worker.redis.replay import Replay
from export_worker.wiring.redis import open_command_redis


@asynccontextmanager
async def open_replay(config: Config, sinks: Sequence[str]) -> AsyncIterator[Replay]:
    """Opens the replay of stored events to these sinks.

    Raises:
        ServiceUnreachableError: Redis cannot be reached, at the start or within the block.
    """
    async with open_command_redis(config) as redis:
        yield Replay(redis, Keys(config.namespace), sinks)

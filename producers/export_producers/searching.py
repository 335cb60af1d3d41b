"""Sets by which metadata exports are indexed."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from export_producers.storage import Storage
from export_worker.contract.model import epoch_ms

CLOCK_SKEW = timedelta(seconds=5)
"""How far the clock of a producer, whose export was not indexed, may be ahead."""


async def index_metadata(storage: Storage, names: Sequence[str], now: datetime) -> None:
    """Makes producers index the exports that they accept from now on by the values of this metadata, and of no other.

    Needs two round trips. Names that are indexed already keep their index.

    Args:
        names: The names of the setting `gateway.search_metadata`. All gateways must have the same ones.

    Raises:
        ServiceUnreachableError: Redis cannot be reached or refuses a command.
    """
    key, complete_from = storage.keys.search_metadata, epoch_ms(now + CLOCK_SKEW)
    async with storage.calls() as redis:
        known = {name.decode() for name in await redis.zrevrange(key, 0, -1)}
        async with storage.client.pipeline(transaction=True) as pipe:
            for name in known.difference(names):
                pipe.zrem(key, name)
            for name in names:
                pipe.zadd(key, {name: complete_from}, nx=True)
            await pipe.execute()

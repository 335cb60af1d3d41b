"""The time that all processes use, for callers that need it once."""

from datetime import datetime

from export_producers.storage import Storage
from export_worker.redis.clock import SharedClock, set_clock


async def shared_now(storage: Storage) -> datetime:
    """Returns the time of this moment, after one round trip. See `SharedClock`.

    Raises:
        ServiceUnreachableError: Redis cannot be reached or refuses a command.
    """
    clock = SharedClock()
    async with storage.calls():
        await set_clock(clock, storage.client, storage.keys)
    return clock()

"""A lock for work that one worker does for all: it is held for a fixed time and ends by itself."""

from datetime import datetime

from arq.connections import ArqRedis

from export_worker.contract.model import epoch_ms
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script


class TimedLock:
    """One lock.

    Args:
        key: Its key in Redis.
        owner: The name of this worker.
        hold_s: For this time no other worker can take it, and neither can this one.
    """

    def __init__(self, redis: ArqRedis, key: str, owner: str, hold_s: float) -> None:
        self._script = Script(redis, script("lock"))
        self._key = key
        self._owner = owner
        self._hold_ms = int(hold_s * 1000)

    async def take(self, now: datetime) -> bool:
        """Takes the lock. Returns false if it is held."""
        arguments = {"now_ms": epoch_ms(now), "hold_ms": self._hold_ms, "owner": self._owner}
        return await self._script.word([self._key], arguments) == "taken"

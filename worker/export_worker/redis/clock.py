"""One clock for all processes, that of their Redis: hosts whose clocks differ agree on when something is due."""

import time
from datetime import UTC, datetime

from arq.connections import ArqRedis

from export_worker.redis.client import commands

ROUND_TRIP_MAX_S = 1.0
"""The clock ignores an answer that took longer: Redis may have read its clock at any moment of that time."""


class SharedClock:
    """The time of Redis as far as this process knows it. Before the first answer it is the time of the host.

    Between two answers it follows the monotonic clock, which no administrator can set.
    """

    def __init__(self) -> None:
        self._zero_s = time.time() - time.monotonic()

    def __call__(self) -> datetime:
        """Returns the time now, in UTC."""
        return datetime.fromtimestamp(self._zero_s + time.monotonic(), UTC)

    def synchronize(self, redis_ms: int, asked_s: float) -> None:
        """Sets the clock by an answer of Redis that has just arrived.

        Args:
            redis_ms: The time of Redis in the answer, milliseconds since the epoch.
            asked_s: When the question was sent, on the monotonic clock.
        """
        took_s = time.monotonic() - asked_s
        zero_s = redis_ms / 1000 - (asked_s + took_s / 2)
        # A difference below the uncertainty of the answer is no reason to change the clock.
        if took_s <= ROUND_TRIP_MAX_S and abs(zero_s - self._zero_s) > took_s / 2 + 0.001:
            self._zero_s = zero_s


async def set_clock(clock: SharedClock, redis: ArqRedis) -> None:
    """Sets the clock by the time of Redis."""
    asked_s = time.monotonic()
    seconds, microseconds = await commands(redis).time()
    clock.synchronize(seconds * 1000 + microseconds // 1000, asked_s)

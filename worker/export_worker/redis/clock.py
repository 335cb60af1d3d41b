"""One clock for all processes, that of their Redis: hosts whose clocks differ agree on when something is due."""

import time
from datetime import UTC, datetime

from arq.connections import ArqRedis

from export_worker.redis.client import commands

GOOD_ANSWER_S = 1.0
"""An answer that took longer says little: Redis read its clock anywhere within that time."""


class SharedClock:
    """Redis's time, as far as this process has heard of it; its own until then.

    Between two words from Redis it goes by the monotonic clock, which nobody sets.
    """

    def __init__(self) -> None:
        self._zero_s = time.time() - time.monotonic()

    def __call__(self) -> datetime:
        """The time now, in UTC."""
        return datetime.fromtimestamp(self._zero_s + time.monotonic(), UTC)

    def heard(self, redis_ms: int, asked_s: float) -> None:
        """Be set by an answer that has just come.

        Args:
            redis_ms: Redis's time in the answer, milliseconds since the epoch.
            asked_s: When it was asked, on the monotonic clock.
        """
        took_s = time.monotonic() - asked_s
        told_s = redis_ms / 1000 - (asked_s + took_s / 2)
        # Within what the answer leaves open the clock keeps its pace, and does not jump by the network's moods.
        if took_s <= GOOD_ANSWER_S and abs(told_s - self._zero_s) > took_s / 2 + 0.001:
            self._zero_s = told_s


async def set_clock(clock: SharedClock, redis: ArqRedis) -> None:
    """Ask Redis for its time."""
    asked_s = time.monotonic()
    seconds, microseconds = await commands(redis).time()
    clock.heard(seconds * 1000 + microseconds // 1000, asked_s)

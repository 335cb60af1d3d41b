"""One clock for all processes: hosts whose clocks differ agree on when something is due.

It is the clock of Redis plus an offset, which every claim updates (`lua/clock.lua`). When the clock of Redis is set
back by an hour, the offset becomes an hour larger. So the time never goes back, and what is due does not wait for an
hour. The offset then becomes smaller by 5% of the time that passes, until the time is that of Redis again.
"""

import time
from datetime import UTC, datetime

from arq.connections import ArqRedis

from export_worker.contract.redis_keys import Keys

ROUND_TRIP_MAX_S = 1.0
"""The clock ignores an answer that took longer: Redis may have read its clock at any moment of that time."""


class SharedClock:
    """The time of all processes as far as this process knows it. Before the first answer it is the time of the host.

    Between two answers it follows the monotonic clock, which no administrator can set.
    """

    def __init__(self) -> None:
        self._zero_s = time.time() - time.monotonic()

    def __call__(self) -> datetime:
        """Returns the time now, in UTC."""
        return datetime.fromtimestamp(self._zero_s + time.monotonic(), UTC)

    def synchronize(self, time_ms: int, asked_s: float) -> None:
        """Sets the clock by an answer of Redis that has just arrived.

        Args:
            time_ms: The time in the answer, milliseconds since the epoch.
            asked_s: When the question was sent, on the monotonic clock.
        """
        took_s = time.monotonic() - asked_s
        zero_s = time_ms / 1000 - (asked_s + took_s / 2)
        # A difference below the uncertainty of the answer is no reason to change the clock.
        if took_s <= ROUND_TRIP_MAX_S and abs(zero_s - self._zero_s) > took_s / 2 + 0.001:
            self._zero_s = zero_s


async def set_clock(clock: SharedClock, redis: ArqRedis, keys: Keys) -> None:
    """Sets the clock by the time of Redis and the offset of the last claim."""
    asked_s = time.monotonic()
    async with redis.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.hmget(keys.clock, ["seen", "offset"])
        (seconds, microseconds), (seen_ms, offset_ms) = await pipe.execute()
    redis_ms = seconds * 1000 + microseconds // 1000
    # If the clock was set back and no worker has claimed since, the next claim will make the offset larger by this.
    set_back_ms = max(0, int(seen_ms or 0) - redis_ms)
    clock.synchronize(redis_ms + set_back_ms + int(float(offset_ms or 0)), asked_s)

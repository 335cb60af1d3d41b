"""Limits the requests to one connection's platform, over all workers: each request waits until the rate has room.

The claim of a control step counts the step's first request in its own script, so a step with one request costs no
further call to Redis. Every other request, and every request of a transfer, is counted by a script over the same key.

A request never reserves a later moment. If the rate has no room, the request sleeps and tries again. Reservations of
many transfers would reach so far ahead that no claim ever found room. They would also be used during a pause that the
platform asked for later. To keep the number of calls to Redis small, the waiting requests of one worker form a row, and
only the first one calls Redis.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_worker.contract.model import epoch_ms
from export_worker.errors import PlatformPausedError
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script
from export_worker.step_context import RequestGate

CONTROL_WAIT_MAX_S = 15.0
"""A control step that would wait longer for one request ends, so that its worker can run other steps. Only a pause is
this long, or the interval of a rate of a few requests a minute. With such a rate a step may wait for two intervals:
otherwise a step with several requests would never end."""
REDIS_TIMEOUT_S = 2.0
"""For one call to Redis: a request must not wait for all retries of a client whose Redis is unreachable."""

_log = structlog.get_logger(__name__)


class Rate:
    """The rate limit of one connection, as one worker observes it.

    No step fails because Redis is unreachable. Until Redis is back, each worker observes the rate on its own.

    Args:
        connection: Its name, for messages.
        key: The rate's key; see `Keys.rate`.
        per_second: Requests for each second. A burst of one second's requests is allowed.
        clock: The time, with a zone; the same clock as for claims.
    """

    def __init__(
        self, redis: ArqRedis, connection: str, key: str, per_second: float, clock: Callable[[], datetime]
    ) -> None:
        self._script = Script(redis, script("rate_limit"))
        self._connection = connection
        self._key = key
        self._interval_s = 1.0 / per_second
        self._control_wait_max_s = max(CONTROL_WAIT_MAX_S, 2 * self._interval_s)
        self._clock = clock
        # Two rows, so that a transfer that waits for the end of a pause does not delay control steps.
        self._control, self._transfers = asyncio.Lock(), asyncio.Lock()
        self._redis_is_unreachable = False

    def for_control(self, counted: int) -> RequestGate:
        """Returns the gate for the requests of one control step.

        Args:
            counted: How many of the first requests the step's claim has counted.

        The gate raises `PlatformPausedError` if a request would wait too long.
        """
        left = counted

        async def request_gate() -> None:
            nonlocal left
            if left > 0:
                left -= 1
            else:
                await self._wait(self._control, self._control_wait_max_s)

        return request_gate

    def for_transfer(self, counted: int = 0) -> RequestGate:
        """Returns the gate for the requests of one transfer. They wait without a limit.

        Args:
            counted: How many of the first requests the step's claim has counted.
        """
        left = counted

        async def request_gate() -> None:
            nonlocal left
            if left > 0:
                left -= 1
            else:
                await self._wait(self._transfers, float("inf"))

        return request_gate

    async def _wait(self, row: asyncio.Lock, wait_max_s: float) -> None:
        async with row:
            while (wait_s := await self._count_request()) > 0:
                if wait_s > wait_max_s:
                    raise PlatformPausedError(
                        f"connection {self._connection} is paused: its rate limit allows the next request in "
                        f"{wait_s:.1f} s",
                        retry_after_s=wait_s,
                    )
                await asyncio.sleep(wait_s)

    async def _count_request(self) -> float:
        """Counts one request if the rate has room for it.

        Returns:
            0 if the request was counted, else the seconds until there may be room.
        """
        arguments = {"now_ms": epoch_ms(self._clock()), "interval_ms": self._interval_s * 1000}
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                answer = await self._script.document([self._key], arguments)
        except (RedisError, OSError) as error:
            if not self._redis_is_unreachable:
                _log.warning("rate.not_counted", connection=self._connection, error=str(error))
            self._redis_is_unreachable = True
            await asyncio.sleep(self._interval_s)
            return 0.0
        self._redis_is_unreachable = False
        return int(answer["wait_ms"]) / 1000

"""How often one connection's platform is asked, over all workers: each request waits until the rate has room for it.

The claim of a control step counts the step's first request in its own script, so a step with one request costs no call
to Redis more. Each further one, and each of a transfer, asks here, by a script over the same key.

Nothing is reserved: who finds no room sleeps and asks again. Reservations of many transfers would reach so far ahead
that no claim ever found room, and would go out in the middle of a pause that the platform asked for later. So that few
ask in vain, those of one worker wait in a row of which only the first asks.
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
from export_worker.step_context import RequestGate

PATIENCE_S = 15.0
"""A control step that would wait longer for one request gives its place to others. So long only a pause lasts, or a
rate of a few requests a minute, for which it is two of its intervals: a step of several requests must get through."""
ASK_S = 2.0
"""For Redis to answer: a request is not to wait for one that is away, however often its client would try."""

_log = structlog.get_logger(__name__)


class Rate:
    """The rate of one connection, as one worker keeps to it.

    A Redis that is away fails no step: until it is back, each worker keeps to the rate by itself.

    Args:
        connection: Its name, for messages.
        key: Where the rate is kept; see `Keys.rate`.
        per_second: Requests, with one second's worth at once.
        clock: The time, with a zone; the same as for claims.
    """

    def __init__(
        self, redis: ArqRedis, connection: str, key: str, per_second: float, clock: Callable[[], datetime]
    ) -> None:
        self._script = redis.register_script(script("rate"))
        self._connection = connection
        self._key = key
        self._interval_s = 1.0 / per_second
        self._patience_s = max(PATIENCE_S, 2 * self._interval_s)
        self._clock = clock
        # Apart, or a transfer that sits out a pause would hold up steps that are to give way.
        self._control, self._transfers = asyncio.Lock(), asyncio.Lock()
        self._away = False

    def for_control(self, counted: int) -> RequestGate:
        """What the requests of one control step wait for.

        Args:
            counted: The first so many have been counted by its claim.
        """
        left = counted

        async def request_gate() -> None:
            nonlocal left
            if left > 0:
                left -= 1
            else:
                await self._wait(self._control, self._patience_s)

        return request_gate

    def for_transfer(self) -> RequestGate:
        """What the requests of one transfer wait for, however long it takes."""

        async def request_gate() -> None:
            await self._wait(self._transfers, float("inf"))

        return request_gate

    async def _wait(self, row: asyncio.Lock, patience_s: float) -> None:
        async with row:
            while (wait_s := await self._ask()) > 0:
                if wait_s > patience_s:
                    raise PlatformPausedError(
                        f"connection {self._connection} is not to be asked for {wait_s:.1f} s", retry_after_s=wait_s
                    )
                await asyncio.sleep(wait_s)

    async def _ask(self) -> float:
        """Seconds until there may be room; 0 when there was, and one more request is counted."""
        now_ms = epoch_ms(self._clock())
        try:
            async with asyncio.timeout(ASK_S):
                wait_ms = await self._script(keys=[self._key], args=[now_ms, self._interval_s * 1000])
        except (RedisError, OSError) as error:
            if not self._away:
                _log.warning("rate.not_counted", connection=self._connection, error=str(error))
            self._away = True
            await asyncio.sleep(self._interval_s)
            return 0.0
        self._away = False
        return int(wait_ms) / 1000

"""Whether this worker lives and can work: its record in Redis, and the pages that Kubernetes and Prometheus ask for.

`/healthz` answers as long as the loop turns. `/readyz` is green while Redis takes this worker's record (so it is
reached, writable, and answers in time) and while its claims are let through. `/metrics` has the process's numbers and
the queue's.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Protocol

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.worker_record import WorkerRecord
from export_worker.telemetry.metrics import Metrics
from export_worker.telemetry.queue_stats import ALIVE_S, QueueSnapshot, QueueStats

BEAT_S = 2.0
"""Between records: readiness is as old as this at most."""
REDIS_PATIENCE_S = 2.0
"""A Redis that takes longer for one small write hangs; the clients of the steps wait longer, since they may."""
SILENCE_MAX_S = 3 * (BEAT_S + REDIS_PATIENCE_S)
"""Without a good write for so long the worker is not ready, whatever the last one said."""

_log = structlog.get_logger(__name__)


class Claiming(Protocol):
    """What takes steps of one role."""

    role: Role
    healthy: bool
    """Whether its last claim was let through."""

    @property
    def running(self) -> int:
        """Steps that it runs now."""


class Health:
    """Keeps one worker's record in Redis, and knows what to answer.

    Args:
        redis: A client of its own without repetitions: a call that hangs must not wait behind the steps' calls.
        owner: The worker's name.
        clock: The time, with a zone.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        owner: str,
        *,
        gauges: QueueStats,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = redis
        self._keys = keys
        self._owner = owner
        self._gauges = gauges
        self._metrics = metrics
        self._clock = clock
        self._started_at = clock()
        self._version = version("export-worker")
        self._claiming: Sequence[Claiming] = ()
        self._problem: str | None = "it has not been written to yet"
        self._written_s = time.monotonic()

    def watch(self, claiming: Sequence[Claiming]) -> None:
        """Tell of these from now on."""
        self._claiming = claiming

    def problems(self) -> dict[str, str]:
        """What keeps the worker from working, by part; empty when nothing does."""
        found = {f"claims.{each.role}": "Redis refuses them" for each in self._claiming if not each.healthy}
        if self._problem is not None:
            found["redis"] = self._problem
        elif (silent_s := time.monotonic() - self._written_s) > SILENCE_MAX_S:
            found["redis"] = f"no write for {silent_s:.0f} s"
        return found

    async def run(self) -> None:
        """Write the record again and again, until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(BEAT_S)

    async def beat(self) -> None:
        """Write the record once. A Redis that does not take it makes the worker unready, and ends nothing."""
        try:
            async with asyncio.timeout(REDIS_PATIENCE_S):
                await self._write()
        except (RedisError, OSError) as error:
            if self._problem is None:
                _log.warning("worker.unready", error=str(error) or type(error).__name__)
            self._problem = _told(error)
            return
        self._problem, self._written_s = None, time.monotonic()

    async def _write(self) -> None:
        now = self._clock()
        record = WorkerRecord(
            owner=self._owner,
            version=self._version,
            started_at=self._started_at,
            seen_at=now,
            running={each.role: each.running for each in self._claiming},
        )
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.set(self._keys.worker(self._owner), record.model_dump_json(), px=int(ALIVE_S * 1000))
            pipe.zadd(self._keys.workers, {self._owner: epoch_ms(now)})
            pipe.zremrangebyscore(self._keys.workers, "-inf", epoch_ms(now - timedelta(seconds=ALIVE_S)))
            await pipe.execute()

    async def leave(self) -> None:
        """Take the record away: the worker ends on purpose."""
        try:
            async with asyncio.timeout(REDIS_PATIENCE_S):
                async with self._client.pipeline(transaction=True) as pipe:
                    pipe.zrem(self._keys.workers, self._owner)
                    pipe.delete(self._keys.worker(self._owner))
                    await pipe.execute()
        except (RedisError, OSError) as error:
            _log.debug("worker.record_left", error=str(error))

    async def metrics(self) -> bytes:
        """What Prometheus gets; without the queue's numbers while Redis is away."""
        return await self._metrics.text(await self._reading())

    async def _reading(self) -> QueueSnapshot | None:
        try:
            async with asyncio.timeout(REDIS_PATIENCE_S):
                return await self._gauges.read(self._clock())
        except (RedisError, OSError):
            return None


def _told(error: Exception) -> str:
    """One short reason; redis-py's own words name the host, which is no secret, and no password."""
    return "it does not answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__

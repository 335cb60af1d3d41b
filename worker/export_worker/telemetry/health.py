"""The health of one worker: its record in Redis, and the content of the pages for Kubernetes and Prometheus.

`/healthz` answers while the event loop runs. `/readyz` answers 200 while Redis stores the worker's record in time and
permits the worker's claims, and the worker can use its stores. `/metrics` has the metrics of the process and of the
queue.
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
from export_worker.contract.worker_record import STEPS_MAX, RunningStep, WorkerRecord
from export_worker.telemetry.metrics import Metrics
from export_worker.telemetry.queue_stats import ALIVE_S, QueueSnapshot, QueueStats

RECORD_INTERVAL_S = 2.0
"""Wait between writes of the record. The state that `/readyz` reports is at most this old."""
REDIS_TIMEOUT_S = 2.0
"""For one small write or one scrape. Steps wait longer for Redis, because they can retry."""
RECORD_AGE_MAX_S = 3 * (RECORD_INTERVAL_S + REDIS_TIMEOUT_S)
"""The worker is not ready when its last successful write is older: then even the heartbeat itself hangs."""

_log = structlog.get_logger(__name__)


class Claiming(Protocol):
    """A loop that claims steps for one role."""

    role: Role
    healthy: bool
    """Whether Redis permitted the last claim."""

    @property
    def running(self) -> int:
        """Returns the number of steps that run now."""

    @property
    def steps(self) -> Sequence[RunningStep]:
        """Returns these steps, with those that run for longest first."""


class Leases(Protocol):
    """The leases of a worker's steps."""

    lost_count: int
    """Steps that other workers have taken over since the start."""


class Stores(Protocol):
    """The stores of a worker."""

    def problems(self) -> dict[str, str]:
        """Returns why stores cannot be used, by section of the settings."""

    def connection_problems(self) -> dict[str, str]:
        """Returns the same by connection."""


class Health:
    """Writes one worker's record to Redis, and answers the health pages.

    Args:
        redis: A separate client without retries: the calls here must not wait behind the calls of steps.
        owner: The worker's name.
        clock: Returns the current time with its time zone.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        owner: str,
        *,
        queue_stats: QueueStats,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = redis
        self._keys = keys
        self._owner = owner
        self._queue_stats = queue_stats
        self._metrics = metrics
        self._clock = clock
        self._started_at = clock()
        self._version = version("export-worker")
        self._claiming: Sequence[Claiming] = ()
        self._stores: Stores | None = None
        self._leases: Leases | None = None
        self._problem: str | None = "the worker has not written its record yet"
        self._written_at_s = time.monotonic()

    def watch(self, claiming: Sequence[Claiming], leases: Leases, stores: Stores | None = None) -> None:
        """Sets the loops whose steps and claims are reported, and the stores if the worker runs transfers."""
        self._claiming = claiming
        self._leases = leases
        self._stores = stores

    def problems(self) -> dict[str, str]:
        """Returns the reasons why the worker is not ready, by part; empty when it is ready."""
        found = {f"claims.{each.role}": "Redis refuses them" for each in self._claiming if not each.healthy}
        if self._stores is not None:
            found |= self._stores.problems()
        if self._problem is not None:
            found["redis"] = self._problem
        elif (age_s := time.monotonic() - self._written_at_s) > RECORD_AGE_MAX_S:
            found["redis"] = f"no write for {age_s:.0f} s"
        return found

    async def run(self) -> None:
        """Writes the record at intervals until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(RECORD_INTERVAL_S)

    async def beat(self) -> None:
        """Writes the record once. If Redis does not store it, the worker is not ready, but continues to work."""
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                await self._write()
        except (RedisError, OSError) as error:
            if self._problem is None:
                _log.warning("worker.unready", error=str(error) or type(error).__name__)
            self._problem = _reason(error)
            return
        self._problem, self._written_at_s = None, time.monotonic()

    async def _write(self) -> None:
        now = self._clock()
        record = WorkerRecord(
            owner=self._owner,
            version=self._version,
            started_at=self._started_at,
            seen_at=now,
            running={each.role: each.running for each in self._claiming},
            store_problems={} if self._stores is None else self._stores.connection_problems(),
            exports=[step for each in self._claiming for step in each.steps][:STEPS_MAX],
            leases_lost=None if self._leases is None else self._leases.lost_count,
        )
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.set(self._keys.worker(self._owner), record.model_dump_json(), px=int(ALIVE_S * 1000))
            pipe.zadd(self._keys.workers, {self._owner: epoch_ms(now)})
            pipe.zremrangebyscore(self._keys.workers, "-inf", epoch_ms(now - timedelta(seconds=ALIVE_S)))
            await pipe.execute()

    async def leave(self) -> None:
        """Removes the record, when the worker stops in a regular way."""
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                async with self._client.pipeline(transaction=True) as pipe:
                    pipe.zrem(self._keys.workers, self._owner)
                    pipe.delete(self._keys.worker(self._owner))
                    await pipe.execute()
        except (RedisError, OSError) as error:
            _log.debug("worker.record_left", error=str(error))

    async def metrics(self) -> bytes:
        """Returns the page for Prometheus, without the queue's metrics while Redis is unreachable."""
        return await self._metrics.text(await self._snapshot(), writable="redis" not in self.problems())

    async def _snapshot(self) -> QueueSnapshot | None:
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                return await self._queue_stats.read(self._clock())
        except (RedisError, OSError):
            return None


def _reason(error: Exception) -> str:
    """Returns a short reason. The messages of redis-py name the host, but never the password."""
    return "Redis does not answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__

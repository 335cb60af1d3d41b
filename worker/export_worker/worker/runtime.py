"""A worker process: runs all its loops together, and stops them in order."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog
from redis.exceptions import RedisError

from export_worker.config import Config
from export_worker.contract.redis_keys import Role
from export_worker.errors import ConfigError
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.client import commands, wait_for_redis
from export_worker.redis.clock import SharedClock, set_clock
from export_worker.redis.failures import outage_event, redis_failure
from export_worker.redis.sweeper import Sweeper
from export_worker.sinks.dispatcher import EventDispatcher
from export_worker.telemetry.health import Health
from export_worker.telemetry.health_pages import pages_served
from export_worker.worker.burst import Burst
from export_worker.worker.claim_loop import ClaimLoop
from export_worker.worker.step_queue import StepQueue
from export_worker.worker.step_runner import StepRunner

REDIS_RETRY_S = 1.0
"""Between attempts while Redis is unreachable."""
ARCHIVE_S = 60.0
"""Between attempts to archive. An hour is archived by the first worker that finds it due."""
BATCH_POLL_S = 1.0
"""Between reads of the batches that have ended: the longest delay of the event of a batch. A read for each export that
ends would cost more than all batches."""
UPLOAD_SWEEP_S = 300.0
"""Between attempts to sweep uploads that are left in S3. One attempt in an hour, of any worker, does it."""


_log = structlog.get_logger(__name__)


class UploadSweeping(Protocol):
    """Sweeps uploads: `UploadSweeper`, which imports boto3."""

    async def sweep(self, now: datetime) -> object:
        """See `UploadSweeper`."""


class Archive(Protocol):
    """Archives the hours that are over."""

    async def run(self, now: datetime) -> object:
        """Archives what is due, unless another worker does."""


class BatchFinishing(Protocol):
    """Ends batches: writes their manifests, and adds their events to the outboxes."""

    async def run(self, now: datetime) -> bool:
        """Ends one batch, if one is due. Returns whether an event was added."""


class Schedules(Protocol):
    """Fires schedules: `Scheduler`, whose package for cron expressions few workers need."""

    async def run_once(self) -> None:
        """Fires what is due, and sleeps until something is due again."""


@dataclass(frozen=True, slots=True)
class StoreSweepers:
    """What a worker with the role `transfer` does in S3 beside its steps.

    Args:
        uploads: Aborts multipart uploads that are left in S3; None if that is switched off.
        archive: Archives ended exports; None without an archive.
        batches: Ends batches.
    """

    uploads: UploadSweeping | None = None
    archive: Archive | None = None
    batches: BatchFinishing | None = None


@dataclass(frozen=True, slots=True)
class Sweepers:
    """What is done at intervals, by one worker for all.

    Args:
        records: Restores queue entries that were lost, and forgets expired exports.
        in_store: What is done in S3. Empty without the role `transfer`.
        schedules: Fires the schedules; None without any, and without the role `control`.
    """

    records: Sweeper
    in_store: StoreSweepers
    schedules: Schedules | None = None


class Runtime:
    """One worker process. `wiring.worker.open_runtime` builds it."""

    def __init__(
        self,
        config: Config,
        queue: StepQueue,
        runner: StepRunner,
        *,
        sweepers: Sweepers,
        dispatcher: EventDispatcher,
        health: Health,
    ) -> None:
        self._config = config
        self._queue = queue
        self._runner = runner
        self._sweepers = sweepers
        self._dispatcher = dispatcher
        self._health = health

    async def serve(self, roles: Sequence[Role], stop: asyncio.Event, *, burst: bool = False) -> None:
        """Works until `stop` is set. In burst mode, works until no export is open and every event is delivered.

        Raises:
            ConfigError: Redis may drop keys when its memory is full.
            ServiceUnreachableError: Redis cannot be reached when the worker starts.
        """
        await wait_for_redis(self._config.redis_url, stop)
        try:
            await self._check_redis()
            await self._announce()
            clock = self._queue.clock
            if isinstance(clock, SharedClock):
                # Before anything uses the clock. With a clock that is ahead, the worker would claim steps that others
                # hold, and the sweep would forget exports too early.
                await set_clock(clock, self._queue.redis, self._queue.keys)
            settings = self._config.worker
            async with pages_served(self._health, settings.health_host, settings.health_port):
                await self._serve(roles, stop, burst=burst)
            await self._dispatcher.flush()
            await self._health.leave()
        except (RedisError, OSError) as error:
            raise redis_failure(self._config.redis_url, error) from None
        _log.info("worker.stopped", owner=self._queue.owner)

    async def _serve(self, roles: Sequence[Role], stop: asyncio.Event, *, burst: bool) -> None:
        """Runs all loops until `stop` is set or one of them fails."""
        owner, loops = self._queue.owner, [self._claim_loop(role) for role in roles]
        _log.info("worker.started", owner=owner, roles=list(roles), connections=sorted(self._config.connections))
        self._health.watch(loops, self._runner.leases, self._runner.gates if "transfer" in roles else None)
        self._runner.gates.watch([loop.wake for loop in loops])
        self._runner.events = self._dispatcher
        background = [asyncio.create_task(loop) for loop in self._background(roles, stop, burst=burst)]
        claiming = [asyncio.create_task(loop.async_run()) for loop in loops]
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({*background, *claiming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        _log.info("worker.stopping", owner=owner)
        # The background tasks still run, so leases are renewed until the last step has ended.
        drain_s = self._config.worker.drain_s if stop.is_set() else 0.0
        await asyncio.gather(*(loop.drain(drain_s) for loop in loops), return_exceptions=True)
        await cancel_and_wait(*background, *claiming, stopping)
        for task in (*background, *claiming):
            if not task.cancelled():
                task.result()

    def _background(
        self, roles: Sequence[Role], stop: asyncio.Event, *, burst: bool
    ) -> list[Coroutine[None, None, None]]:
        """Returns what runs beside the claim loops."""
        loops = [
            self._runner.leases.run(),
            self._health.run(),
            *map(_persistent, self._dispatcher.loops()),
            _persistent(self._sweep),
        ]
        if "transfer" in roles:
            loops.append(self._runner.gates.run())
        if self._sweepers.in_store.uploads and "transfer" in roles:
            loops.append(_persistent(partial(self._sweep_uploads, self._sweepers.in_store.uploads)))
        if self._sweepers.in_store.archive and "transfer" in roles:
            loops.append(_persistent(partial(self._archive, self._sweepers.in_store.archive)))
        if self._sweepers.in_store.batches and "transfer" in roles:
            loops.append(_persistent(partial(self._end_batches, self._sweepers.in_store.batches)))
        if self._sweepers.schedules is not None:
            loops.append(_persistent(self._sweepers.schedules.run_once))
        if burst:
            burst_mode = Burst(self._queue, self._dispatcher, self._runner.gates)
            loops.append(_persistent(partial(burst_mode.stop_when_done, stop)))
        return loops

    async def _check_redis(self) -> None:
        """Refuses a Redis that may drop records when its memory is full, since accepted exports would be lost."""
        memory = await self._queue.redis.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ConfigError(
                f"redis_url: this Redis drops keys when its memory is full (maxmemory-policy {policy}); "
                "set it to noeviction: CONFIG SET maxmemory-policy noeviction"
            )

    async def _announce(self) -> None:
        """Writes the connections, their platforms and the sinks to Redis, for producers."""
        redis, keys = commands(self._queue.redis), self._queue.keys
        if self._config.connections:
            await redis.hset(keys.connections, mapping=self._config.platforms())
            limits = {name: str(settings.max_in_flight) for name, settings in self._config.connections.items()}
            await redis.hset(keys.limits, mapping=limits)
        if self._config.sinks:
            await redis.hset(keys.sinks, mapping={name: sink.type for name, sink in self._config.sinks.items()})

    def _claim_loop(self, role: Role) -> ClaimLoop:
        settings = self._config.worker
        if role == "control":
            return ClaimLoop(self._queue, role, self._runner, max_jobs=settings.control_steps)
        # One slot stays free for other connections: slow downloads of one connection must not delay them.
        keeps_one_free = len(self._config.connections) > 1 and settings.transfers > 1
        per_connection = settings.transfers - 1 if keeps_one_free else None
        return ClaimLoop(self._queue, role, self._runner, max_jobs=settings.transfers, per_connection=per_connection)

    async def _sweep(self) -> None:
        for export_id in await self._sweepers.records.sweep(self._queue.clock()):
            _log.warning("export.revived", export_id=export_id)
        await asyncio.sleep(self._config.worker.sweep_s)

    async def _end_batches(self, batches: BatchFinishing) -> None:
        await self._runner.gates.until_usable()
        if not await batches.run(self._queue.clock()):
            await asyncio.sleep(BATCH_POLL_S)

    async def _archive(self, archive: Archive) -> None:
        await self._runner.gates.until_usable()
        await archive.run(self._queue.clock())
        await asyncio.sleep(ARCHIVE_S)

    async def _sweep_uploads(self, uploads: UploadSweeping) -> None:
        # A worker that can use no store would take the turn of a worker that can.
        await self._runner.gates.until_usable()
        await uploads.sweep(self._queue.clock())
        await asyncio.sleep(UPLOAD_SWEEP_S)


async def _persistent(repeated: Callable[[], Awaitable[None]]) -> None:
    """Calls a function again and again. While Redis is unreachable or refuses, it retries."""
    failing = False
    while True:
        try:
            await repeated()
            failing = False
        except (RedisError, OSError) as error:
            if not failing:
                _log.warning(outage_event(error), error=str(error))
            failing = True
            await asyncio.sleep(REDIS_RETRY_S)

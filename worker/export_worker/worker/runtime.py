"""A worker process: everything is built once here, runs together, and is closed once, in reverse order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_worker.config import Config
from export_worker.contract.redis_keys import Keys, Role
from export_worker.errors import ConfigError
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.client import (
    commands,
    redis_unreachable,
    wait_for_redis,
)
from export_worker.redis.clock import SharedClock, set_clock
from export_worker.redis.record_store import Store
from export_worker.redis.sweeper import Sweeper
from export_worker.sinks.dispatcher import EventDispatcher
from export_worker.telemetry.health import Health
from export_worker.telemetry.health_pages import pages_served
from export_worker.worker.claim_loop import ClaimLoop
from export_worker.worker.leases import Leases
from export_worker.worker.step_runner import StepRunner
from export_worker.worker.upload_sweeper import UploadSweeper

AGAIN_S = 1.0
"""Between tries while Redis is away."""
UPLOAD_SWEEP_S = 300.0
"""Between offers to look for uploads that are left in S3; one in an hour is taken up, of whichever worker."""
BURST_LOOK_S = 0.2
"""How often a worker in burst mode looks whether anything is left."""


_log = structlog.get_logger(__name__)


class Runtime:
    """The parts of one worker process; build it with `open_runtime`."""

    def __init__(
        self,
        config: Config,
        *,
        redis: ArqRedis,
        runner: StepRunner,
        store: Store,
        sweeper: Sweeper,
        uploads: UploadSweeper | None,
        leases: Leases,
        fanout: EventDispatcher,
        health: Health,
    ) -> None:
        self._config = config
        self._health = health
        self._redis = redis
        self._keys = Keys(config.namespace)
        self._machine = runner
        self._store = store
        self._sweeper = sweeper
        self._uploads = uploads
        self._leases = leases
        self._fanout = fanout
        self._owner = runner.owner
        self._clock = runner.clock

    async def serve(self, roles: Sequence[Role], stop: asyncio.Event, *, burst: bool = False) -> None:
        """Work until told to stop, or in burst mode until no export is open and every event is delivered.

        Raises:
            ConfigError: Redis may drop keys when its memory is full.
            ServiceUnreachableError: Redis cannot be reached when the worker starts.
        """
        await wait_for_redis(self._config.redis_url, stop)
        try:
            await self._check_redis()
            await self._announce()
            if isinstance(self._clock, SharedClock):
                # Before anything goes by it: a host whose clock is ahead would take what others hold, and the sweep
                # would forget what is not old.
                await set_clock(self._clock, self._redis)
            settings = self._config.worker
            async with pages_served(self._health, settings.health_host, settings.health_port):
                await self._serve(roles, stop, burst=burst)
            await self._fanout.flush()
            await self._health.leave()
        except (RedisError, OSError) as error:
            raise redis_unreachable(self._config.redis_url, error) from None
        _log.info("worker.stopped", owner=self._owner)

    async def _serve(self, roles: Sequence[Role], stop: asyncio.Event, *, burst: bool) -> None:
        """Run everything until the stop, or until something fails."""
        workers = [self._worker(role) for role in roles]
        _log.info("worker.started", owner=self._owner, roles=list(roles), connections=sorted(self._config.connections))
        self._health.watch(workers)
        loops = [
            self._leases.run(),
            self._health.run(),
            *map(_persistent, self._fanout.loops()),
            _persistent(self._sweep),
        ]
        if self._uploads and "transfer" in roles:
            loops.append(_persistent(partial(self._sweep_uploads, self._uploads)))
        if burst:
            loops.append(_persistent(partial(self._until_done, stop)))
        background = [asyncio.create_task(loop) for loop in loops]
        running = [asyncio.create_task(worker.async_run()) for worker in workers]
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({*background, *running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        _log.info("worker.stopping", owner=self._owner)
        # Leases are renewed until the last step has ended.
        drain_s = self._config.worker.drain_s if stop.is_set() else 0.0
        await asyncio.gather(*(worker.drain(drain_s) for worker in workers), return_exceptions=True)
        await cancel_and_wait(*background, *running, stopping)
        for task in (*background, *running):
            if not task.cancelled():
                task.result()

    async def _check_redis(self) -> None:
        """Refuse a Redis that may drop records to make room: what was accepted would be lost without a word."""
        memory = await self._redis.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ConfigError(
                f"redis_url: this Redis drops keys when its memory is full (maxmemory-policy {policy}); "
                "set it to noeviction: CONFIG SET maxmemory-policy noeviction"
            )

    async def _announce(self) -> None:
        """Tell producers which connections there are, of which platform, and which sinks."""
        redis = commands(self._redis)
        if self._config.connections:
            await redis.hset(self._keys.connections, mapping=self._config.platforms())
        if self._config.sinks:
            await redis.hset(self._keys.sinks, mapping={name: sink.type for name, sink in self._config.sinks.items()})

    def _worker(self, role: Role) -> ClaimLoop:
        settings = self._config.worker
        max_jobs = settings.control_steps if role == "control" else settings.transfers
        return ClaimLoop(
            self._redis,
            self._keys,
            role,
            store=self._store,
            runner=self._machine,
            max_jobs=max_jobs,
            clock=self._clock,
        )

    async def _sweep(self) -> None:
        for export_id in await self._sweeper.sweep(self._clock()):
            _log.warning("export.revived", export_id=export_id)
        await asyncio.sleep(self._config.worker.sweep_s)

    async def _sweep_uploads(self, uploads: UploadSweeper) -> None:
        await uploads.sweep(self._clock())
        await asyncio.sleep(UPLOAD_SWEEP_S)

    async def _until_done(self, stop: asyncio.Event) -> None:
        # Other workers end exports, too, so there is nothing to be notified by: only Redis knows.
        if not await self._redis.zcard(self._keys.open) and await self._fanout.is_empty():
            stop.set()
        await asyncio.sleep(BURST_LOOK_S)


async def _persistent(claimed: Callable[[], Awaitable[None]]) -> None:
    """Do it again and again; a Redis that is away is waited for, as the worker's claims do."""
    away = False
    while True:
        try:
            await claimed()
            away = False
        except (RedisError, OSError) as error:
            if not away:
                _log.warning("redis.unreachable", error=str(error))
            away = True
            await asyncio.sleep(AGAIN_S)

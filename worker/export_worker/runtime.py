"""A worker process: everything is built once here, runs together, and is closed once, in reverse order."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from importlib import import_module
from uuid import uuid4

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_worker.backoff import Backoff
from export_worker.config import Config
from export_worker.connect import (
    WORKER_RETRIES,
    close_redis,
    commands,
    end,
    first_contact,
    open_redis,
    redis_unreachable,
    set_clock,
)
from export_worker.contract.clock import SharedClock
from export_worker.contract.keys import Keys, Role
from export_worker.credentials import Redactor, reveal, url_passwords
from export_worker.errors import ConfigError
from export_worker.gauges import Gauges
from export_worker.health import Health, pages_served
from export_worker.instrumentation import Chorus, Instrument
from export_worker.landings import aws_settings, build_storage, build_upload_sweeper, learn_aws_secrets
from export_worker.leases import Leases
from export_worker.leftovers import UploadSweeper
from export_worker.machine import Chance, Connection, Machine
from export_worker.metrics import Metrics
from export_worker.platforms.connection import PollSettings
from export_worker.platforms.registry import build_driver
from export_worker.pollplan import PollPlan
from export_worker.rate import Rate
from export_worker.routes import build_routes
from export_worker.settings import StepWorker
from export_worker.sinks.fanout import Fanout
from export_worker.sinks.outbox import Outbox
from export_worker.steps import Policy
from export_worker.store import Limit, Store, Terms
from export_worker.sweep import Sweeper
from export_worker.transfer.pace import Pace

AGAIN_S = 1.0
"""Between tries while Redis is away."""
UPLOAD_SWEEP_S = 300.0
"""Between offers to look for uploads that are left in S3; one in an hour is taken up, of whichever worker."""
BURST_LOOK_S = 0.2
"""How often a worker in burst mode looks whether anything is left."""

UNKNOWN_DEADLINE_S = 10 * 365 * 86_400.0
"""Of an export whose connection is not configured here: its patience is for a worker that knows it to say."""

_log = structlog.get_logger(__name__)


def build_redactor(config: Config) -> Redactor:
    """A redactor that knows every secret of the configuration that can be read here."""
    redactor = Redactor()
    for setting, secret in config.secrets():
        try:
            value = reveal(secret, setting)
        except ConfigError:
            # Whoever needs it will say so; a command that does not must not fail for it.
            continue
        redactor.add(value)
        if "://" in value:
            for password in url_passwords(value):
                redactor.add(password)
    for password in url_passwords(config.redis_url):
        redactor.add(password)
    return redactor


class Runtime:
    """The parts of one worker process; build it with `open_runtime`."""

    def __init__(
        self,
        config: Config,
        *,
        redis: ArqRedis,
        machine: Machine,
        store: Store,
        sweeper: Sweeper,
        uploads: UploadSweeper | None,
        leases: Leases,
        fanout: Fanout,
        health: Health,
    ) -> None:
        self._config = config
        self._health = health
        self._redis = redis
        self._keys = Keys(config.namespace)
        self._machine = machine
        self._store = store
        self._sweeper = sweeper
        self._uploads = uploads
        self._leases = leases
        self._fanout = fanout
        self._owner = machine.owner
        self._clock = machine.clock

    async def serve(self, roles: Sequence[Role], stop: asyncio.Event, *, burst: bool = False) -> None:
        """Work until told to stop, or in burst mode until no export is open and every event is delivered.

        Raises:
            ConfigError: Redis may drop keys when its memory is full.
            ServiceUnreachableError: Redis cannot be reached when the worker starts.
        """
        await first_contact(self._config.redis_url, stop)
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
        await end(*background, *running, stopping)
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

    def _worker(self, role: Role) -> StepWorker:
        settings = self._config.worker
        max_jobs = settings.control_steps if role == "control" else settings.transfers
        return StepWorker(
            self._redis,
            self._keys,
            role,
            store=self._store,
            machine=self._machine,
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


async def _persistent(turn: Callable[[], Awaitable[None]]) -> None:
    """Do it again and again; a Redis that is away is waited for, as the worker's claims do."""
    away = False
    while True:
        try:
            await turn()
            away = False
        except (RedisError, OSError) as error:
            if not away:
                _log.warning("redis.unreachable", error=str(error))
            away = True
            await asyncio.sleep(AGAIN_S)


@asynccontextmanager
async def open_runtime(
    config: Config, redactor: Redactor, instruments: Sequence[Instrument] = ()
) -> AsyncIterator[Runtime]:
    """Build everything that a worker needs, and close it at the end.

    Args:
        instruments: Hear what happens, beside those that the configuration asks for.

    Raises:
        ConfigError: A connection is wrong, or its secret is missing.
    """
    async with AsyncExitStack() as stack:
        redis = open_redis(config.redis_url, retries=WORKER_RETRIES)
        stack.push_async_callback(close_redis, redis)
        keys, chance = Keys(config.namespace), Chance(SharedClock(), random.random)
        owner = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        with aws_settings():
            await asyncio.to_thread(learn_aws_secrets, redactor)
        terms = Terms(
            lease_s=config.worker.lease_s,
            retention_s=config.worker.retention_s,
            breaker_first_s=config.worker.breaker_first_s,
            breaker_max_s=config.worker.breaker_max_s,
        )
        metrics = Metrics(list(config.connections), list(config.sinks))
        instrument = Chorus([metrics, *instruments, *await _tracing(config, redactor, stack)])
        store = Store(redis, keys, list(config.sinks), _limits(config), terms, owner=owner)
        leases = Leases(store, chance.clock, terms.lease_s)
        storage = await asyncio.to_thread(build_storage, config, stack, redactor, instrument)
        machine = Machine(
            owner,
            store=store,
            leases=leases,
            connections=await _connections(config, redactor, _rates(config, redis, keys, chance.clock), stack),
            fallback=replace(_policy(config, PollSettings()), deadline_s=UNKNOWN_DEADLINE_S),
            landing=storage.landing,
            redactor=redactor,
            chance=chance,
            instrument=instrument,
        )
        with aws_settings():
            routes = await build_routes(config, commands(redis), stack)
        fanout = Fanout(Outbox(redis, keys, terms.retention_s), routes, chance.clock, chance.draw, instrument)
        sweeper = Sweeper(redis, keys, machine.owner, terms)
        health = await _health(config, keys, owner, metrics, clock=chance.clock, stack=stack)
        yield Runtime(
            config,
            redis=redis,
            machine=machine,
            store=store,
            sweeper=sweeper,
            uploads=build_upload_sweeper(
                config, redis, keys, owner=machine.owner, stores=storage.stores, instrument=instrument
            ),
            leases=leases,
            fanout=fanout,
            health=health,
        )


async def _health(
    config: Config, keys: Keys, owner: str, metrics: Metrics, *, clock: Callable[[], datetime], stack: AsyncExitStack
) -> Health:
    """With a client of its own, which neither waits behind the steps' calls nor repeats one."""
    redis = open_redis(config.redis_url, retries=0, max_connections=4)
    stack.push_async_callback(close_redis, redis)
    gauges = Gauges(redis, keys, list(config.connections), list(config.sinks))
    return Health(redis, keys, owner, gauges=gauges, metrics=metrics, clock=clock)


async def _tracing(config: Config, redactor: Redactor, stack: AsyncExitStack) -> list[Instrument]:
    """What sends spans, if the settings ask for them."""
    if not config.worker.tracing:
        return []
    try:
        # Imported here: the extra is a heavy one, and few need it.
        tracing = await asyncio.to_thread(import_module, "export_worker.tracing")
        for secret in tracing.secrets(os.environ):
            redactor.add(secret)
        spans = await asyncio.to_thread(tracing.open_tracing, config.namespace)
    except ModuleNotFoundError as error:
        advice = "install it with: pip install 'export-worker[tracing]'"
        raise ConfigError(f"worker.tracing: needs {error.name}; {advice}") from None
    except ValueError as error:
        raise ConfigError(f"worker.tracing: {error}; look at the OTEL_ variables") from None
    stack.push_async_callback(spans.close)
    return [spans]


async def _connections(
    config: Config, redactor: Redactor, rates: dict[str, Rate], stack: AsyncExitStack
) -> dict[str, Connection]:
    connections: dict[str, Connection] = {}
    whole = Pace(_bytes_per_s(config.transfer.mib_per_second))
    for name, settings in config.connections.items():
        driver = build_driver(name, settings, redactor)
        stack.push_async_callback(driver.close)
        pace = Pace(_bytes_per_s(settings.mib_per_second), whole)
        policy = _policy(config, settings.poll)
        connections[name] = Connection(settings.platform, driver, policy, pace, rates[name])
    return connections


def _rates(config: Config, redis: ArqRedis, keys: Keys, clock: Callable[[], datetime]) -> dict[str, Rate]:
    return {
        name: Rate(redis, name, keys.rate(name), settings.requests_per_second, clock)
        for name, settings in config.connections.items()
    }


def _bytes_per_s(mib_per_second: float | None) -> float | None:
    return None if mib_per_second is None else mib_per_second * 2**20


def _limits(config: Config) -> dict[str, Limit]:
    return {
        name: Limit(settings.max_in_flight, settings.requests_per_second, settings.poll.deadline_s)
        for name, settings in config.connections.items()
    }


def _policy(config: Config, poll: PollSettings) -> Policy:
    return Policy(
        poll=PollPlan(poll.first_s, poll.max_s),
        retry=Backoff(config.retry.first_s, config.retry.max_s),
        max_attempts=config.retry.max_attempts,
        deadline_s=poll.deadline_s,
    )

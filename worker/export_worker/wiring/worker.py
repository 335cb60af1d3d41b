"""Builds a worker process from the configuration."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from uuid import uuid4

from arq.connections import ArqRedis

from export_worker.config import Config, located_errors
from export_worker.config.sinks import AwsSinkSettings
from export_worker.contract.extras import how_to_install
from export_worker.contract.redis_keys import Keys, Role
from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.redis.claims import Timings
from export_worker.redis.client import WORKER_RETRIES, close_redis, open_redis
from export_worker.redis.clock import SharedClock
from export_worker.redis.outbox import Outbox
from export_worker.redis.record_store import Store
from export_worker.redis.sweeper import Sweeper
from export_worker.redis.transfers import TransferProgress
from export_worker.sinks.dispatcher import EventDispatcher
from export_worker.telemetry.health import Health
from export_worker.telemetry.instrumentation import CompositeInstrument, Instrument
from export_worker.telemetry.metrics import Metrics
from export_worker.telemetry.queue_stats import QueueStats
from export_worker.wiring.base import WorkerBase
from export_worker.wiring.connections import build_connections, build_rate_limits, connection_limits, fallback_policy
from export_worker.wiring.redis import open_probe_redis
from export_worker.wiring.secrets import mask_aws_variables
from export_worker.wiring.sinks import build_sinks
from export_worker.worker.clock import ClockAndRandom
from export_worker.worker.connections import Connections
from export_worker.worker.leases import Leases
from export_worker.worker.runtime import Runtime, Schedules, StoreSweepers, Sweepers
from export_worker.worker.step_queue import StepQueue
from export_worker.worker.step_runner import StepRunner
from export_worker.worker.storing import Storing, StoringWhenNeeded


@asynccontextmanager
async def open_runtime(
    config: Config,
    redactor: Redactor,
    instruments: Sequence[Instrument] = (),
    roles: Sequence[Role] = ("control", "transfer"),
) -> AsyncIterator[Runtime]:
    """Builds every part of a worker, and closes them in reverse order at the end of the block.

    Args:
        instruments: Receive every detail, beside the instruments that the configuration turns on.
        roles: The roles of the worker. Without `transfer`, the S3 side is built when a step needs it first.

    Raises:
        ConfigError: A setting is wrong, a secret is missing, or an extra is not installed.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(located_errors())
        redis = _open_worker_redis(config, stack)
        metrics = Metrics(list(config.connections), list(config.sinks), list(config.schedules))
        instrument = CompositeInstrument([metrics, *instruments, *await _open_tracing(config, redactor, stack)])
        base = _build_base(config, redactor, redis, instrument)
        queue = StepQueue(redis, base.keys, _build_record_store(base), base.clock.now, base.owner)
        leases = Leases(queue.store, base.clock.now, base.timings.lease_s)
        storing, in_store = await _open_storing(base, leases, stack, roles)
        runner = _build_step_runner(base, leases, storing, stack)
        schedules = await _build_schedules(base) if "control" in roles else None
        sweepers = Sweepers(Sweeper(redis, base.keys, base.owner, base.timings), in_store, schedules)
        dispatcher = await _build_dispatcher(base, stack)
        health = await _open_health(base, metrics, stack)
        yield Runtime(config, queue, runner, sweepers=sweepers, dispatcher=dispatcher, health=health)


def _open_worker_redis(config: Config, stack: AsyncExitStack) -> ArqRedis:
    redis = open_redis(config.redis_url, home=Keys(config.namespace).home, retries=WORKER_RETRIES)
    stack.push_async_callback(close_redis, redis)
    return redis


def _build_base(config: Config, redactor: Redactor, redis: ArqRedis, instrument: Instrument) -> WorkerBase:
    return WorkerBase(
        config,
        redactor,
        redis,
        Keys(config.namespace),
        owner=f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}",
        clock=ClockAndRandom(SharedClock(), random.random),
        timings=Timings(
            lease_s=config.worker.lease_s,
            retention_s=config.worker.retention_s,
            breaker_first_s=config.worker.breaker_first_s,
            breaker_max_s=config.worker.breaker_max_s,
        ),
        instrument=instrument,
    )


def _build_record_store(base: WorkerBase) -> Store:
    sinks, limits = list(base.config.sinks), connection_limits(base.config)
    return Store(base.redis, base.keys, sinks, limits, base.timings, owner=base.owner)


async def _open_storing(
    base: WorkerBase, leases: Leases, stack: AsyncExitStack, roles: Sequence[Role]
) -> tuple[Storing, StoreSweepers]:
    """Opens the S3 side and masks its credentials; without the role `transfer`, only when a step needs it first."""
    config, redactor = base.config, base.redactor

    async def opened() -> tuple[Storing, StoreSweepers]:
        await _mask_aws_credentials(redactor)
        module = await asyncio.to_thread(import_module, "export_worker.wiring.storing")
        parts: tuple[Storing, StoreSweepers] = await module.open_storing(base, leases, stack)
        return parts

    if "transfer" in roles:
        return await opened()
    if any(isinstance(settings, AwsSinkSettings) for settings in config.sinks.values()):
        await _mask_aws_credentials(redactor)
    else:
        mask_aws_variables(redactor, os.environ)
    return StoringWhenNeeded(opened), StoreSweepers()


async def _mask_aws_credentials(redactor: Redactor) -> None:
    # boto3 is large. A control worker rarely needs it.
    aws = await asyncio.to_thread(import_module, "export_worker.wiring.aws")
    await aws.mask_aws_credentials(redactor)


def _build_step_runner(base: WorkerBase, leases: Leases, storing: Storing, stack: AsyncExitStack) -> StepRunner:
    rate_limits = build_rate_limits(base.config, base.redis, base.keys, base.clock.now)
    connections = build_connections(base.config, base.redactor, rate_limits, stack)
    return StepRunner(
        leases,
        Connections(connections, fallback_policy(base.config)),
        storing,
        redactor=base.redactor,
        clock=base.clock,
        instrument=base.instrument,
    )


async def _build_schedules(base: WorkerBase) -> Schedules | None:
    if not base.config.schedules:
        return None
    module = await asyncio.to_thread(import_module, "export_worker.wiring.schedules")
    built: Schedules = module.build_schedules(base)
    return built


async def _build_dispatcher(base: WorkerBase, stack: AsyncExitStack) -> EventDispatcher:
    sinks = await build_sinks(base.config, base.redis, stack, base.redactor)
    outbox = Outbox(base.redis, base.keys, base.timings.retention_s)
    return EventDispatcher(outbox, sinks, base.clock.now, base.clock.draw, base.instrument)


async def _open_health(base: WorkerBase, metrics: Metrics, stack: AsyncExitStack) -> Health:
    """Opens the health pages with a separate client: their calls must not wait behind the calls of steps."""
    redis = await stack.enter_async_context(open_probe_redis(base.config))
    queue_stats = QueueStats(
        redis,
        base.keys,
        list(base.config.connections),
        list(base.config.sinks),
        TransferProgress(redis, base.keys).read,
    )
    return Health(redis, base.keys, base.owner, queue_stats=queue_stats, metrics=metrics, clock=base.clock.now)


async def _open_tracing(config: Config, redactor: Redactor, stack: AsyncExitStack) -> list[Instrument]:
    """Returns the instrument that sends spans, if the settings turn it on."""
    if not config.worker.tracing:
        return []
    try:
        # Imported here: few workers need the extra, and its packages are large.
        tracing = await asyncio.to_thread(import_module, "export_worker.telemetry.tracing")
        for secret in tracing.secrets(os.environ):
            redactor.add(secret)
        spans = await asyncio.to_thread(tracing.open_tracing, config.namespace)
    except ModuleNotFoundError as error:
        raise ConfigError(f"worker.tracing: needs {error.name}; {how_to_install('tracing')}") from None
    except ValueError as error:
        raise ConfigError(f"worker.tracing: {error}; check the OTEL_ variables") from None
    stack.push_async_callback(spans.close)
    return [spans]

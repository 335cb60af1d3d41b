"""Builds a worker process from the configuration."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from uuid import uuid4

from export_worker.config import Config
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.platforms.settings import PollSettings
from export_worker.redis.claims import Timings
from export_worker.redis.client import WORKER_RETRIES, close_redis, commands, open_redis
from export_worker.redis.clock import SharedClock
from export_worker.redis.outbox import Outbox
from export_worker.redis.record_store import Store
from export_worker.redis.sweeper import Sweeper
from export_worker.sinks.fanout import Fanout
from export_worker.telemetry.health import Health
from export_worker.telemetry.instrumentation import CompositeInstrument, Instrument
from export_worker.telemetry.metrics import Metrics
from export_worker.telemetry.queue_stats import QueueStats
from export_worker.wiring.connections import UNKNOWN_DEADLINE_S, _connections, _limits, _policy, _rates
from export_worker.wiring.secrets import aws_settings, learn_aws_secrets
from export_worker.wiring.sinks import build_sinks
from export_worker.wiring.storage import build_storage, build_upload_sweeper
from export_worker.worker.clock import ClockAndRandom
from export_worker.worker.connections import Connections
from export_worker.worker.leases import Leases
from export_worker.worker.runtime import Runtime, Sweepers
from export_worker.worker.step_queue import StepQueue
from export_worker.worker.step_runner import StepRunner
from export_worker.worker.transfer_step import TransferStep


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
        keys, clock = Keys(config.namespace), ClockAndRandom(SharedClock(), random.random)
        owner = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        with aws_settings():
            await asyncio.to_thread(learn_aws_secrets, redactor)
        timings = Timings(
            lease_s=config.worker.lease_s,
            retention_s=config.worker.retention_s,
            breaker_first_s=config.worker.breaker_first_s,
            breaker_max_s=config.worker.breaker_max_s,
        )
        metrics = Metrics(list(config.connections), list(config.sinks))
        instrument = CompositeInstrument([metrics, *instruments, *await _tracing(config, redactor, stack)])
        store = Store(redis, keys, list(config.sinks), _limits(config), timings, owner=owner)
        queue = StepQueue(redis, keys, store, clock.now, owner)
        leases = Leases(store, clock.now, timings.lease_s)
        storage = await asyncio.to_thread(build_storage, config, stack, redactor, instrument)
        connections = Connections(
            await _connections(config, redactor, _rates(config, redis, keys, clock.now), stack),
            fallback=replace(_policy(config, PollSettings()), deadline_s=UNKNOWN_DEADLINE_S),
        )
        transfer_step = TransferStep(leases, storage.writer, clock, instrument)
        runner = StepRunner(leases, connections, transfer_step, redactor=redactor, clock=clock, instrument=instrument)
        with aws_settings():
            sinks = await build_sinks(config, commands(redis), stack)
        fanout = Fanout(Outbox(redis, keys, timings.retention_s), sinks, clock.now, clock.draw, instrument)
        health = await _health(config, keys, owner, metrics, clock=clock.now, stack=stack)
        sweepers = Sweepers(
            Sweeper(redis, keys, owner, timings),
            build_upload_sweeper(config, redis, keys, owner=owner, stores=storage.stores, instrument=instrument),
        )
        yield Runtime(config, queue, runner, sweepers=sweepers, fanout=fanout, health=health)


async def _health(
    config: Config, keys: Keys, owner: str, metrics: Metrics, *, clock: Callable[[], datetime], stack: AsyncExitStack
) -> Health:
    """With a client of its own, which neither waits behind the steps' calls nor repeats one."""
    redis = open_redis(config.redis_url, retries=0, max_connections=4)
    stack.push_async_callback(close_redis, redis)
    gauges = QueueStats(redis, keys, list(config.connections), list(config.sinks))
    return Health(redis, keys, owner, gauges=gauges, metrics=metrics, clock=clock)


async def _tracing(config: Config, redactor: Redactor, stack: AsyncExitStack) -> list[Instrument]:
    """What sends spans, if the settings ask for them."""
    if not config.worker.tracing:
        return []
    try:
        # Imported here: the extra is a heavy one, and few need it.
        tracing = await asyncio.to_thread(import_module, "export_worker.telemetry.tracing")
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

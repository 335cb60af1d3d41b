"""A worker process of a run: the real claim loops, steps, leases, sweep and dispatcher."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from explore.calls import perform
from explore.chronicle import LEASE_S
from explore.scripted_platform import PlatformDriver, ScriptedPlatform
from explore.virtual_loop import CountingExecutor
from export_producers.client import ExportQueue
from export_producers.schedules.firing import FiringQueue
from export_worker.contract.redis_keys import Keys
from export_worker.contract.schedule import ScheduleDefinition
from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.decisions import OperationRetry, Policy
from export_worker.lifecycle.poll_schedule import PollSchedule
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.claims import ConnectionLimits, Timings
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.outbox import Outbox
from export_worker.redis.sweeper import Sweeper
from export_worker.s3.client import S3Client
from export_worker.s3.store import S3Store
from export_worker.schedules.cron import Cron
from export_worker.schedules.firings import Schedule
from export_worker.sinks.base import SinkError, SinkRoute
from export_worker.sinks.dispatcher import EventDispatcher
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT
from export_worker.transfer.engine import TransferEngine
from export_worker.transfer.export_writer import ExportWriter, Layout
from export_worker.wiring.schedules import QueueFiring
from export_worker.worker.claim_loop import ClaimLoop
from export_worker.worker.runtime import _persistent
from export_worker.worker.schedules import Scheduler
from support.redis_site import QueueSite
from support.scripted_worker import Parts

BUCKET = "bucket"
SWEEP_S = 2.0
RETENTION_S = 7 * 86_400.0
RETRY = Backoff(0.5, 2.0)
POLICY = Policy(poll=PollSchedule(0.2, 1.0), retry=RETRY, max_attempts=8, deadline_s=86_400.0)
OPERATION_RETRY = OperationRetry(times=1, after_s=1.0)
TIMINGS = Timings(lease_s=LEASE_S, retention_s=RETENTION_S, breaker_first_s=1.0, breaker_max_s=2.0)


@dataclass(frozen=True, slots=True)
class MemorySink:
    """A sink that keeps what it received, in order: the virtual time and the id of each event."""

    name: str
    clock: Callable[[], float]
    received: list[tuple[float, str]] = field(default_factory=list)

    async def deliver(self, event_id: str, event: str) -> None:
        """Receives one event."""

        def receive() -> None:
            self.received.append((self.clock(), event_id))

        await perform(f"sink {self.name} {event_id.partition('.')[2]}", receive, _unreachable, _unreachable)

    async def close(self) -> None:
        """Does nothing: no connection is open."""


def _unreachable() -> Exception:
    return SinkError("cannot be reached")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the workers of one run share."""

    redis_url: str
    keys: Keys
    queue: ExportQueue
    platform: ScriptedPlatform
    s3_client: S3Client
    executor: CountingExecutor
    sinks: Mapping[str, MemorySink]
    clock: Callable[[], datetime]
    schedules: Mapping[str, ScheduleDefinition]


class Worker:
    """One worker process with both roles.

    Args:
        name: Its name in leases.
    """

    def __init__(self, name: str, surroundings: Surroundings) -> None:
        self._name = name
        self._around = surroundings
        self._redis: ArqRedis = open_redis(surroundings.redis_url, retries=0, max_connections=8)
        self._loops: list[ClaimLoop] = []
        self._background: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Works until the process ends."""
        parts = self._parts()
        self._loops = [parts.worker(role) for role in ("control", "transfer")]
        sweeper = Sweeper(self._redis, self._around.keys, self._name, TIMINGS)
        self._dispatcher = self._build_dispatcher()
        parts.runner.events = self._dispatcher
        background = [
            parts.leases.run(),
            *map(_persistent, self._dispatcher.loops()),
            _persistent(partial(self._sweep, sweeper)),
        ]
        if self._around.schedules:
            background.append(_persistent(self._build_scheduler().run_once))
        self._background = [asyncio.create_task(each) for each in background]
        await asyncio.gather(*self._background, *(loop.async_run() for loop in self._loops))

    async def stop(self) -> None:
        """Ends the process in order, as after SIGTERM, with no time for running steps."""
        await asyncio.gather(*(loop.drain(0.0) for loop in self._loops), return_exceptions=True)
        await cancel_and_wait(*self._background)
        with suppress(RedisError):
            await self._dispatcher.flush()

    async def close(self) -> None:
        """Closes the connections to Redis."""
        await close_redis(self._redis)

    def _parts(self) -> Parts:
        around = self._around
        site = QueueSite(
            self._redis,
            around.queue,
            around.keys,
            limits={"gio": ConnectionLimits(8, 1000.0)},
            timings=TIMINGS,
            owner=self._name,
        )
        engine = TransferEngine(S3Store(around.s3_client, around.executor), parts_in_flight=1)
        writer = ExportWriter(engine, Layout(BUCKET, "", "{export_id}/{file_name}"))
        driver: Any = PlatformDriver(around.platform)
        policy = replace(POLICY, operation_retry=OPERATION_RETRY) if around.platform.fails_at_poll else POLICY
        return Parts(
            site, driver, around.clock, writer=writer, policy=policy, draw=lambda: 0.5, heartbeat_s=LEASE_S / 3
        )

    def _build_dispatcher(self) -> EventDispatcher:
        around = self._around
        routes = {name: SinkRoute(sink, 4, RETRY, 600.0) for name, sink in around.sinks.items()}
        outbox = Outbox(self._redis, around.keys, RETENTION_S)
        return EventDispatcher(outbox, routes, around.clock, lambda: 0.5)

    def _build_scheduler(self) -> Scheduler:
        around = self._around
        firing = QueueFiring(FiringQueue(self._redis, around.keys, around.schedules), around.clock)
        schedules = [
            Schedule(name, Cron(each.cron, ZoneInfo(each.timezone)), each.jitter_s, each.catch_up_s)
            for name, each in around.schedules.items()
        ]
        return Scheduler(schedules, firing, around.clock, NULL_INSTRUMENT)

    async def _sweep(self, sweeper: Sweeper) -> None:
        await sweeper.sweep(self._around.clock())
        await asyncio.sleep(SWEEP_S)

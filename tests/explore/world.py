"""One run: the services, the processes that use them, and what they were seen to do."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from structlog.testing import capture_logs

from explore.calls import RUN, Run
from explore.chronicle import ENDED, Chronicle
from explore.memory_s3 import MemoryS3
from explore.scenarios import Scenario, When
from explore.scheduler import Fault, Schedule, Scheduler
from explore.scripted_platform import ScriptedPlatform
from explore.virtual_loop import PROCESS, STARTED_S, CountingExecutor, Process
from explore.workers import MemorySink, Surroundings, Worker
from export_producers.client import ExportQueue
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.request import ExportRequest, GrowingioTagUsers
from export_worker.contract.schedule import ScheduleDefinition, export_id_of
from export_worker.errors import InvalidRequestError, ServiceUnreachableError
from export_worker.redis.scripts import encode_arguments
from export_worker.s3.client import S3Client
from support.index_rows import FACETS_OF_ROW
from support.past_records import record_of, timeline_of
from support.redis_site import SINKS

T = TypeVar("T")

NAMESPACE = "explore"
ROLES: tuple[Role, ...] = ("control", "transfer")
BOUND_S = 240.0
"""Of virtual time. An export that has not ended by then has not ended in time, whatever has failed."""
SETTLE_S = 2.5
"""How long a run continues after everything has ended: a sweep, some claims, and what a thawed process still does."""
RESTART_S = 1.0
"""Until another worker starts in place of one that has died or stopped."""
START_AT = datetime(2026, 1, 5, tzinfo=UTC)
SCHEDULE = "nightly"
SALT = "salt"
SCHEDULED = ScheduleDefinition(
    cron="17 0 * * *",
    jitter_s=2,
    timezone="UTC",
    request={"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "tag1"}},
)
"""A schedule that is due 21 s after the start of a run, when all workers have announced it, and not again."""
SCHEDULED_AT = START_AT + timedelta(minutes=17)


@dataclass(frozen=True, slots=True)
class Services:
    """What all runs share.

    Args:
        redis: A client that is not intercepted, untyped as in `Chronicle`. Its database is emptied before each run.
        scripts: The names of the scripts that Redis has, by SHA-1.
    """

    redis_url: str
    redis: Any
    s3_client: S3Client
    executor: CountingExecutor
    scripts: dict[str, str]


class World:
    """One run.

    Args:
        schedule: Its faults.
    """

    def __init__(self, services: Services, scenario: Scenario, schedule: Schedule) -> None:
        self.scenario = scenario
        self.schedule = schedule
        self.keys = Keys(NAMESPACE)
        self.s3 = MemoryS3()
        self.scheduler = Scheduler(schedule, is_over=self._is_over, on_fault=self._on_fault, poison=scenario.poison)
        self.platform = ScriptedPlatform(
            scenario.files_of_job, scenario.missing_once, self._platform_is_down, scenario.quick, scenario.fails_at_poll
        )
        self.sinks = {name: MemorySink(name, self.scheduler.loop.time) for name in SINKS}
        self.chronicle = Chronicle(
            services.redis, self.keys, self.s3, self.scheduler.loop.time, copies=scenario.fail_over is not None
        )
        self.logged: list[Any] = []
        self.crashes: list[str] = []
        self.deaths: list[tuple[str, float]] = []
        self.export_ids: list[str] = []
        self.timed_out = False
        self._services = services
        self._workers: dict[Process, Worker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended_since_s: float | None = None
        self._requested = set[str]()
        self._producing = True

    def run(self) -> None:
        """Runs until everything has ended, or the bound of the time is reached."""
        loop, redis = self.scheduler.loop, self._services.redis
        self._services.executor.loop = loop
        redis.flushdb()
        if self.scenario.scheduled:
            redis.hset(self.keys.schedule(SCHEDULE), "salt", SALT)
            self.export_ids.append(export_id_of(SALT, SCHEDULE, SCHEDULED_AT))
        random.seed(0)
        run = Run(self.scheduler, self.s3, self._services.scripts, self.chronicle.note_script)
        asyncio.set_event_loop(loop)
        try:
            with capture_logs() as logged:
                context = copy_context()
                context.run(RUN.set, run)
                context.run(loop.run_until_complete, self._main(logged))
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def now(self) -> datetime:
        """The time of all processes."""
        return START_AT + timedelta(seconds=self.scheduler.loop.now_s)

    async def _main(self, logged: Sequence[Any]) -> None:
        self._context = copy_context()
        async with ExportQueue(self._services.redis_url, namespace=NAMESPACE) as queue:
            self._queue = self._prepared(queue)
            for name in ("w1", "w2"):
                self._start_worker(name)
            self._start(Process("producer", 0), self._produce)
            await self.scheduler.over.wait()
            self.scheduler.close()
            self.logged = list(logged)
            while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks, timeout=1.0)
            for worker in self._workers.values():
                await worker.close()

    def _prepared(self, queue: ExportQueue) -> ExportQueue:
        """Returns the queue, with the time of the run in place of that of Redis."""
        clock: Any = queue.storage.clock
        clock.time, clock.next_sync_s = self.now, float("inf")
        return queue

    def _start(self, process: Process, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Starts a task of a process."""
        context = copy_context()
        context.run(PROCESS.set, process)
        task = self.scheduler.loop.create_task(main(), context=context)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, process))

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.crashes.append(f"{process.name}: {task.exception()!r}")

    def _start_worker(self, name: str) -> None:
        process = Process(name, 10 + len(self._workers))
        services = self._services
        surroundings = Surroundings(
            services.redis_url,
            self.keys,
            self._queue,
            self.platform,
            services.s3_client,
            services.executor,
            self.sinks,
            self.now,
            {SCHEDULE: SCHEDULED} if self.scenario.scheduled else {},
        )
        self._workers[process] = Worker(name, surroundings)
        self._start(process, self._workers[process].run)

    async def _produce(self) -> None:
        for number in range(1, self.scenario.exports + 1):
            request = ExportRequest(
                connection="gio",
                export=GrowingioTagUsers(tag_key="tag" if self.scenario.share else f"tag{number}"),
                share=self.scenario.share,
                idempotency_key=f"order-{number}",
                deadline_s=self.scenario.deadline_s,
            )
            accepted = await _repeated(partial(self._queue.enqueue, request))
            self.export_ids.append(accepted.export_id)
        actors = {"canceller": self._cancel, "retrier": self._retry, "fail-over": self._fail_over}
        for rank, name in enumerate(self.scenario.actors, 1):
            self._start(Process(name, rank), actors[name])
        self._producing = False

    async def _cancel(self) -> None:
        await self.scheduler.arrive("cancel", on_request=True)
        for export_id in self.export_ids[: self.scenario.cancels]:
            await _repeated(partial(self._queue.cancel, export_id))

    async def _retry(self) -> None:
        await self.scheduler.arrive("retry", on_request=True)
        with suppress(InvalidRequestError):  # it has not ended
            await _repeated(lambda: self._queue.retry(self.export_ids[0], self.scenario.retry_from))

    async def _fail_over(self) -> None:
        await self.scheduler.arrive("fail-over", on_request=True)
        self.chronicle.forget()

    def _platform_is_down(self) -> bool:
        return self.scheduler.loop.time() < STARTED_S + self.scenario.down_s

    def _on_fault(self, process: Process, fault: Fault) -> None:
        worker = self._workers.get(process)
        if worker is None:
            if fault == "kill":
                self._producing = False
            return
        self._request("after a fault")
        if fault in {"stop", "hang"}:
            self._start(process, worker.stop)
        if fault in {"stop", "hang", "kill"}:
            self.deaths.append((process.name, self.scheduler.loop.now_s))
            name = f"w{len(self._workers) + 1}"
            self.scheduler.loop.call_later(RESTART_S, self._start_worker, name, context=self._context)

    def _request(self, when: When) -> bool:
        """Lets those actors act who act at this time. Returns whether there were any."""
        names = {name for name, at in self.scenario.actors.items() if at == when} - self._requested
        self._requested |= names
        for name in names:
            self.scheduler.request(name)
        return bool(names)

    def _is_over(self) -> bool:
        now_s = self.scheduler.loop.now_s
        if now_s - STARTED_S > BOUND_S:
            self.timed_out = True
            return True
        if not self._all_ended() or self._request("at the end"):
            self._ended_since_s = None
            return False
        self._ended_since_s = self._ended_since_s or now_s
        return now_s - self._ended_since_s >= SETTLE_S

    def _all_ended(self) -> bool:
        """Whether every export has ended, and every event is delivered."""
        if self._producing or not all(map(self.record, self.export_ids)):
            return False
        redis, keys = self._services.redis, self.keys
        pipe = redis.pipeline(transaction=False)
        for name in redis.keys(keys.export("*")):
            pipe.hmget(name, "phase", "retry")
        for name in self.sinks:
            pipe.zcard(keys.outbox(name))
        answers = pipe.execute()
        records, outboxes = answers[: -len(self.sinks)], answers[-len(self.sinks) :]
        return not any(outboxes) and all((phase or b"").decode() in ENDED and not retry for phase, retry in records)

    def fired(self) -> int:
        """Returns how many times of the schedule have enqueued an export."""
        return int(self._services.redis.hget(self.keys.schedule(SCHEDULE), "fired") or 0)

    def record(self, export_id: str) -> dict[str, str]:
        """Returns the fields of a record."""
        redis, keys = self._services.redis, self.keys
        return record_of(export_id, redis.hgetall(keys.export(export_id)), redis.get(keys.past(export_id)))

    def facets(self, export_id: str) -> set[tuple[str, str]]:
        """Returns the facets and values that the indexes have of an export."""
        arguments = encode_arguments({"prefix": self.keys.prefix, "id": export_id})
        found = json.loads(self._services.redis.eval(FACETS_OF_ROW, 0, arguments)).get("facets", ())
        return {(facet, value) for facet, _, value in (each.partition(":") for each in found)}

    def counted_ends(self) -> int:
        """Returns how many ends of exports the statistics have."""
        redis = self._services.redis
        hours = [redis.hgetall(name) for name in redis.keys(f"{self.keys.prefix}hour:*")]
        return sum(int(count) for hour in hours for field, count in hour.items() if field.startswith(b"ended:"))

    def timeline(self, export_id: str) -> list[bytes]:
        """Returns the timeline of an export, as JSON texts."""
        redis, keys = self._services.redis, self.keys
        entries = redis.lrange(keys.timeline(export_id), 0, -1)
        return timeline_of(export_id, entries, redis.get(keys.past(export_id)))

    def leftovers(self, export_id: str) -> set[str]:
        """Returns the keys of open work that still contain an export."""
        redis, keys, wanted = self._services.redis, self.keys, export_id.encode()
        rows = [keys.open, *(keys.queue(role) for role in ROLES), *(keys.aside(role) for role in ROLES)]
        rows += [keys.slots("gio"), keys.parked("gio"), keys.waiting("gio"), *map(keys.outbox, self.sinks)]
        shared = [name.decode() for kind in ("sharing", "sharers") for name in redis.keys(f"{keys.prefix}{kind}:*")]
        rows += [name for name in shared if name.startswith(keys.sharers(""))]
        found = {row for row in rows if any(wanted in member for member in redis.zrange(row, 0, -1))}
        return found | {name for name in shared if redis.type(name) == b"hash"}


async def _repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Makes a call of the queue until it is answered, as callers do. An enqueue has an idempotency key."""
    while True:
        try:
            return await call()
        except ServiceUnreachableError:
            await asyncio.sleep(1.0)

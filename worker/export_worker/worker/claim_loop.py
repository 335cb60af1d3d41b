"""Claims due steps. The loop subclasses arq's worker and keeps arq's queue and entries (measured with arq 0.28).

It replaces these parts of arq's loop:

- arq claims each job with WATCH, so several workers on one queue slow each other down. Entries that other workers hold
  stay at the head of arq's queue and hide later ones. If Redis is read-only, arq assumes that another worker runs the
  job. Here one script claims a batch, moves claimed entries back in the queue, and reports Redis's errors.
- arq polls the queue every half second. Here a notification, the next due entry or a free slot starts the next claim.
- After a worker is killed, arq's entry waits for the longest timeout plus ten seconds. Here it waits until its lease
  ends.
- arq's `close` gathers cancelled jobs without `return_exceptions`, so it waits only for the first job that ends.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, cast

import structlog
from arq.worker import Worker, func
from redis.exceptions import RedisError

from export_worker.contract.model import epoch_ms
from export_worker.contract.queue_jobs import STEP_FUNCTION, dump_job, load_job
from export_worker.contract.redis_keys import Role
from export_worker.contract.worker_record import RunningStep
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.claims import ClaimedStep, ClaimRoom
from export_worker.redis.clock import SharedClock
from export_worker.redis.failures import outage_event
from export_worker.worker.slots import Place, Slots
from export_worker.worker.step_queue import StepQueue
from export_worker.worker.step_runner import StepRunner

QUEUE_POLL_S = 1.0
"""Longest wait between two claims without a notification. Notifications are sent once and may be lost."""
SLOTLESS_MAX = 8
"""Steps that only end or restart an export, and that run beside the slots. Most take two short calls to Redis. The
limit keeps them few when S3 or the platform does not answer them."""
SEARCH_MAX = 250
"""Due entries that are examined once in `QUEUE_POLL_S` for such steps: about 2 ms of Redis's time."""
CLAIM_RETRY_S = 0.5
"""Wait between two claims while Redis is unreachable or refuses claims."""
CLAIM_TIMEOUT_S = 2.0
"""How long a stopping worker waits for a claim that is on its way."""
CLEANUP_TIMEOUT_S = 8.0
"""How long a cancelled step may take to end its S3 calls and release its lease. Then its lease ends, and the step is
cancelled again."""
CLOCK_STEP_MS = 1000
"""From this step back on, the clock of Redis was not corrected by NTP, and a person should know."""

_log = structlog.get_logger(__name__)


class ClaimLoop(Worker):
    """Claims due steps of one role and runs as many at once as it has slots.

    Args:
        queue: Where due steps are claimed.
        role: The role whose steps are claimed.
        runner: Runs the steps.
        max_jobs: Number of slots.
        per_connection: How many slots the steps of one connection may use; None for all.
    """

    def __init__(
        self, queue: StepQueue, role: Role, runner: StepRunner, *, max_jobs: int, per_connection: int | None = None
    ) -> None:
        super().__init__(
            # arq requires a registered function. This loop never looks it up: `_start` calls the runner directly.
            functions=[func(cast("Any", runner.run), name=STEP_FUNCTION)],
            queue_name=queue.keys.queue(role),
            redis_pool=queue.redis,
            handle_signals=False,
            max_jobs=max_jobs,
            job_serializer=dump_job,
            job_deserializer=load_job,
        )
        self.role = role
        self.healthy = True
        self._store = queue.store
        self._clock = queue.clock
        self._channel = queue.keys.wake(role)
        self._runner = runner
        self._slots = Slots(max_jobs, per_connection)
        self._steps: dict[str, RunningStep] = {}
        self._searched_s = -QUEUE_POLL_S
        self._wake = asyncio.Event()

    @property
    def running(self) -> int:
        """Number of steps that run now."""
        return len(self.tasks)

    @property
    def steps(self) -> Sequence[RunningStep]:
        """The steps that run now, in the order of their start."""
        return list(self._steps.values())

    async def main(self) -> None:
        """Claims and runs steps until `drain` is called."""
        listening = asyncio.create_task(self._listen())
        self._runner.places.open(self.role, Place(self._slots, self._start, self._note_due))
        try:
            while self.allow_pick_jobs:
                self._wake.clear()
                wait_s = await self._claim()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
        finally:
            await cancel_and_wait(listening)

    async def _claim(self) -> float:
        """Starts as many due steps as there are free slots. Returns how long to wait for the next claim.

        Without a free slot it claims only steps that need none, such as those of exports past their deadline. It calls
        Redis in any case: if no worker called, the claim script would assume that Redis had been unreachable.
        """
        asked_s = time.monotonic()
        room = self._room(asked_s)
        try:
            batch = await self._store.claim(self.role, room, self._clock())
            if isinstance(self._clock, SharedClock):
                self._clock.synchronize(batch.time_ms, asked_s)
            if batch.set_back_ms >= CLOCK_STEP_MS:
                _log.warning("redis.clock_set_back", set_back_s=batch.set_back_ms / 1000)
            if not self.allow_pick_jobs:
                # The worker is stopping. Without this, other workers would wait for leases of steps that never ran.
                await asyncio.gather(*(self._store.hand_back(claimed, self._clock()) for claimed in batch.steps))
                return 0.0
        except (RedisError, OSError) as error:
            self._set_unhealthy(error)
            return CLAIM_RETRY_S
        self.healthy = True
        for claimed in batch.steps:
            if not claimed.slotless:
                self._slots.take(claimed.export.request.connection)
            self._start(claimed)
        if batch.next_due_ms is None or room.steps <= 0:
            return QUEUE_POLL_S
        return min(QUEUE_POLL_S, max(0.0, (batch.next_due_ms - epoch_ms(self._clock())) / 1000))

    def _room(self, now_s: float) -> ClaimRoom:
        is_search_due = now_s - self._searched_s >= QUEUE_POLL_S
        if is_search_due:
            self._searched_s = now_s
        return ClaimRoom(
            steps=self._slots.free,
            slotless=SLOTLESS_MAX - (len(self.tasks) - self._slots.used.total()),
            search=SEARCH_MAX if is_search_due else 0,
            running=self._slots.used,
            per_connection=self._slots.per_connection,
            closed_stores=self._runner.gates.closed() if self.role == "transfer" else {},
        )

    def _set_unhealthy(self, error: Exception) -> None:
        """Logs once why no step is claimed: Redis is unreachable, or refuses (read-only, full, no permission)."""
        if self.healthy:
            _log.error(outage_event(error), role=self.role, error=str(error))
        self.healthy = False

    def wake(self) -> None:
        """Claims at once."""
        self._wake.set()

    def _note_due(self, due_at: datetime) -> None:
        """Claims when a step is due that is enqueued here. What is due later, a claim until then reports."""
        wait_s = (due_at - self._clock()).total_seconds()
        if 0 < wait_s < QUEUE_POLL_S:
            asyncio.get_running_loop().call_later(wait_s, self._wake.set)

    def _start(self, claimed: ClaimedStep) -> None:
        """Starts a step whose slot is taken, if it needs one."""
        # The id has the version, because this worker may claim a lost step again before its first task has ended.
        job_id = f"{claimed.export.export_id}:{claimed.step}:{claimed.version}"
        task = asyncio.create_task(self._run(claimed))
        self.tasks[job_id] = task
        export = claimed.export
        self._steps[job_id] = RunningStep(
            export_id=export.export_id, connection=export.request.connection, role=self.role
        )
        if not claimed.slotless and self.role == "transfer":
            self._runner.gates.begin(claimed.export.request.connection)
        task.add_done_callback(partial(self._finished, job_id, claimed))

    async def _run(self, claimed: ClaimedStep) -> None:
        if claimed.kept and not self.allow_pick_jobs:
            # The worker began to stop while the commit was on its way.
            await self._store.hand_back(claimed, self._clock())
        else:
            await self._runner.run(claimed)

    def _finished(self, job_id: str, claimed: ClaimedStep, task: asyncio.Task[None]) -> None:
        """Frees the slot. A failed step changed nothing, and is due again when its lease ends."""
        self.tasks.pop(job_id, None)
        self._steps.pop(job_id, None)
        connection = claimed.export.request.connection
        if claimed.slotless or not self._slots.has_room(connection):
            # Another step may have waited for this one to end. Of a step that is due at once, its commit notifies.
            self._wake.set()
        if not claimed.slotless:
            self._slots.give_back(connection)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, RedisError):
            _log.warning("step.not_saved", export_id=claimed.export.export_id, step=claimed.step, error=str(error))
        elif error is not None:
            _log.error("step.crashed", export_id=claimed.export.export_id, step=claimed.step, exc_info=error)

    async def _listen(self) -> None:
        """Starts a claim with each notification of a step that is due at once."""
        while True:
            try:
                async with self.pool.pubsub() as notices:
                    await notices.subscribe(self._channel)
                    # The confirmation also starts a claim, because earlier entries caused no notification here.
                    while True:
                        # Shorter than the socket's timeout, so that a quiet channel does not count as a failure.
                        if await notices.get_message(timeout=QUEUE_POLL_S) is not None:
                            self._wake.set()
            except (RedisError, OSError):
                await asyncio.sleep(CLAIM_RETRY_S)

    async def drain(self, drain_s: float) -> None:
        """Claims no more steps, waits for running ones, then cancels the rest and releases their leases."""
        self.allow_pick_jobs = False
        self._runner.places.close(self.role)
        self._wake.set()
        if self.main_task is not None:
            # Waits for a claim that is on its way, but not for one that hangs.
            await asyncio.wait({self.main_task}, timeout=CLAIM_TIMEOUT_S)
            await cancel_and_wait(self.main_task)
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=drain_s)
        cancelled = list(self.tasks.values())
        ending = asyncio.create_task(self._runner.leases.end_soon(cancelled, CLEANUP_TIMEOUT_S))
        await cancel_and_wait(*cancelled, retry_s=CLEANUP_TIMEOUT_S)
        await cancel_and_wait(ending)

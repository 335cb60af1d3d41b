"""The arq worker that we run: arq's queue and its entries, with a claim of our own (measured with arq 0.28).

What of arq's loop is replaced, and why:

- It claims each job by a WATCH race, so that several workers on one queue get slower together; entries that others
  hold hide those behind them; a claim that meets a read-only Redis counts as "started elsewhere". Here one script
  claims a batch, tells Redis's errors apart, and leaves nothing at the head of the queue.
- It looks into the queue every half second. Here a notice wakes it, the next due entry, or a slot that becomes free.
- A killed worker's entry waits for the longest timeout plus ten seconds. Here it comes back when its lease ends.
- Its `close` gathers cancelled jobs without keeping their exceptions, so one that dies early strands the others.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from export_worker.contract.model import epoch_ms
from export_worker.contract.queue_jobs import STEP_FUNCTION, dump_job, load_job
from export_worker.contract.redis_keys import Keys, Role
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.clock import SharedClock
from export_worker.redis.record_store import Store
from export_worker.worker.step_runner import StepRunner

LOOK_S = 1.0
"""Between looks into the queue when no notice comes: notices are sent once and may be lost."""
AGAIN_S = 0.5
"""Between claims that Redis refuses."""
CLAIM_S = 2.0
"""How long a claim that is on its way when the worker is told to stop is heard out."""
CLEAN_UP_S = 8.0
"""What a step gets to end its S3 calls and to give its lease back before it is cancelled once more."""

_log = structlog.get_logger(__name__)


class ClaimLoop(Worker):
    """Claims due steps of one role and runs them, as many at once as it has slots.

    Args:
        store: Claims.
        role: Whose queue.
        machine: Takes the steps.
        max_jobs: Steps at once.
        clock: The time, with a zone. One that all share is set by what Redis says with each claim.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        role: Role,
        *,
        store: Store,
        runner: StepRunner,
        max_jobs: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(
            functions=[func(export_step, name=STEP_FUNCTION)],
            queue_name=keys.queue(role),
            redis_pool=redis,
            ctx={"machine": runner},
            handle_signals=False,
            max_jobs=max_jobs,
            job_serializer=dump_job,
            job_deserializer=load_job,
        )
        self.role = role
        self._store = store
        self._channel = keys.wake(role)
        self._clock = clock
        self._wake = asyncio.Event()
        self.healthy = True

    @property
    def running(self) -> int:
        """Steps that run now."""
        return len(self.tasks)

    async def main(self) -> None:
        """Claim and run until told to take no more."""
        listening = asyncio.create_task(self._listen())
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
        """Start what is due, as far as there is room; returns how long nothing will be due.

        Without room it asks for nothing, but asks: a silence of all workers would mean that Redis was away.
        """
        free, asked_s = self.max_jobs - len(self.tasks), time.monotonic()
        try:
            batch = await self._store.claim(self.role, free, self._clock())
            if isinstance(self._clock, SharedClock):
                self._clock.synchronize(batch.redis_ms, asked_s)
            if not self.allow_pick_jobs:
                # Told to stop meanwhile: nobody shall wait for the end of a lease on what was never begun.
                await asyncio.gather(*(self._store.hand_back(claimed, self._clock()) for claimed in batch.steps))
                return 0.0
        except (RedisError, OSError) as error:
            self._unhealthy(error)
            return AGAIN_S
        self.healthy = True
        for claimed in batch.steps:
            self._start(claimed)
        if batch.next_due_ms is None or free <= 0:
            return LOOK_S
        return min(LOOK_S, max(0.0, (batch.next_due_ms - epoch_ms(self._clock())) / 1000))

    def _unhealthy(self, error: Exception) -> None:
        """Say once why nothing is claimed: an unreachable Redis, or one that refuses (read-only, full, no right)."""
        if self.healthy:
            gone = isinstance(error, RedisConnectionError | RedisTimeoutError | OSError)
            _log.error("redis.unreachable" if gone else "redis.refused", role=self.role, error=str(error))
        self.healthy = False

    def _start(self, claimed: ClaimedStep) -> None:
        # With the version: a step that was lost may come back to this worker before its first task has ended.
        job_id = f"{claimed.export.export_id}:{claimed.step}:{claimed.version}"
        task = asyncio.create_task(self._run(claimed))
        self.tasks[job_id] = task
        task.add_done_callback(lambda _: self._finished(job_id))

    async def _run(self, claimed: ClaimedStep) -> None:
        try:
            await self.functions[STEP_FUNCTION].coroutine(self.ctx, claimed)
        except RedisError as error:
            # Nothing was saved, so nothing is lost: the step comes back when its lease ends.
            _log.warning("step.not_saved", export_id=claimed.export.export_id, step=claimed.step, error=str(error))
        except Exception:  # noqa: BLE001 - one step's defect must not end the others; the entry comes back
            _log.exception("step.crashed", export_id=claimed.export.export_id, step=claimed.step)

    def _finished(self, job_id: str) -> None:
        self.tasks.pop(job_id, None)
        self._wake.set()

    async def _listen(self) -> None:
        """Hear of entries that are due at once."""
        while True:
            try:
                async with self.pool.pubsub() as notices:
                    await notices.subscribe(self._channel)
                    # The confirmation wakes, too: what came before it, at the start or after a break, gave no notice.
                    while True:
                        # A timeout of its own, below that of the socket: silence is no failure.
                        if await notices.get_message(timeout=LOOK_S) is not None:
                            self._wake.set()
            except (RedisError, OSError):
                await asyncio.sleep(AGAIN_S)

    async def drain(self, drain_s: float) -> None:
        """Take no more work, give running steps some time, stop the rest; their leases go back."""
        self.allow_pick_jobs = False
        self._wake.set()
        if self.main_task is not None:
            # A claim on its way is heard out; one that hangs is not waited for.
            await asyncio.wait({self.main_task}, timeout=CLAIM_S)
            await cancel_and_wait(self.main_task)
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=drain_s)
        await cancel_and_wait(*self.tasks.values(), retry_s=CLEAN_UP_S)


async def export_step(ctx: dict[Any, Any], claimed: ClaimedStep) -> None:
    """Take one step of one export."""
    runner: StepRunner = ctx["machine"]
    await runner.run(claimed)

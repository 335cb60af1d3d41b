"""Keeps the steps that run in this process, and stops one that is lost or no longer wanted."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from redis.exceptions import RedisError

from export_worker.errors import LeaseLostError
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.record_store import Store
from export_worker.step_context import require_lease
from export_worker.transfer.progress import TransferProgress

HEARTBEAT_S = 1.0
"""A transfer's progress is as old as this at most, and its cancel heard within it; a lease is many times longer."""

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class HeldStep:
    """A step that runs here.

    Args:
        valid_until_s: On the monotonic clock: when the lease ends unless it is renewed.
        gauge: Tells how far it is; None until there is something to tell.
        saving: Its end is on the way to Redis, which tells by itself whether the step was still ours. A renewal that
            comes right behind finds the step gone, and means nothing.
    """

    claimed: ClaimedStep
    task: asyncio.Task[object]
    valid_until_s: float
    gauge: TransferProgress | None = None
    saving: bool = field(default=False, init=False)
    lost: bool = field(default=False, init=False)
    cancelled: bool = field(default=False, init=False)

    def check(self) -> None:
        """To be called before a side effect: a process that was frozen may have lost its step without a word.

        Raises:
            LeaseLostError: The lease has ended.
        """
        if self.lost or time.monotonic() > self.valid_until_s:
            raise _lost(self.claimed)


class Leases:
    """All steps of one process, kept together."""

    def __init__(
        self, store: Store, clock: Callable[[], datetime], lease_s: float, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease_s = lease_s
        self._heartbeat_s = min(heartbeat_s, lease_s / 3)
        self._held: set[HeldStep] = set()

    @asynccontextmanager
    async def holding(self, claimed: ClaimedStep) -> AsyncIterator[HeldStep]:
        """Keep a step while the block runs in the current task; cancel the block when the step is lost.

        When the block is cancelled from outside (the worker stops), the step is given back.

        Raises:
            LeaseLostError: Somebody else has the export now.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a step is held by a task")
        held = HeldStep(claimed, task, claimed.since_s + self._lease_s)
        self._held.add(held)
        try:
            with require_lease(held.check):
                yield held
        except asyncio.CancelledError:
            if held.lost:
                task.uncancel()
                raise _lost(claimed) from None
            await asyncio.shield(self._store.release(held.claimed, self._clock()))
            raise
        finally:
            self._held.discard(held)

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            for held in list(self._held):
                await self._renew(held)

    async def _renew(self, held: HeldStep) -> None:
        begun_s, claimed = time.monotonic(), held.claimed
        try:
            progress = None if held.gauge is None else held.gauge.read()
            answer = await self._store.renew(claimed, self._clock(), progress)
        except RedisError as error:
            # The step goes on: should the lease run out meanwhile, its commit will be refused.
            _log.warning("lease.renewal_failed", export_id=claimed.export.export_id, error=str(error))
            return
        if held not in self._held or held.claimed is not claimed or (held.saving and answer is None):
            return
        if answer is None:
            held.lost = True
            held.task.cancel()
            return
        held.valid_until_s = begun_s + self._lease_s
        if answer == "cancel" and not held.cancelled:
            held.cancelled = True
            held.task.cancel()


def _lost(claimed: ClaimedStep) -> LeaseLostError:
    return LeaseLostError(f"export {claimed.export.export_id} was taken over in step {claimed.step}")

"""Keeps the leases of the steps that run in this process, and stops a step whose lease has gone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from redis.exceptions import RedisError

from export_worker.contract.status import Progress
from export_worker.errors import LeaseLostError
from export_worker.store import Store, Turn

HEARTBEAT_S = 1.0
"""A transfer's progress is as old as this at most; a lease is many times longer."""

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Held:
    """A step that runs here.

    Args:
        progress: How far it is; None until there is something to tell.
    """

    turn: Turn
    task: asyncio.Task[object]
    progress: Progress | None = None
    lost: bool = field(default=False, init=False)


class Leases:
    """All leases of one process, renewed together."""

    def __init__(self, store: Store, clock: Callable[[], datetime], heartbeat_s: float = HEARTBEAT_S) -> None:
        self._store = store
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._held: set[Held] = set()

    @asynccontextmanager
    async def holding(self, turn: Turn) -> AsyncIterator[Held]:
        """Renew the lease while the block runs in the current task; cancel the block when the lease is lost.

        When the block is cancelled from outside (the worker stops), the lease is given back.

        Raises:
            LeaseLostError: Somebody else has the export now.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lease is held by a task")
        held = Held(turn, task)
        self._held.add(held)
        try:
            yield held
        except asyncio.CancelledError:
            if held.lost:
                task.uncancel()
                raise LeaseLostError(f"export {turn.export.export_id} was taken over in step {turn.step}") from None
            await asyncio.shield(self._store.release(turn, self._clock()))
            raise
        finally:
            self._held.discard(held)

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            await self._renew_all()

    async def _renew_all(self) -> None:
        for held in list(self._held):
            try:
                kept = await self._store.renew(held.turn, self._clock(), held.progress)
            except RedisError as error:
                # The step goes on: should the lease run out meanwhile, its commit will be refused.
                _log.warning("lease.renewal_failed", export_id=held.turn.export.export_id, error=str(error))
                continue
            if not kept and held in self._held:
                held.lost = True
                held.task.cancel()

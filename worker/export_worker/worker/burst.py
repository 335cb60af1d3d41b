"""Stops a worker in burst mode when nothing is left to do, and reports what it waits for until then."""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from export_worker.contract.batch_keys import BatchKeys
from export_worker.sinks.dispatcher import EventDispatcher
from export_worker.worker.step_queue import StepQueue
from export_worker.worker.store_gates import StoreGates

BURST_POLL_S = 0.2
"""Between checks for open exports."""
REPORT_S = 60.0
"""Between reports of the same reason to wait. An export may run on its platform for hours."""

_log = structlog.get_logger(__name__)


class Burst:
    """Watches the open exports of a worker in burst mode.

    Args:
        gates: The stores of the worker. While one cannot be used, its exports wait until their deadline.
        clock_s: Returns seconds that never decrease.
    """

    def __init__(
        self,
        queue: StepQueue,
        dispatcher: EventDispatcher,
        gates: StoreGates,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._gates = gates
        self._clock_s = clock_s
        self._reported: Mapping[str, str] = {}
        self._reported_at_s = clock_s()

    async def stop_when_done(self, stop: asyncio.Event) -> None:
        """Sets `stop` if no export is open and every event is delivered; else reports the reason from time to time."""
        # Other workers end exports, too, and send no notification of it: only Redis has all open exports.
        open_exports = await self._queue.redis.zcard(self._queue.keys.open)
        if not open_exports and not await self._unannounced() and await self._dispatcher.is_empty():
            stop.set()
        else:
            self._report(open_exports)
        await asyncio.sleep(BURST_POLL_S)

    async def _unannounced(self) -> int:
        """Returns how many batches have ended, and their events are in no outbox yet."""
        return int(await self._queue.redis.zcard(BatchKeys(self._queue.keys).ended))

    def _report(self, open_exports: int) -> None:
        stores, now_s = self._gates.connection_problems(), self._clock_s()
        if stores == self._reported and now_s - self._reported_at_s < REPORT_S:
            return
        self._reported, self._reported_at_s = stores, now_s
        if stores:
            _log.warning("burst.waiting", open_exports=open_exports, unusable_stores=stores)
        else:
            _log.info("burst.waiting", open_exports=open_exports)

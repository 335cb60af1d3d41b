"""Runs bulk orders in the background of a gateway, in pieces, and continues those of gateways that have stopped."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic

import structlog

from export_producers.bulk.acting import Acting
from export_producers.bulk.documents import BulkPreview, BulkRequest, BulkRun, Progress
from export_producers.bulk.orders import BulkOrder, code_of, pieces, still_in_state
from export_producers.bulk.runs import Bulks, ClaimedRun
from export_producers.queue import Queue
from export_worker.contract.status import Status
from export_worker.redis.cancellation import cancel_and_wait

COUNT_MAX = 100_000
"""Exports that a dry run counts: some seconds of reading."""
SAMPLE = 20
"""Exports that a dry run returns."""
SAVE_S = 1.0
"""Longest time between two saves while a run acts. A requested stop takes this long."""
TURN_S = 0.05
AT_ONCE_MAX = 50
"""Exports that would be acted on one by one within this time are acted on together, but not more than so many: some
milliseconds of Redis's time. So a fast run costs Redis a third of what single calls would."""
SEARCH_S = 5.0
"""Time between two searches for runs of other gateways that have stopped."""

_log = structlog.get_logger(__name__)


async def preview(queue: Queue, order: BulkOrder) -> BulkPreview:
    """Counts the exports that an order would act on, and changes nothing."""
    codes, obstacles = Counter[str](), Counter[str]()
    sample, complete = list[Status](), True
    known = await queue.known_connections()
    async for piece in pieces(queue, order):
        found = [(status, order.obstacle(status, known)) for status in piece.statuses]
        helped = [status for status, obstacle in found if obstacle is None]
        obstacles.update(obstacle for _, obstacle in found if obstacle is not None)
        codes.update(map(code_of, helped))
        sample += helped[: SAMPLE - len(sample)]
        if codes.total() >= COUNT_MAX:
            complete = False
            break
    return BulkPreview(
        count=codes.total(),
        hopeless=obstacles.total(),
        hopeless_by_code=dict(obstacles.most_common()),
        by_code=dict(codes.most_common()),
        sample=sample,
        complete=complete,
    )


class BulkRunner:
    """Runs the bulk orders of one gateway."""

    def __init__(self, queue: Queue, bulks: Bulks, acting: Acting) -> None:
        self._queue = queue
        self._bulks = bulks
        self._acting = acting
        self._running: dict[str, asyncio.Task[None]] = {}
        self._added = asyncio.Event()

    async def add(self, request: BulkRequest, progress: Progress, bulk_id: str | None = None) -> BulkRun:
        """Adds a run, and starts it. See `Bulks.add`.

        Raises:
            TooManyRunsError: There are too many.
        """
        run = await self._bulks.add(request, progress, bulk_id)
        self._added.set()
        return run

    async def run(self) -> None:
        """Starts orders until it is cancelled."""
        while True:
            self._added.clear()
            try:
                await self._start_all()
            except Exception as error:  # noqa: BLE001 - Redis is away, or another version wrote a run
                _log.warning("bulk.not_searched", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(SEARCH_S):
                    await self._added.wait()

    async def stop(self) -> None:
        """Stops the runs of this gateway. Other gateways may continue them."""
        await cancel_and_wait(*self._running.values())

    async def _start_all(self) -> None:
        for bulk_id in await self._bulks.open():
            if bulk_id not in self._running and (claimed := await self._claim(bulk_id)):
                self._running[bulk_id] = asyncio.create_task(self._finish(claimed))

    async def _claim(self, bulk_id: str) -> ClaimedRun | None:
        try:
            return await self._bulks.claim(bulk_id)
        except ValueError as error:  # another version wrote it, and the other runs continue
            _log.warning("bulk.unreadable", bulk_id=bulk_id, error=type(error).__name__)
            return None

    async def _finish(self, claimed: ClaimedRun) -> None:
        try:
            await _Run(self._queue, self._bulks, self._acting, claimed).finish()
        except Exception as error:  # noqa: BLE001 - the lease ends, and the next search continues the run
            _log.warning("bulk.interrupted", bulk_id=claimed.bulk_id, error=str(error))
        finally:
            self._running.pop(claimed.bulk_id, None)


class _Run:
    """One run that this gateway has claimed."""

    def __init__(self, queue: Queue, bulks: Bulks, acting: Acting, claimed: ClaimedRun) -> None:
        self._queue = queue
        self._bulks = bulks
        self._acting = acting
        self._id = claimed.bulk_id
        self._order = claimed.request.order(claimed.progress.created_at, claimed.progress.connections)
        self._progress = claimed.progress
        self._stop = asyncio.Event()
        if claimed.stop:
            self._stop.set()
        self._saved_s = monotonic()
        self._due_s = monotonic()

    async def finish(self) -> None:
        """Acts on the exports that are left, unless a stop is requested or another gateway has claimed the run."""
        try:
            held = await self._act_on_all()
        except asyncio.CancelledError:
            await self._save(release=True)
            raise
        if held:
            await self._save(state="stopped" if self._stop.is_set() else "done")
            _log.info("bulk.ended", bulk_id=self._id, state=self._progress.state, done=self._progress.done)

    async def _act_on_all(self) -> bool:
        """Returns whether this gateway still has the run."""
        if self._stop.is_set():
            return True
        known = await self._queue.known_connections()
        async for piece in pieces(self._queue, self._order, self._progress.position):
            helped = [status for status in piece.statuses if self._order.obstacle(status, known) is None]
            for first in range(0, len(helped), self._at_once):
                if not await self._act_on(helped[first : first + self._at_once]):
                    return False
                if self._stop.is_set():
                    return True
            # Counted with the end of the piece: another gateway would read the same ones again.
            hopeless = self._progress.hopeless + len(piece.statuses) - len(helped)
            if not await self._save(passed=piece.next.passed, cursor=piece.next.cursor, hopeless=hopeless):
                return False
        return True

    @property
    def _at_once(self) -> int:
        rate = self._order.per_second
        return AT_ONCE_MAX if rate is None else max(1, min(AT_ONCE_MAX, int(rate * TURN_S)))

    async def _act_on(self, statuses: Sequence[Status]) -> bool:
        if not await self._wait_for_turn(len(statuses)):
            return False
        if not self._stop.is_set():
            matching = await still_in_state(self._queue, self._order, statuses)
            acting = asyncio.create_task(self._acting.act(self._order, matching))
            try:
                await asyncio.shield(acting)
            finally:
                # A gateway that stops meanwhile counts what Redis has done, before it hands the run over.
                await asyncio.wait({acting})
                self._count(len(statuses), acting.result())
        return True

    def _count(self, seen: int, acted: int) -> None:
        before = self._progress
        skipped = before.skipped + seen - acted
        self._progress = before.changed(datetime.now(UTC), done=before.done + acted, skipped=skipped)

    async def _wait_for_turn(self, count: int) -> bool:
        """Waits for the rate of the order. Meanwhile it renews the lease, and reads whether the run is to stop."""
        rate = self._order.per_second
        while not self._stop.is_set():
            now_s = monotonic()
            if now_s - self._saved_s >= SAVE_S and not await self._save():
                return False
            wait_s = self._due_s - monotonic()
            if wait_s <= 0:
                self._due_s = max(self._due_s, monotonic() - 1) + (count / rate if rate else 0)
                return True
            await asyncio.sleep(min(wait_s, SAVE_S))
        return True

    async def _save(self, *, release: bool = False, **fields: object) -> bool:
        self._progress = self._progress.changed(datetime.now(UTC), **fields)
        held, stop = await self._bulks.save(self._id, self._progress, release=release)
        if stop:
            self._stop.set()
        self._saved_s = monotonic()
        return held

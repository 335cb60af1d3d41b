"""`SyncExportQueue`: the queue for services without an event loop."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from datetime import datetime
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from export_producers.client import WATCH_INTERVAL_S, AnyRequest, EnqueueError, ExportQueue
from export_producers.filters import EVERY_EXPORT, ExportFilter
from export_producers.reasons import Explanation
from export_producers.records import Page, Start
from export_producers.requesters import LIBRARY
from export_worker.contract.batch import Batch
from export_worker.contract.dry_run import DryRun, Preview
from export_worker.contract.facets import Facet
from export_worker.contract.status import Accepted, Phase, Status
from export_worker.contract.trace import TraceContext
from export_worker.redis.cancellation import cancel_and_wait

T = TypeVar("T")


async def _next(statuses: AsyncGenerator[Status, None]) -> Status | None:
    return await anext(statuses, None)


class SyncExportQueue:
    """`ExportQueue` without `await`. Use it as a context manager, or call `close` at the end. It is thread-safe.

    All calls run in one event loop in a separate thread, so that they share connections. A forked process does not have
    this thread, so open the queue after the fork.

    Arguments, results and errors are those of `ExportQueue`. A closed queue raises `RuntimeError`.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        namespace: str = "exports",
        connections: Mapping[str, str] | None = None,
        requested_by: str = LIBRARY,
    ) -> None:
        self._queue = ExportQueue(redis_url, namespace=namespace, connections=connections, requested_by=requested_by)
        self._loop = asyncio.new_event_loop()
        # A daemon thread, so that a service that does not close the queue can still exit.
        self._thread = Thread(target=self._loop.run_forever, name="export-queue", daemon=True)
        self._lock = Lock()
        self._closed = False
        self._process = os.getpid()
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections to Redis and ends the thread. Calls that are running raise `RuntimeError`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # The event loop starts all earlier calls before this call. The flag above prevents later calls.
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await cancel_and_wait(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))
        await self._queue.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        if self._process != os.getpid():
            call.close()
            raise RuntimeError("this SyncExportQueue was opened before a fork; open one in each process")
        with self._lock:
            if self._closed:
                call.close()
                raise RuntimeError("this SyncExportQueue is closed")
            running = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return running.result()
        except CancelledError:
            raise RuntimeError("this SyncExportQueue was closed during the call") from None
        finally:
            # After Ctrl-C in the caller's thread, the call must not continue in the queue's thread.
            running.cancel()

    def known_connections(self) -> dict[str, str]:
        """See `ExportQueue.known_connections`."""
        return self._run(self._queue.known_connections())

    def enqueue(self, request: AnyRequest, *, trace: TraceContext | None = None) -> Accepted:
        """See `ExportQueue.enqueue`."""
        return self._run(self._queue.enqueue(request, trace=trace))

    def enqueue_many(
        self, requests: Iterable[AnyRequest], *, batch: str | None = None, trace: TraceContext | None = None
    ) -> list[Accepted | EnqueueError]:
        """See `ExportQueue.enqueue_many`."""
        # The iterable is read in the caller's thread, because a generator may block.
        return self._run(self._queue.enqueue_many(list(requests), batch=batch, trace=trace))

    def batch_status(self, batch: str) -> Batch:
        """See `Batches.status`."""
        return self._run(self._queue.batches.status(batch))

    def wait_for_batch(self, batch: str, timeout_s: float | None = None) -> Batch:
        """See `Batches.wait`."""
        return self._run(self._queue.batches.wait(batch, timeout_s))

    def cancel_batch(self, batch: str) -> Batch:
        """See `Batches.cancel`."""
        return self._run(self._queue.batches.cancel(batch))

    def dry_run(self, request: AnyRequest, platform: Preview | None = None) -> DryRun:
        """See `ExportQueue.dry_run`."""
        return self._run(self._queue.dry_run(request, platform))

    def status(self, export_id: str) -> Status:
        """See `ExportQueue.status`."""
        return self._run(self._queue.status(export_id))

    def list_exports(self, phase: Phase | None = None, limit: int = 50) -> list[Status]:
        """See `ExportQueue.list_exports`."""
        return self._run(self._queue.list_exports(phase, limit))

    def page(
        self,
        phase: Phase | None = None,
        limit: int = 50,
        cursor: str | None = None,
        *,
        where: ExportFilter = EVERY_EXPORT,
    ) -> Page:
        """See `ExportQueue.page`."""
        return self._run(self._queue.page(phase, limit, cursor, where=where))

    def values_in_use(self, facet: Facet) -> list[str]:
        """See `ExportQueue.values_in_use`."""
        return self._run(self._queue.values_in_use(facet))

    def timeline(self, export_id: str) -> list[dict[str, Any]]:
        """See `ExportQueue.timeline`."""
        return self._run(self._queue.timeline(export_id))

    def watch(self, export_id: str, interval_s: float = WATCH_INTERVAL_S) -> Generator[Status, None, None]:
        """See `ExportQueue.watch`."""
        statuses = self._queue.watch(export_id, interval_s)
        try:
            while True:
                status = self._run(_next(statuses))
                if status is None:
                    return
                yield status
        finally:
            # If the queue is closed, the generator has already ended.
            with suppress(RuntimeError):
                self._run(statuses.aclose())

    def wait(
        self, export_id: str, timeout_s: float | None = None, *, on_change: Callable[[Status], None] | None = None
    ) -> Status:
        """See `ExportQueue.wait`. `on_change` is called in the queue's thread, and must not block."""
        return self._run(self._queue.wait(export_id, timeout_s, on_change=on_change))

    def cancel(self, export_id: str) -> Phase:
        """See `ExportQueue.cancel`."""
        return self._run(self._queue.cancel(export_id))

    def retry(self, export_id: str, start: Start | None = None, *, ended_at: datetime | None = None) -> Status:
        """See `ExportQueue.retry`."""
        return self._run(self._queue.retry(export_id, start, ended_at=ended_at))

    def explain(self, export_id: str) -> str:
        """See `ExportQueue.explain`."""
        return self._run(self._queue.explain(export_id))

    def explanation(self, export_id: str) -> Explanation:
        """See `ExportQueue.explanation`."""
        return self._run(self._queue.explanation(export_id))

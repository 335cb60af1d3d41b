"""The interface of the real queue, and of the in-memory queue for tests of services."""

from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import datetime
from typing import Any, Protocol

from export_producers.client import AnyRequest, EnqueueError
from export_producers.filters import EVERY_EXPORT, ExportFilter
from export_producers.reasons import Explanation
from export_producers.records import Page, Start
from export_worker.contract.dry_run import DryRun, Preview
from export_worker.contract.facets import Facet
from export_worker.contract.status import Accepted, Phase, Status
from export_worker.contract.trace import TraceContext


class Queue(Protocol):
    """Implemented by `ExportQueue`, which documents each method, and by `testing.InMemoryExportQueue`."""

    async def close(self) -> None:
        """Closes the connections."""

    async def known_connections(self) -> dict[str, str]:
        """Returns connection → platform."""

    async def enqueue(self, request: AnyRequest, *, trace: TraceContext | None = None) -> Accepted:
        """Enqueues one export."""

    async def enqueue_many(
        self, requests: Iterable[AnyRequest], *, batch: str | None = None, trace: TraceContext | None = None
    ) -> list[Accepted | EnqueueError]:
        """Enqueues many exports independently of each other, or as one batch."""

    async def dry_run(self, request: AnyRequest, platform: Preview | None = None) -> DryRun:
        """Checks a request, and enqueues nothing."""

    async def status(self, export_id: str) -> Status:
        """Returns the status of one export."""

    async def list_exports(self, phase: Phase | None = None, limit: int = 50) -> list[Status]:
        """Returns the newest exports, newest first."""

    async def page(
        self,
        phase: Phase | None = None,
        limit: int = 50,
        cursor: str | None = None,
        *,
        where: ExportFilter = EVERY_EXPORT,
    ) -> Page:
        """Returns one page of a listing."""

    async def values_in_use(self, facet: Facet) -> list[str]:
        """Returns the connections, kinds, requesters or error codes of the stored exports."""

    async def timeline(self, export_id: str) -> list[dict[str, Any]]:
        """Returns every transition of one export."""

    def watch(self, export_id: str, interval_s: float = ...) -> AsyncGenerator[Status, None]:
        """Yields the current status, then every changed status."""

    async def wait(
        self, export_id: str, timeout_s: float | None = None, *, on_change: Callable[[Status], None] | None = None
    ) -> Status:
        """Waits until the export has ended, and returns its status."""

    async def cancel(self, export_id: str) -> Phase:
        """Requests the cancellation of an export."""

    async def retry(self, export_id: str, start: Start | None = None, *, ended_at: datetime | None = None) -> Status:
        """Restarts an export that has ended."""

    async def explain(self, export_id: str) -> str:
        """Explains in one line why the export waits, or how it ended."""

    async def explanation(self, export_id: str) -> Explanation:
        """Explains as `explain`, with a code, its arguments, and a text in each language."""

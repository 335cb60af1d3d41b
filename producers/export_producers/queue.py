"""What a service may ask of a queue, whichever it is: the real one, or the one in memory for its tests."""

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, Protocol

from export_producers.client import AnyRequest, EnqueueError
from export_producers.records import Page, Start
from export_worker.contract.status import Accepted, Phase, Status
from export_worker.contract.trace import TraceContext


class Queue(Protocol):
    """`ExportQueue` and `testing.InMemoryExportQueue`; each method is described at the former."""

    async def close(self) -> None:
        """Close connections."""

    async def known_connections(self) -> dict[str, str]:
        """Connection → platform."""

    async def enqueue(self, request: AnyRequest, *, trace: TraceContext | None = None) -> Accepted:
        """Accept one export."""

    async def enqueue_many(
        self, requests: Iterable[AnyRequest], *, trace: TraceContext | None = None
    ) -> list[Accepted | EnqueueError]:
        """Accept many exports, each for itself."""

    async def status(self, export_id: str) -> Status:
        """The status of one export."""

    async def list_exports(self, phase: Phase | None = None, limit: int = 50) -> list[Status]:
        """The newest exports first."""

    async def page(self, phase: Phase | None = None, limit: int = 50, cursor: str | None = None) -> Page:
        """As `list_exports`, and on from where an earlier page ended."""

    async def timeline(self, export_id: str) -> list[dict[str, Any]]:
        """Every transition of one export."""

    def watch(self, export_id: str, interval_s: float = ...) -> AsyncGenerator[Status, None]:
        """The status now, then each change of it."""

    async def wait(
        self, export_id: str, timeout_s: float | None = None, *, on_change: Callable[[Status], None] | None = None
    ) -> Status:
        """The status once the export has ended."""

    async def cancel(self, export_id: str) -> Phase:
        """Ask for an export's end."""

    async def retry(self, export_id: str, start: Start | None = None) -> Status:
        """Set an ended export going again."""

    async def explain(self, export_id: str) -> str:
        """One sentence: why it waits, or how it ended."""

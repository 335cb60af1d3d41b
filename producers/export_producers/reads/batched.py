"""Joins the reads of one moment."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

Document = TypeVar("Document")


class BatchedRead(Generic[Document]):
    """Reads documents by export id. Callers that ask while the event loop runs once share one read.

    Args:
        read: Returns the document of each id, in the same order.
    """

    def __init__(self, read: Callable[[Sequence[str]], Awaitable[Sequence[Document]]]) -> None:
        self._read = read
        self._wanted: dict[str, None] = {}
        self._reading: asyncio.Task[dict[str, Document]] | None = None

    async def get(self, export_ids: Iterable[str]) -> dict[str, Document]:
        """Returns the documents of some ids. Raises what the read raises. Without ids, nothing is read."""
        wanted = list(export_ids)
        if not wanted:
            return {}
        if self._reading is None:
            self._wanted = {}
            self._reading = asyncio.ensure_future(self._run(self._wanted))
        self._wanted.update(dict.fromkeys(wanted))
        # A caller that is cancelled does not cancel the read of the others.
        found = await asyncio.shield(self._reading)
        return {export_id: found[export_id] for export_id in wanted}

    async def _run(self, wanted: dict[str, None]) -> dict[str, Document]:
        await asyncio.sleep(0)
        self._reading = None
        export_ids = list(wanted)
        return dict(zip(export_ids, await self._read(export_ids), strict=True))

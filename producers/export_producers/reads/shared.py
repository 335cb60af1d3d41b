"""One read for all callers of a process."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

Document = TypeVar("Document")


class SharedRead(Generic[Document]):
    """Reads a document when it is requested, once in each period at most, and once for all callers that wait.

    Args:
        read: Reads the document.
        kept_s: For how long a document is returned again.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self, read: Callable[[], Awaitable[Document]], kept_s: float = 1.0, clock: Callable[[], float] = monotonic
    ) -> None:
        self._read = read
        self._kept_s = kept_s
        self._clock = clock
        self._reading: asyncio.Task[Document] | None = None
        self._started_at = 0.0

    async def get(self) -> Document:
        """Returns the document, at most `kept_s` seconds after its read began. Raises what the read raises.

        A read that failed is repeated for the next caller. A caller that is cancelled does not cancel the read.
        """
        if self._reading is None or self._is_old(self._reading):
            self._started_at = self._clock()
            self._reading = asyncio.ensure_future(self._run())
        return await asyncio.shield(self._reading)

    def _is_old(self, reading: asyncio.Task[Document]) -> bool:
        if not reading.done():
            return False
        failed = reading.cancelled() or reading.exception() is not None
        return failed or self._clock() - self._started_at >= self._kept_s

    async def _run(self) -> Document:
        return await self._read()


class SharedReads(Generic[Document]):
    """Reads several documents, each as `SharedRead` does.

    Args:
        kept_s: See `SharedRead`.
        clock: See `SharedRead`.
        most: How many documents are kept: those that were requested last.
    """

    def __init__(self, kept_s: float, clock: Callable[[], float] = monotonic, most: int = 20) -> None:
        self._kept_s = kept_s
        self._clock = clock
        self._most = most
        self._reads: dict[Hashable, SharedRead[Document]] = {}

    async def get(self, key: Hashable, read: Callable[[], Awaitable[Document]]) -> Document:
        """Returns the document with this key. Raises what the read raises.

        Args:
            read: Reads it; the same for each call with this key.
        """
        shared = self._reads.pop(key, None) or SharedRead(read, self._kept_s, self._clock)
        self._reads[key] = shared
        if len(self._reads) > self._most:
            del self._reads[next(iter(self._reads))]
        return await shared.get()

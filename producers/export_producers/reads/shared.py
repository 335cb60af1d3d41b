"""One read for all callers of a process."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

Document = TypeVar("Document")


@dataclass(frozen=True, slots=True)
class _Reading(Generic[Document]):
    task: asyncio.Task[Document]
    started_at: float

    @property
    def has_failed(self) -> bool:
        """Whether there is no document, and never will be."""
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)


class SharedRead(Generic[Document]):
    """Reads a document when it is requested, once in each period at most, and once for all callers that wait.

    Args:
        read: Reads the document.
        kept_s: For how long a document is returned again.
        clock: A monotonic clock in seconds.
        renew_s: A caller that gets a document of this age begins the next read without waiting for it; None: never.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Document]],
        kept_s: float = 1.0,
        clock: Callable[[], float] = monotonic,
        renew_s: float | None = None,
    ) -> None:
        self._read = read
        self._kept_s = kept_s
        self._clock = clock
        self._renew_s = kept_s if renew_s is None else renew_s
        self._reading: _Reading[Document] | None = None
        self._next: _Reading[Document] | None = None

    async def get(self) -> Document:
        """Returns the document, at most `kept_s` seconds after its read began. Raises what the read raises.

        A read that failed is repeated for the next caller. A caller that is cancelled does not cancel the read.
        """
        self._take_next()
        if self._reading is None or self._is_old(self._reading):
            self._reading, self._next = self._begun(), None
        elif self._next is None and self._reading.task.done() and self._age(self._reading) >= self._renew_s:
            self._next = self._begun()
        return await asyncio.shield(self._reading.task)

    def _take_next(self) -> None:
        """Replaces the document by the next one, when that has been read or this one is too old."""
        following = self._next
        if following is not None and following.has_failed:
            self._next = None
        elif following is not None and (following.task.done() or self._reading is None or self._is_old(self._reading)):
            self._reading, self._next = following, None

    def _age(self, reading: _Reading[Document]) -> float:
        return self._clock() - reading.started_at

    def _is_old(self, reading: _Reading[Document]) -> bool:
        return reading.task.done() and (reading.has_failed or self._age(reading) >= self._kept_s)

    def _begun(self) -> _Reading[Document]:
        task = asyncio.ensure_future(self._run())
        # A read ahead may fail without any caller: the next one reads again.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return _Reading(task, self._clock())

    async def _run(self) -> Document:
        return await self._read()


class SharedReads(Generic[Document]):
    """Reads several documents, each as `SharedRead` does.

    A document is read again when half of its time is over: of callers that keep asking, only the first one waits.

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
        shared = self._reads.pop(key, None) or SharedRead(read, self._kept_s, self._clock, self._kept_s / 2)
        self._reads[key] = shared
        if len(self._reads) > self._most:
            del self._reads[next(iter(self._reads))]
        return await shared.get()

    def forget(self, key: Hashable) -> None:
        """Makes the next caller read the document with this key again."""
        self._reads.pop(key, None)

"""Part buffers from one budget for the whole process, which bounds the memory of all transfers."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from export_worker.transfer.part_sizes import FIRST_PART_BYTES


@dataclass(eq=False, slots=True)
class PartBuffer:
    """The buffer of one part.

    Args:
        data: The bytes; cut to the part's length if that is shorter.
        permit_bytes: Bytes of the budget that it uses until it is given back.
    """

    data: bytearray
    permit_bytes: int

    def cut(self, length_bytes: int) -> None:
        """Keeps only the first bytes."""
        if length_bytes < len(self.data):
            del self.data[length_bytes:]


class BufferPool:
    """A budget of bytes, served in order of arrival. Buffers of whole parts are reused.

    Args:
        budget_bytes: Bytes in the buffers of all transfers. One larger buffer is allowed while no other is in use,
            since a very large file could not be stored otherwise.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._free_bytes = budget_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._spare: list[bytearray] = []

    @property
    def taken_bytes(self) -> int:
        """Bytes in use."""
        return self._budget_bytes - self._free_bytes

    def share(self) -> "BufferShare":
        """Returns the buffers of one transfer. All of them are given back at the end of the `with` block."""
        return BufferShare(self)

    async def take(self, size_bytes: int) -> PartBuffer:
        """Returns a buffer of this size, as soon as the budget allows it."""
        permit_bytes = min(size_bytes, self._budget_bytes)
        if self._waiting or permit_bytes > self._free_bytes:
            await self._wait(permit_bytes)
        else:
            self._free_bytes -= permit_bytes
        return PartBuffer(self._allocate(size_bytes), permit_bytes)

    def give_back(self, buffer: PartBuffer) -> None:
        """Gives back a buffer that is not read or written any more."""
        if len(buffer.data) == buffer.permit_bytes >= FIRST_PART_BYTES:
            self._spare.append(buffer.data)
        self._free(buffer.permit_bytes)
        if not self.taken_bytes:
            self._spare.clear()  # an idle worker keeps no memory

    def _allocate(self, size_bytes: int) -> bytearray:
        # The buffer that was given back last: the processor's cache still has more of it than of any other.
        for position in range(len(self._spare) - 1, -1, -1):
            if len(self._spare[position]) == size_bytes:
                return self._spare.pop(position)
        # Spare buffers use memory, too. A larger buffer replaces spare ones of the old size. A small one frees only as
        # many as the budget requires.
        to_free = (
            size_bytes if size_bytes > FIRST_PART_BYTES else self.taken_bytes + self._spare_bytes - self._budget_bytes
        )
        while self._spare and to_free > 0:
            to_free -= len(self._spare.pop())
        return bytearray(size_bytes)

    @property
    def _spare_bytes(self) -> int:
        return sum(map(len, self._spare))

    async def _wait(self, permit_bytes: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((permit_bytes, granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                with suppress(ValueError):  # `_serve` may have removed it already
                    self._waiting.remove((permit_bytes, granted))
                self._serve()
            else:
                self._free(permit_bytes)  # the budget was granted just before the cancellation
            raise

    def _free(self, permit_bytes: int) -> None:
        self._free_bytes += permit_bytes
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free_bytes:
            permit_bytes, granted = self._waiting.popleft()
            if granted.cancelled():
                continue
            self._free_bytes -= permit_bytes
            granted.set_result(None)


class BufferShare:
    """The buffers that one transfer uses."""

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._out: set[PartBuffer] = set()

    async def take(self, size_bytes: int) -> PartBuffer:
        """See `BufferPool.take`."""
        buffer = await self._pool.take(size_bytes)
        self._out.add(buffer)
        return buffer

    def give_back(self, buffer: PartBuffer) -> None:
        """See `BufferPool.give_back`."""
        self._out.remove(buffer)
        self._pool.give_back(buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for buffer in list(self._out):
            self.give_back(buffer)

"""Part buffers out of one budget for the whole process: memory is bounded by construction, not by hope."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from export_worker.transfer.part_sizes import FIRST_PART_BYTES


@dataclass(eq=False, slots=True)
class PartBuffer:
    """Room for one part.

    Args:
        data: The room; cut to the part's length when that is shorter.
        permit_bytes: What it takes from the budget until it is released.
    """

    data: bytearray
    permit_bytes: int

    def cut(self, length_bytes: int) -> None:
        """Keep the first bytes only."""
        if length_bytes < len(self.data):
            del self.data[length_bytes:]


class BufferPool:
    """A budget of bytes, first come, first served; buffers of whole parts are used again.

    Args:
        budget_bytes: Bytes in buffers over all transfers. A single larger buffer is let through when nothing else is
            out, or a very large file could never be stored.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._free_bytes = budget_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._spare: list[bytearray] = []

    @property
    def taken_bytes(self) -> int:
        """Bytes that are out now."""
        return self._budget_bytes - self._free_bytes

    def share(self) -> "BufferShare":
        """What one transfer takes; all of it comes back at the end of the `with` block."""
        return BufferShare(self)

    async def take(self, size_bytes: int) -> PartBuffer:
        """A buffer of this size, as soon as the budget allows it."""
        permit_bytes = min(size_bytes, self._budget_bytes)
        if self._waiting or permit_bytes > self._free_bytes:
            await self._turn(permit_bytes)
        else:
            self._free_bytes -= permit_bytes
        return PartBuffer(self._room(size_bytes), permit_bytes)

    def give_back(self, buffer: PartBuffer) -> None:
        """Return a buffer that nobody reads or writes any more."""
        if len(buffer.data) == buffer.permit_bytes >= FIRST_PART_BYTES:
            self._spare.append(buffer.data)
        self._free(buffer.permit_bytes)
        if not self.taken_bytes:
            self._spare.clear()  # an idle worker is a small one

    def _room(self, size_bytes: int) -> bytearray:
        for position, spare in enumerate(self._spare):
            if len(spare) == size_bytes:
                return self._spare.pop(position)
        # Spare buffers are memory, too. Larger parts than before take the place of those that had the old size; a small
        # one only asks that the budget holds.
        to_free = (
            size_bytes if size_bytes > FIRST_PART_BYTES else self.taken_bytes + self._spare_bytes - self._budget_bytes
        )
        while self._spare and to_free > 0:
            to_free -= len(self._spare.pop())
        return bytearray(size_bytes)

    @property
    def _spare_bytes(self) -> int:
        return sum(map(len, self._spare))

    async def _turn(self, permit_bytes: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((permit_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # a buffer that came back meanwhile has taken it out already
                    self._waiting.remove((permit_bytes, turn))
                self._serve()
            else:
                self._free(permit_bytes)  # our turn had come just before
            raise

    def _free(self, permit_bytes: int) -> None:
        self._free_bytes += permit_bytes
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free_bytes:
            permit_bytes, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self._free_bytes -= permit_bytes
            turn.set_result(None)


class BufferShare:
    """The buffers of one transfer."""

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

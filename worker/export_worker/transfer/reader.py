"""Fills part buffers from a stream: the seam between where bytes come from and where they go.

The engine knows this protocol alone. Bytes that are stored as they come are received into the buffer by the socket
itself where the download can do that; all others are copied out of the pieces in which they come.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Protocol

from export_worker.platforms.base import Receiver
from export_worker.s3.threads import run_in_thread
from export_worker.transfer.bandwidth import BandwidthLimit
from export_worker.transfer.source import SNIFF_BYTES, GuardedSource, refuse_html
from export_worker.transfer.transforms.base import Transform

TRANSFORM_BYTES = 256 * 1024
"""What one call of a transform gets at most: bounds its output, and is worth the way to a thread."""


class PartReader(Protocol):
    """Gives the bytes to store, in order."""

    async def fill(self, room: memoryview) -> int:
        """Fill the room from its start; fewer bytes than it holds mean that the stream has ended.

        Raises:
            DownloadError: The source failed.
            TransformError: The bytes do not fit the charset.
        """

    async def at_end(self) -> bool:
        """Whether nothing is left; waits until that is certain. Raises as `fill` does."""


class StreamReader:
    """Copies from an iterator of pieces into the room."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    async def fill(self, room: memoryview) -> int:
        """See `PartReader`."""
        filled = 0
        while filled < len(room) and not await self.at_end():
            piece = self._rest[: len(room) - filled]
            room[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._rest = self._rest[len(piece) :]
        return filled

    async def at_end(self) -> bool:
        """See `PartReader`."""
        while not self._rest:
            piece = await anext(self._pieces, None)
            if piece is None:
                return True
            self._rest = memoryview(piece)
        return False


class DirectReader:
    """Lets the socket write into the room. Its body is longer than any error page that is no HTML.

    Args:
        receiver: Not read yet.
        pace: At which it may come.
        is_rest: It begins in the middle of a file, whose beginning has been looked at before.
    """

    def __init__(self, receiver: Receiver, bandwidth: BandwidthLimit, *, is_rest: bool) -> None:
        self._receiver = receiver
        self._bandwidth = bandwidth
        self._at_start = not is_rest

    async def fill(self, room: memoryview) -> int:
        """See `PartReader`.

        Raises:
            DownloadInvalidError: The body begins as an HTML page does.
        """
        filled = await self._receive(room)
        if self._at_start:
            self._at_start = False
            refuse_html(bytes(room[: min(filled, SNIFF_BYTES)]))
        return filled

    async def at_end(self) -> bool:
        """See `PartReader`."""
        return self._receiver.left_bytes == 0

    async def _receive(self, room: memoryview) -> int:
        """A whole part at once, unless a ceiling wants smaller pieces."""
        filled, piece_bytes = 0, self._bandwidth.piece_bytes or len(room)
        while filled < len(room) and not await self.at_end():
            came = await self._receiver.receive_into(room[filled : filled + piece_bytes])
            await self._bandwidth.spend(came)
            filled += came
        return filled


@asynccontextmanager
async def open_reader(
    source: GuardedSource, transform: Transform | None, executor: ThreadPoolExecutor
) -> AsyncIterator[PartReader]:
    """A reader of the source, through a transform where there is one; closes what it reads from.

    Args:
        source: Not read yet.
        transform: Runs in the executor, since compressing would hold up the loop; None costs nothing.
        executor: Where the transform runs.
    """
    receiver = source.receiver() if transform is None else None
    if receiver is not None:
        yield DirectReader(receiver, source.bandwidth, is_rest=source.is_rest)
        return
    async with aclosing(source.chunks()) as pieces:
        if transform is None:
            yield StreamReader(pieces)
            return
        async with aclosing(_transformed(pieces, transform, executor)) as changed:
            yield StreamReader(changed)


async def _transformed(
    pieces: AsyncIterator[bytes], transform: Transform, executor: ThreadPoolExecutor
) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        for part in _slices(piece):
            yield await run_in_thread(executor, partial(transform.feed, part))
    yield await run_in_thread(executor, transform.finish)


def _slices(piece: bytes) -> Iterator[bytes]:
    if len(piece) <= TRANSFORM_BYTES:
        yield piece
        return
    for start in range(0, len(piece), TRANSFORM_BYTES):
        yield piece[start : start + TRANSFORM_BYTES]

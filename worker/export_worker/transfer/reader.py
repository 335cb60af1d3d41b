"""Fills part buffers from a download.

The engine uses only the protocol `PartReader`. If bytes are stored unchanged and the download supports it, the socket
writes them into the buffer directly. All other bytes are copied from the pieces in which they are received.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Protocol

from export_worker.platforms.base import Receiver
from export_worker.s3.threads import run_in_thread
from export_worker.transfer.error_pages import SNIFF_BYTES
from export_worker.transfer.source import ValidatedSource
from export_worker.transfer.transforms.base import Transform

TRANSFORM_BYTES = 256 * 1024
"""Most bytes of one call of a transform. It bounds the output, and is large enough to be worth a thread."""


class PartReader(Protocol):
    """Reads the bytes to store, in order."""

    async def fill(self, buffer: memoryview) -> int:
        """Fills the buffer from its start. Returns the number of bytes; fewer than fit mean that the stream has ended.

        Raises:
            DownloadError: The source failed.
            TransformError: The bytes do not fit the charset.
        """

    async def at_end(self) -> bool:
        """Returns whether the stream has ended; waits until that is certain. Raises the errors of `fill`."""


class StreamReader:
    """Copies from an iterator of pieces into the buffer."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    async def fill(self, buffer: memoryview) -> int:
        """See `PartReader`."""
        filled = 0
        while filled < len(buffer) and not await self.at_end():
            piece = self._rest[: len(buffer) - filled]
            buffer[filled : filled + len(piece)] = piece
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
    """Lets the socket write into the buffer. Only a page of markup or JSON is refused: its body is longer than others.

    Args:
        receiver: Nothing has been read from it.
        source: The source of the receiver. It may start in the middle of a file, whose beginning an earlier attempt has
            checked.
    """

    def __init__(self, receiver: Receiver, source: ValidatedSource) -> None:
        self._receiver = receiver
        self._bandwidth = source.bandwidth
        self._rate = source.rate
        self._error_pages = source.error_pages
        self._at_start = not source.is_rest

    async def fill(self, buffer: memoryview) -> int:
        """See `PartReader`.

        Raises:
            DownloadInvalidError: The body starts like an error page.
        """
        filled = await self._receive(buffer)
        if self._at_start:
            self._at_start = False
            self._error_pages.check_beginning(bytes(buffer[: min(filled, SNIFF_BYTES)]))
        return filled

    async def at_end(self) -> bool:
        """See `PartReader`."""
        return self._receiver.left_bytes == 0

    async def _receive(self, buffer: memoryview) -> int:
        """Receives a whole part at once, unless a bandwidth limit requires smaller pieces."""
        filled, piece_bytes = 0, self._bandwidth.piece_bytes or len(buffer)
        while filled < len(buffer) and not await self.at_end():
            count_bytes = await self._rate.wait_for(self._receiver.receive_into(buffer[filled : filled + piece_bytes]))
            await self._bandwidth.spend(count_bytes)
            filled += count_bytes
        return filled


@asynccontextmanager
async def open_reader(
    source: ValidatedSource, transform: Transform | None, executor: ThreadPoolExecutor
) -> AsyncIterator[PartReader]:
    """Opens a reader of the source, through the transform if there is one. Closes the source at the end.

    Args:
        source: Nothing has been read from it.
        transform: Runs in the executor, since compressing would block the event loop.
        executor: Threads for the transform.
    """
    receiver = source.receiver() if transform is None else None
    if receiver is not None:
        yield DirectReader(receiver, source)
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

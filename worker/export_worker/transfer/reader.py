"""Fills part buffers from a download.

The engine uses only the protocol `PartReader`. If bytes are stored unchanged and the download supports it, the socket
writes them into the buffer directly. All other bytes are copied from the pieces in which they are received.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Protocol

from export_worker.platforms.base import Receiver, RestReceiver
from export_worker.s3.threads import run_in_thread
from export_worker.transfer.error_pages import SNIFF_BYTES
from export_worker.transfer.source import ValidatedSource
from export_worker.transfer.transforms.base import Transform

TRANSFORM_BYTES = 256 * 1024
"""Most bytes of one call of a transform. It bounds the output, and is large enough to be worth a thread."""
PIECES_BYTES = 1024 * 1024
"""Bytes that are read in pieces before the rest is received directly. A smaller file needs no rest: its connection can
be used again."""


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

    @property
    def rest_bytes(self) -> int:
        """Bytes of the last piece that are not read yet."""
        return len(self._rest)

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
        self._source = source
        self._at_start = not source.is_rest

    async def fill(self, buffer: memoryview) -> int:
        """See `PartReader`.

        Raises:
            DownloadInvalidError: The body starts like an error page.
        """
        filled = await _receive(self._receiver, buffer, self._source)
        if self._at_start:
            self._at_start = False
            self._source.error_pages.check_beginning(bytes(buffer[: min(filled, SNIFF_BYTES)]))
        return filled

    async def at_end(self) -> bool:
        """See `PartReader`."""
        return self._receiver.left_bytes == 0


class UnknownLengthReader:
    """Copies the first pieces, and lets the socket write the rest into the buffer if the download supports it.

    Args:
        pieces: Nothing has been read from it. It checks the beginning.
        source: The source of the pieces.
    """

    def __init__(self, pieces: StreamReader, source: ValidatedSource) -> None:
        self._pieces = pieces
        self._source = source
        self._read_bytes = 0
        self._receiver: RestReceiver | None = None
        self._may_receive = True

    async def fill(self, buffer: memoryview) -> int:
        """See `PartReader`."""
        filled = await self._fill_from_pieces(buffer) if self._may_receive else 0
        if self._receiver is not None:
            return filled + await _receive(self._receiver, buffer[filled:], self._source)
        return filled + await self._pieces.fill(buffer[filled:])

    async def at_end(self) -> bool:
        """See `PartReader`."""
        if self._receiver is None:
            return await self._pieces.at_end()
        return await self._source.rate.wait_for(self._receiver.at_end())

    async def _fill_from_pieces(self, buffer: memoryview) -> int:
        """Reads what has to be read in pieces, up to the end of a piece, and then opens the receiver."""
        filled = await self._pieces.fill(buffer[: max(0, PIECES_BYTES - self._read_bytes)])
        filled += await self._pieces.fill(buffer[filled : filled + self._pieces.rest_bytes])
        self._read_bytes += filled
        if self._read_bytes >= PIECES_BYTES and not self._pieces.rest_bytes:
            self._may_receive = False
            self._receiver = self._source.rest_receiver(self._read_bytes)
        return filled


async def _receive(receiver: Receiver | RestReceiver, buffer: memoryview, source: ValidatedSource) -> int:
    """Receives a whole part at once, unless a bandwidth limit requires smaller pieces."""
    filled, piece_bytes = 0, source.bandwidth.piece_bytes or len(buffer)
    while filled < len(buffer):
        piece = buffer[filled : filled + piece_bytes]
        count_bytes = await source.rate.wait_for(receiver.receive_into(piece))
        await source.bandwidth.spend(count_bytes)
        filled += count_bytes
        if count_bytes < len(piece):
            break
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
            yield UnknownLengthReader(StreamReader(pieces), source)
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

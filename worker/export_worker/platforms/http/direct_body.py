"""Receives a response body from its socket directly into the caller's memory.

aiohttp reads the head of the response. If the body is plain bytes (announced length, not chunked, not compressed), the
transport is then handed to the protocol below, and asyncio receives into the caller's buffer: no copy, and no object
for each piece. aiohttp's parser reads all other bodies.

Three methods to fill a part's buffer were measured, each part uploaded with its CRC64NVME. The table has processor
seconds per GiB of the whole process, boto3 included: medians of three runs over loopback on two idle cores (`make
bench-transfer ARGS='--movers direct thread pieces'`). Each row is one file of 1 GiB, or eight files of 128 MiB at once:

                                      this module  blocking reads   pieces from aiohttp,
                                                   in a thread      copied
    known length                        0.77          0.75              1.22
    known length, eight                 0.86          1.11              1.25
    known length, TLS                   2.05          2.19              2.22
    known length, TLS, eight            2.18          2.33              2.47
    unknown length                      (1.24)        1.09              1.23
    unknown length, eight               (1.34)        1.40              1.30
    unknown length, TLS                 (2.34)        2.35              2.36

A thread for each file is cheaper only for a single file over plain HTTP, cannot be cancelled during a read, and needs
a second HTTP client. This module is the same code with and without TLS, can be cancelled at any moment, and detects a
stall with a timer. Bodies of unknown length are read in pieces (in parentheses: this module falls back to pieces, too):
that costs a copy and supports every framing and compression.
"""

import asyncio
from collections.abc import Callable

import aiohttp

from export_worker.errors import DownloadInterruptedError

DIRECT_MIN_BYTES = 1024 * 1024
"""Smaller bodies gain nothing, and aiohttp can reuse the connection of a body that it reads to the end."""

_NOT_RECEIVING = "bytes arrived while no caller was receiving"


class DirectBody(asyncio.BufferedProtocol):
    """The rest of one response body; see `platforms.base.Receiver`.

    Args:
        label: Method and URL of the download, for messages.
        first_bytes: The part of the body that arrived together with the head.
        total_bytes: Length of the whole body.
        stall_s: Longest time without a byte. It counts only while a caller waits, so backpressure is not a stall.
        progress: Called with the number of bytes that were just received.
    """

    def __init__(
        self, label: str, first_bytes: bytes, total_bytes: int, *, stall_s: float, progress: Callable[[int], None]
    ) -> None:
        self._label = label
        self._first_bytes = memoryview(first_bytes)
        self._stall_s = stall_s
        self._progress = progress
        self.left_bytes = total_bytes
        self._transport: asyncio.Transport | None = None
        self._previous_protocol: asyncio.BaseProtocol | None = None
        self._buffer: memoryview | None = None
        self._filled: asyncio.Future[None] | None = None
        self._error: DownloadInterruptedError | None = None
        self._last_received_s = 0.0

    def take_over(self, transport: asyncio.Transport) -> None:
        """Replaces the transport's protocol with this one. The transport must be paused."""
        self._transport = transport
        self._previous_protocol = transport.get_protocol()
        transport.set_protocol(self)

    async def receive_into(self, buffer: memoryview) -> int:
        """See `platforms.base.Receiver`."""
        wanted = min(len(buffer), self.left_bytes)
        filled = min(len(self._first_bytes), wanted)
        if filled:
            buffer[:filled] = self._first_bytes[:filled]
            self._first_bytes = self._first_bytes[filled:]
            self._count(filled)
        if filled < wanted:
            await self._receive(buffer[filled:wanted])
        return wanted

    async def _receive(self, buffer: memoryview) -> None:
        if self._error is not None:
            raise self._error
        if self._transport is None:
            raise RuntimeError("receive_into was called before take_over")
        loop = asyncio.get_running_loop()
        self._buffer, self._filled, self._last_received_s = buffer, loop.create_future(), loop.time()
        self._transport.resume_reading()
        try:
            while not self._filled.done():
                await asyncio.wait([self._filled], timeout=self._last_received_s + self._stall_s - loop.time())
                self._check_stall()
            self._filled.result()
        finally:
            # Whatever ended the wait, nothing may be written into the buffer after this method.
            self._transport.pause_reading()
            self._buffer = self._filled = None

    def _check_stall(self) -> None:
        """Ends the wait if no byte has arrived for `stall_s`."""
        silent_s = asyncio.get_running_loop().time() - self._last_received_s
        if silent_s >= self._stall_s:
            self._fail(DownloadInterruptedError(f"{self._label}: the body stalled"))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's argument
        """Returns the unfilled rest of the buffer. The transport is paused while no caller waits."""
        if self._buffer is None:
            raise RuntimeError(_NOT_RECEIVING)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Counts bytes that the transport has written into the buffer."""
        if self._buffer is None or self._transport is None:
            raise RuntimeError(_NOT_RECEIVING)
        self._last_received_s = asyncio.get_running_loop().time()
        self._buffer = self._buffer[nbytes:]
        if not self._buffer:
            self._transport.pause_reading()
        self._count(nbytes)
        if not self._buffer and self._filled is not None and not self._filled.done():
            self._filled.set_result(None)

    def eof_received(self) -> None:
        """Ends the body early: the server sends no more. The transport closes itself."""
        self._fail(DownloadInterruptedError(f"{self._label}: cut, {self.left_bytes} bytes before its announced end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the body early. Informs aiohttp's protocol, too, because aiohttp's connector may wait for this."""
        why = "the connection was closed" if exc is None else type(exc).__name__
        self._fail(DownloadInterruptedError(f"{self._label}: {why}, {self.left_bytes} bytes before its announced end"))
        if self._previous_protocol is not None:
            self._previous_protocol.connection_lost(exc)

    def _count(self, nbytes: int) -> None:
        self.left_bytes -= nbytes
        self._progress(nbytes)

    def _fail(self, error: DownloadInterruptedError) -> None:
        """Ends the wait with an error. The first error is kept and reported."""
        self._error = self._error or error
        if self._filled is not None and not self._filled.done():
            self._filled.set_exception(self._error)


def direct_body(
    label: str, response: aiohttp.ClientResponse, *, stall_s: float, progress: Callable[[int], None]
) -> DirectBody | None:
    """Takes over the connection of a response, to receive its body directly.

    Args:
        label: Method and URL of the download, for messages.
        response: A response whose body has not been read and has no coding to undo. It yields nothing afterwards;
            closing it closes the connection.
        stall_s: Longest time without a byte.
        progress: Called with the number of bytes that were just received.

    Returns:
        None when the body needs more than copying, is small, has already arrived or is broken. The response is
        unchanged then.
    """
    total_bytes, connection = response.content_length, response.connection
    is_framed = "Transfer-Encoding" in response.headers
    if total_bytes is None or total_bytes < DIRECT_MIN_BYTES or is_framed or connection is None:
        return None
    protocol = connection.protocol
    if protocol is None or protocol.transport is None or response.content.exception() is not None:
        return None
    first_bytes = bytearray()
    # Each read makes aiohttp parse more of what it has buffered, so read until nothing is left. No new bytes arrive
    # during this, because the event loop does not run here.
    while piece := response.content.read_nowait():
        first_bytes += piece
    protocol.pause_reading()  # this also stops aiohttp's read timer
    body = DirectBody(label, bytes(first_bytes), total_bytes, stall_s=stall_s, progress=progress)
    body.take_over(protocol.transport)
    return body

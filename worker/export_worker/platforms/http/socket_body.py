"""Takes over the connection of a response whose head aiohttp has read, to receive the body into the caller's memory."""

import asyncio
from collections.abc import Callable

from export_worker.errors import DownloadInterruptedError

_NOT_RECEIVING = "bytes arrived while no caller was receiving"


class SocketBody(asyncio.BufferedProtocol):
    """The rest of one response body.

    Args:
        label: Method and URL of the download, for messages.
        first_bytes: The bytes of the body that arrived before the transport was taken over, without framing.
        stall_s: Longest time without a byte. It counts only while a caller waits, so backpressure is not a stall.
        progress: Called with the number of bytes that were just received.
    """

    def __init__(self, label: str, first_bytes: memoryview, stall_s: float, progress: Callable[[int], None]) -> None:
        self._label = label
        self._first_bytes = first_bytes
        self._stall_s = stall_s
        self.progress = progress
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

    def take_first(self, buffer: memoryview) -> int:
        """Copies bytes that have already arrived. Returns their number."""
        count = min(len(self._first_bytes), len(buffer))
        if count:
            buffer[:count] = self._first_bytes[:count]
            self._first_bytes = self._first_bytes[count:]
        return count

    async def receive(self, buffer: memoryview) -> None:
        """Receives until `is_enough`. The subclass places the bytes."""
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
            self.fail(DownloadInterruptedError(f"{self._label}: the body stalled"))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's argument
        """Returns the unfilled rest of the buffer. The transport is paused while no caller waits."""
        if self._buffer is None:
            raise RuntimeError(_NOT_RECEIVING)
        return self.room(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        """Counts bytes that the transport has written into the buffer."""
        if self._buffer is None or self._transport is None:
            raise RuntimeError(_NOT_RECEIVING)
        self._last_received_s = asyncio.get_running_loop().time()
        kept = self.keep(self._buffer, nbytes)
        self._buffer = self._buffer[kept:]
        is_enough = self.is_enough(self._buffer)
        if is_enough:
            self._transport.pause_reading()
        if kept:
            self.progress(kept)
        if is_enough and self._filled is not None and not self._filled.done():
            self._filled.set_result(None)

    def eof_received(self) -> None:
        """Ends the body early: the server sends no more. The transport closes itself."""
        self.fail(self.cut())

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the body early. Informs aiohttp's protocol, too, because aiohttp's connector may wait for this."""
        why = "the connection was closed" if exc is None else type(exc).__name__
        self.fail(self.lost(why))
        if self._previous_protocol is not None:
            self._previous_protocol.connection_lost(exc)

    def fail(self, error: DownloadInterruptedError) -> None:
        """Ends the wait with an error. The first error is kept and reported."""
        self._error = self._error or error
        if self._filled is not None and not self._filled.done():
            self._filled.set_exception(self._error)

    def room(self, buffer: memoryview) -> memoryview:
        """Returns the part of the buffer into which the next bytes are received."""
        return buffer

    def keep(self, buffer: memoryview, nbytes: int) -> int:
        """Returns how many of the received bytes belong to the body. They are at the start of the buffer then."""
        raise NotImplementedError

    def is_enough(self, buffer: memoryview) -> bool:
        """Whether the wait is over. The argument is the unfilled rest."""
        return not buffer

    def cut(self) -> DownloadInterruptedError:
        """Returns the error for a server that stops sending before the end."""
        raise NotImplementedError

    def lost(self, why: str) -> DownloadInterruptedError:
        """Returns the error for a connection that ends before the body."""
        raise NotImplementedError

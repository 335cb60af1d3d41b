"""Receives a response body from its socket directly into the caller's memory.

aiohttp reads the head of the response. If the body is plain bytes (announced length, not chunked, not compressed), the
transport is then handed to the protocol below, and asyncio receives into the caller's buffer: no copy, and no object
for each piece. `chunked_body` does the same for the rest of a chunked body. aiohttp's parser reads all other bodies.

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
stall with a timer. The figures in parentheses are from before chunked bodies were received directly.
"""

from collections.abc import Callable

import aiohttp

from export_worker.errors import DownloadInterruptedError
from export_worker.platforms.http.socket_body import SocketBody

DIRECT_MIN_BYTES = 1024 * 1024
"""Smaller bodies gain nothing, and aiohttp can reuse the connection of a body that it reads to the end."""


class DirectBody(SocketBody):
    """The rest of a body of known length; see `platforms.base.Receiver`.

    Args:
        label: Method and URL of the download, for messages.
        first_bytes: The part of the body that arrived together with the head.
        total_bytes: Length of the whole body.
        stall_s: See `SocketBody`.
        progress: See `SocketBody`.
    """

    def __init__(
        self, label: str, first_bytes: bytes, total_bytes: int, *, stall_s: float, progress: Callable[[int], None]
    ) -> None:
        super().__init__(label, memoryview(first_bytes), stall_s, progress)
        self.left_bytes = total_bytes

    async def receive_into(self, buffer: memoryview) -> int:
        """See `platforms.base.Receiver`."""
        wanted = min(len(buffer), self.left_bytes)
        filled = self.take_first(buffer[:wanted])
        if filled:
            self.left_bytes -= filled
            self.progress(filled)
        if filled < wanted:
            await self.receive(buffer[filled:wanted])
        return wanted

    def keep(self, buffer: memoryview, nbytes: int) -> int:  # noqa: ARG002 - all bytes stay where they are
        """See `SocketBody`."""
        self.left_bytes -= nbytes
        return nbytes

    def cut(self) -> DownloadInterruptedError:
        """See `SocketBody`."""
        return DownloadInterruptedError(f"{self._label}: cut, {self.left_bytes} bytes before its announced end")

    def lost(self, why: str) -> DownloadInterruptedError:
        """See `SocketBody`."""
        return DownloadInterruptedError(f"{self._label}: {why}, {self.left_bytes} bytes before its announced end")


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

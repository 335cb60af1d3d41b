"""Receives the rest of a chunked body from its socket into the caller's memory.

Most platforms send chunks. aiohttp reads the head and the first bytes. If more follow, the transport is handed to the
protocol below, which removes the framing itself. It has to know the position in the framing, which aiohttp does not
state. So `RecordingHandler` keeps what the socket has received until then, and the framing is read again from there.
"""

import re
from collections.abc import Callable

import aiohttp

from export_worker.errors import DownloadInterruptedError
from export_worker.platforms.http.chunked import ChunkedFraming, FramingError
from export_worker.platforms.http.recorded_response import recorded_body
from export_worker.platforms.http.socket_body import SocketBody

MOVED_BYTES = 256 * 1024
"""Bytes that are received beyond the current chunk at once. They move, because the framing before them is removed."""
_SCRATCH_BYTES = 16 * 1024
_CHUNKED = re.compile(r"[ \t]*chunked[ \t]*", re.IGNORECASE)


class ChunkedBody(SocketBody):
    """The rest of a chunked body; see `platforms.base.RestReceiver`.

    Args:
        label: Method and URL of the download, for messages.
        first_bytes: Bytes of the body that have arrived, without framing. They are counted as progress here.
        framing: Its position is behind the first bytes.
        stall_s: See `SocketBody`.
        progress: See `SocketBody`.
    """

    def __init__(
        self,
        label: str,
        first_bytes: memoryview,
        framing: ChunkedFraming,
        *,
        stall_s: float,
        progress: Callable[[int], None],
    ) -> None:
        super().__init__(label, first_bytes, stall_s, progress)
        self._framing = framing
        self._unfilled_bytes = self._enough_unfilled_bytes = 0
        progress(len(first_bytes))

    async def receive_into(self, buffer: memoryview) -> int:
        """See `platforms.base.RestReceiver`."""
        filled = self.take_first(buffer)
        if filled < len(buffer) and not self._framing.is_complete:
            filled += await self._fill(buffer[filled:], 0)
        return filled

    async def at_end(self) -> bool:
        """See `platforms.base.RestReceiver`."""
        if not self._first_bytes and not self._framing.is_complete:
            scratch = bytearray(_SCRATCH_BYTES)
            filled = await self._fill(memoryview(scratch), _SCRATCH_BYTES - 1)
            self._first_bytes = memoryview(scratch)[:filled]
        return not self._first_bytes

    async def _fill(self, buffer: memoryview, enough_unfilled_bytes: int) -> int:
        """Receives until the body ends or the rest of the buffer has this size. Returns the number of bytes."""
        self._unfilled_bytes, self._enough_unfilled_bytes = len(buffer), enough_unfilled_bytes
        await self.receive(buffer)
        return len(buffer) - self._unfilled_bytes

    def room(self, buffer: memoryview) -> memoryview:
        """See `SocketBody`."""
        return buffer[: self._framing.left_bytes + MOVED_BYTES]

    def keep(self, buffer: memoryview, nbytes: int) -> int:
        """See `SocketBody`."""
        try:
            kept = self._framing.strip(buffer[:nbytes])
        except FramingError:
            self.fail(DownloadInterruptedError(f"{self._label}: the framing of its chunks is invalid"))
            return 0
        self._unfilled_bytes -= kept
        return kept

    def is_enough(self, buffer: memoryview) -> bool:
        """See `SocketBody`."""
        return self._framing.is_complete or len(buffer) <= self._enough_unfilled_bytes

    def cut(self) -> DownloadInterruptedError:
        """See `SocketBody`."""
        return DownloadInterruptedError(f"{self._label}: cut, before the end of its last chunk")

    def lost(self, why: str) -> DownloadInterruptedError:
        """See `SocketBody`."""
        return DownloadInterruptedError(f"{self._label}: {why}, before the end of its last chunk")


def chunked_body(
    label: str,
    response: aiohttp.ClientResponse,
    received_bytes: int,
    *,
    stall_s: float,
    progress: Callable[[int], None],
) -> ChunkedBody | None:
    """Takes over the connection of a response, to receive the rest of its body.

    Args:
        label: Method and URL of the download, for messages.
        response: A response without a coding to undo. It yields nothing afterwards; closing it closes the connection.
        received_bytes: Bytes of the body that the caller has read from the response.
        stall_s: Longest time without a byte.
        progress: Called with the number of bytes that were just received.

    Returns:
        None when the body is not chunked, has already arrived or is broken. The response is unchanged then.
    """
    if not _CHUNKED.fullmatch(",".join(response.headers.getall("Transfer-Encoding", []))):
        return None
    protocol = None if response.connection is None else response.connection.protocol
    if protocol is None or protocol.transport is None or response.content.exception() is not None:
        return None
    framed, framing = recorded_body(protocol), ChunkedFraming()
    if framed is None:
        return None
    body = memoryview(framed)
    try:
        arrived_bytes = framing.strip(body)
    except FramingError:
        return None  # aiohttp accepts some invalid bodies, and has accepted this one so far
    if framing.is_complete or arrived_bytes < received_bytes:
        return None
    protocol.pause_reading()  # this also stops aiohttp's read timer
    rest = ChunkedBody(label, body[received_bytes:arrived_bytes], framing, stall_s=stall_s, progress=progress)
    rest.take_over(protocol.transport)
    return rest

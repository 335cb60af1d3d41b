"""Receives a body from its socket straight into the caller's memory.

aiohttp reads the head of an answer. Where the body is no more than so many bytes as they are (announced length, no
chunks, no compression), its transport is then handed over to the protocol below, into whose buffer asyncio receives:
no copy, no object a piece. Everything else stays with aiohttp's parser.

Three ways to a part's buffer were measured, each part sent on with its CRC64NVME: processor seconds per GiB of the
whole process, boto3's share among them, medians of three runs over loopback on two cores at rest (`make bench-transfer
ARGS='--movers direct thread pieces'`; a row is one file of 1 GiB or eight of 128 MiB at once):

                                      this one    blocking reads    pieces of aiohttp's,
                                                  in a thread       copied
    known length                        0.77          0.75              1.22
    known length, eight                 0.86          1.11              1.25
    known length, TLS                   2.05          2.19              2.22
    known length, TLS, eight            2.18          2.33              2.47
    unknown length                      (1.24)        1.09              1.23
    unknown length, eight               (1.34)        1.40              1.30
    unknown length, TLS                 (2.34)        2.35              2.36

A thread for each file is no cheaper but for a single one over plain HTTP, cannot be cancelled in a read, and needs a
client of its own. This one is the same code with and without TLS, can be cancelled at any moment, and sees a stall by
a timer. Bodies of unknown length go by pieces in any case, which costs a copy and buys every framing and coding.
"""

import asyncio
from collections.abc import Callable

import aiohttp

from export_worker.errors import DownloadInterruptedError

DIRECT_MIN_BYTES = 1024 * 1024
"""A smaller file gains nothing, and its connection can be used again when aiohttp reads it to the end."""


class DirectBody(asyncio.BufferedProtocol):
    """The rest of one answer; see `platforms.base.Receiver`.

    Args:
        place: Of the download, for messages.
        early: What came along with the head.
        total_bytes: Of the whole body.
        stall_s: Longer without a byte is a stall. Counts only while somebody waits: backpressure is no stall.
        progress: Called with the number of bytes that have just come.
    """

    def __init__(
        self, place: str, early: bytes, total_bytes: int, *, stall_s: float, progress: Callable[[int], None]
    ) -> None:
        self._place = place
        self._early = memoryview(early)
        self._stall_s = stall_s
        self._progress = progress
        self.left_bytes = total_bytes
        self._transport: asyncio.Transport | None = None
        self._former: asyncio.BaseProtocol | None = None
        self._room: memoryview | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._ended: DownloadInterruptedError | None = None
        self._heard_s = 0.0

    def take_over(self, transport: asyncio.Transport) -> None:
        """Receive from now on what this transport brings; it must be paused."""
        self._transport = transport
        self._former = transport.get_protocol()
        transport.set_protocol(self)

    async def receive_into(self, room: memoryview) -> int:
        """See `platforms.base.Receiver`."""
        wanted = min(len(room), self.left_bytes)
        filled = min(len(self._early), wanted)
        if filled:
            room[:filled] = self._early[:filled]
            self._early = self._early[filled:]
            self._count(filled)
        if filled < wanted:
            await self._receive(room[filled:wanted])
        return wanted

    async def _receive(self, room: memoryview) -> None:
        if self._ended is not None:
            raise self._ended
        if self._transport is None:
            raise RuntimeError("a body is received after its connection was taken over")
        loop = asyncio.get_running_loop()
        self._room, self._arrived, self._heard_s = room, loop.create_future(), loop.time()
        self._transport.resume_reading()
        try:
            while not self._arrived.done():
                await asyncio.wait([self._arrived], timeout=self._heard_s + self._stall_s - loop.time())
                self._look()
            self._arrived.result()
        finally:
            # Nothing may be written into the room any more, whatever ended the wait.
            self._transport.pause_reading()
            self._room = self._arrived = None

    def _look(self) -> None:
        """End the wait when nothing has come for too long."""
        silent_s = asyncio.get_running_loop().time() - self._heard_s
        if silent_s >= self._stall_s:
            self._end(DownloadInterruptedError(f"{self._place}: the body stands still"))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's argument
        """The room that is left. Nothing is received while nobody waits: the transport is paused then."""
        if self._room is None:
            raise RuntimeError("bytes came while nobody received")
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Some of the room has been filled."""
        if self._room is None or self._transport is None:
            raise RuntimeError("bytes came while nobody received")
        self._heard_s = asyncio.get_running_loop().time()
        self._room = self._room[nbytes:]
        if not self._room:
            self._transport.pause_reading()
        self._count(nbytes)
        if not self._room and self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def eof_received(self) -> None:
        """The server has said its last; the transport closes itself."""
        self._end(DownloadInterruptedError(f"{self._place}: cut, {self.left_bytes} bytes before its announced end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. aiohttp's own protocol hears of it, too: its connector may wait for that."""
        why = "the connection was closed" if exc is None else type(exc).__name__
        self._end(DownloadInterruptedError(f"{self._place}: {why}, {self.left_bytes} bytes before its announced end"))
        if self._former is not None:
            self._former.connection_lost(exc)

    def _count(self, nbytes: int) -> None:
        self.left_bytes -= nbytes
        self._progress(nbytes)

    def _end(self, error: DownloadInterruptedError) -> None:
        """No more will come; the first reason is the one to tell."""
        self._ended = self._ended or error
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_exception(self._ended)


def direct_body(
    place: str, response: aiohttp.ClientResponse, *, stall_s: float, progress: Callable[[int], None]
) -> DirectBody | None:
    """Take the connection of an answer over, from where its body has been read.

    Args:
        place: Of the download, for messages.
        response: Its body not read yet. Nothing more comes out of it afterwards; closing it closes the connection.
        stall_s: Longer without a byte is a stall.
        progress: Called with the number of bytes that have just come.

    Returns:
        None when the body needs more than copying, is small, or has come or broken already: nothing has changed then.
    """
    total_bytes, connection = response.content_length, response.connection
    framed = {"Transfer-Encoding", "Content-Encoding"} & set(response.headers)
    if total_bytes is None or total_bytes < DIRECT_MIN_BYTES or framed or connection is None:
        return None
    protocol = connection.protocol
    if protocol is None or protocol.transport is None or response.content.exception() is not None:
        return None
    early = bytearray()
    # Reading makes aiohttp go on with what it holds back, so read until nothing is left. Nothing comes in between: the
    # loop does not run here.
    while piece := response.content.read_nowait():
        early += piece
    protocol.pause_reading()  # and no timer of aiohttp's runs any more
    body = DirectBody(place, bytes(early), total_bytes, stall_s=stall_s, progress=progress)
    body.take_over(protocol.transport)
    return body

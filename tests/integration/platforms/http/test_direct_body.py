"""Bodies that are received into the caller's memory, from a raw server, over plain HTTP and TLS."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random

import aiohttp
import pytest

from export_worker.errors import DownloadInterruptedError
from export_worker.platforms.http.direct_body import DIRECT_MIN_BYTES, DirectBody, direct_body
from support import certificates

ROOM_BYTES = 1_000_000
BODY = Random(11).randbytes(3 * ROOM_BYTES + 12_345)
PIECE_BYTES = 100_003
RESET = struct.pack("ii", 1, 0)

Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificate:
    return certificates.certificate(tmp_path_factory.mktemp("tls"))


@dataclass
class Place:
    """Serves one answer to whoever asks."""

    certificate: certificates.Certificate | None

    @asynccontextmanager
    async def answering(self, send: Send) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, its head read."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            conversations.append(asyncio.current_task())
            with suppress(OSError):
                await reader.readuntil(b"\r\n\r\n")
                await send(writer)
                await reader.read()  # until the client closes
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

        conversations: list[asyncio.Task[None] | None] = []

        tls = self.certificate
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.server() if tls else None)
        port = server.sockets[0].getsockname()[1]
        connector = aiohttp.TCPConnector(ssl=tls.client() if tls else True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, read_bufsize=65_536) as session,
                session.get(f"{'https' if tls else 'http'}://127.0.0.1:{port}/a.csv") as response,
            ):
                yield response
        finally:
            server.close()
            await asyncio.gather(*filter(None, conversations))


@pytest.fixture(params=["plain", "tls"])
def place(request: pytest.FixtureRequest, certificate: certificates.Certificate) -> Place:
    return Place(certificate if request.param == "tls" else None)


def head(length: int, *lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {length}", *lines, "", ""]).encode()


def sending(body: bytes, *, announced: int | None = None, pause_s: float = 0.0) -> Send:
    """Head and body, in pieces."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head(len(body) if announced is None else announced))
        for start in range(0, len(body), PIECE_BYTES):
            writer.write(body[start : start + PIECE_BYTES])
            await writer.drain()
            await asyncio.sleep(pause_s)

    return send


def then(send: Send, last: Send) -> Send:
    async def both(writer: asyncio.StreamWriter) -> None:
        await send(writer)
        await last(writer)

    return both


async def closing(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resetting(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


def taken(response: aiohttp.ClientResponse, stall_s: float = 30.0, seen: list[int] | None = None) -> DirectBody:
    progress: Callable[[int], None] = (lambda _: None) if seen is None else seen.append
    body = direct_body("GET /a.csv", response, stall_s=stall_s, progress=progress)
    assert body is not None
    return body


async def read(body: DirectBody, room_bytes: int = ROOM_BYTES) -> bytes:
    """All of it, room by room, as the engine does."""
    whole, room = bytearray(), bytearray(room_bytes)
    while body.left_bytes:
        filled = await body.receive_into(memoryview(room))
        assert filled == room_bytes or not body.left_bytes
        whole += room[:filled]
    return bytes(whole)


@pytest.mark.parametrize("size", [DIRECT_MIN_BYTES, 2 * ROOM_BYTES - 1, 2 * ROOM_BYTES, 2 * ROOM_BYTES + 1, len(BODY)])
async def test_every_byte_arrives_in_its_place(place: Place, size: int) -> None:
    seen: list[int] = []
    async with place.answering(sending(BODY[:size])) as response:
        assert await read(taken(response, seen=seen)) == BODY[:size]
    assert sum(seen) == size


@pytest.mark.parametrize("room_bytes", [65_537, len(BODY)])
async def test_rooms_of_any_size_are_filled(place: Place, room_bytes: int) -> None:
    async with place.answering(sending(BODY)) as response:
        assert await read(taken(response), room_bytes) == BODY


async def test_what_aiohttp_has_received_and_held_back_is_not_lost(place: Place) -> None:
    async with place.answering(sending(BODY)) as response:
        connection = response.connection
        assert connection is not None
        assert connection.protocol is not None
        while not connection.protocol._reading_paused:  # its buffer is full
            await asyncio.sleep(0.01)
        assert await read(taken(response)) == BODY


async def test_nothing_is_read_while_nobody_waits(place: Place) -> None:
    seen: list[int] = []
    async with place.answering(sending(BODY)) as response:
        body, room = taken(response, seen=seen), bytearray(ROOM_BYTES)
        await body.receive_into(memoryview(room))
        await asyncio.sleep(0.1)
        assert sum(seen) == ROOM_BYTES
        assert bytes(room) + await read(body) == BODY


@pytest.mark.parametrize("border", [ROOM_BYTES, 2 * ROOM_BYTES, len(BODY)])
@pytest.mark.parametrize("beside", [-1, 0, 1])
@pytest.mark.parametrize("end", [closing, resetting])
async def test_a_cut_at_each_border_is_noticed(place: Place, border: int, beside: int, end: Send) -> None:
    sent = BODY[: border + beside]
    if len(sent) == len(BODY):
        return
    async with place.answering(then(sending(sent, announced=len(BODY)), end)) as response:
        with pytest.raises(DownloadInterruptedError, match=r"GET /a.csv: .* bytes before its announced end"):
            await read(taken(response))


async def test_bytes_beyond_the_announced_end_are_none_of_the_file(place: Place) -> None:
    async with place.answering(sending(BODY + b"more", announced=len(BODY))) as response:
        assert await read(taken(response)) == BODY


async def test_a_stall_is_noticed(place: Place) -> None:
    async with place.answering(sending(BODY[:-1], announced=len(BODY))) as response:
        with pytest.raises(DownloadInterruptedError, match="stands still"):
            await read(taken(response, stall_s=0.3))


async def test_slow_is_no_stall(place: Place) -> None:
    async with place.answering(sending(BODY, pause_s=0.05)) as response:
        assert await read(taken(response, stall_s=1.0)) == BODY


async def test_waiting_for_the_reader_is_no_stall(place: Place) -> None:
    async with place.answering(sending(BODY)) as response:
        body, room = taken(response, stall_s=0.2), bytearray(ROOM_BYTES)
        await body.receive_into(memoryview(room))
        await asyncio.sleep(0.5)
        assert bytes(room) + await read(body) == BODY


async def test_a_room_is_left_alone_once_its_reader_is_cancelled(place: Place) -> None:
    held = asyncio.Event()

    async def send(writer: asyncio.StreamWriter) -> None:
        await sending(BODY[: ROOM_BYTES // 2], announced=len(BODY))(writer)
        await held.wait()
        writer.write(BODY[ROOM_BYTES // 2 :])

    seen: list[int] = []
    async with place.answering(send) as response:
        body, room = taken(response, seen=seen), bytearray(ROOM_BYTES)
        reading = asyncio.create_task(body.receive_into(memoryview(room)))
        while sum(seen) < ROOM_BYTES // 2:
            await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        before = bytes(room)
        held.set()
        await asyncio.sleep(0.1)
        assert bytes(room) == before
        # Nobody looks at the buffer any more: it may be cut, which an export of it would forbid.
        room.clear()


async def test_closing_the_answer_closes_the_connection(place: Place) -> None:
    closed = asyncio.Event()

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head(len(BODY)))
        try:
            while True:  # more than the sockets' buffers hold
                writer.write(BODY[:PIECE_BYTES])
                await writer.drain()
        finally:
            closed.set()

    async with place.answering(send) as response:
        taken(response)
        response.close()
        async with asyncio.timeout(30):
            await closed.wait()


@pytest.mark.parametrize(
    "answer",
    [
        head(DIRECT_MIN_BYTES - 1) + bytes(DIRECT_MIN_BYTES - 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + bytes(0x200000) + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(DIRECT_MIN_BYTES),
        head(0),
    ],
    ids=["small", "chunked", "unknown", "empty"],
)
async def test_what_needs_more_than_copying_is_left_to_aiohttp(place: Place, answer: bytes) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        if b"Connection: close" in answer[:200]:
            writer.close()

    async with place.answering(send) as response:
        assert direct_body("GET /a.csv", response, stall_s=30, progress=lambda _: None) is None
        assert not (await response.read()).strip(b"\0")


async def test_a_compressed_body_is_left_to_aiohttp(place: Place) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head(2 * DIRECT_MIN_BYTES, "Content-Encoding: gzip"))

    async with place.answering(send) as response:
        assert direct_body("GET /a.csv", response, stall_s=30, progress=lambda _: None) is None


async def test_a_body_that_has_broken_already_is_left_to_aiohttp(place: Place) -> None:
    async with place.answering(then(sending(b"x", announced=len(BODY)), resetting)) as response:
        while response.connection is not None and response.content.exception() is None:
            await asyncio.sleep(0.01)
        assert direct_body("GET /a.csv", response, stall_s=30, progress=lambda _: None) is None
        with pytest.raises(aiohttp.ClientError):
            await response.read()

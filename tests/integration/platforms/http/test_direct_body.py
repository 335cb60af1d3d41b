"""Bodies that are received directly into the caller's memory, from a raw server, over plain HTTP and TLS."""

import asyncio
import socket
import struct
from collections.abc import Callable
from random import Random

import aiohttp
import pytest

from export_worker.errors import DownloadInterruptedError
from export_worker.platforms.http.direct_body import DIRECT_MIN_BYTES, DirectBody, direct_body
from support import certificates
from support.raw_server import RawServer, Send

BUFFER_BYTES = 1_000_000
BODY = Random(11).randbytes(3 * BUFFER_BYTES + 12_345)
PIECE_BYTES = 100_003
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificate:
    return certificates.certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plain", "tls"])
def raw_server(request: pytest.FixtureRequest, certificate: certificates.Certificate) -> RawServer:
    return RawServer(certificate if request.param == "tls" else None)


def head(length: int, *lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {length}", *lines, "", ""]).encode()


def sending(body: bytes, *, announced: int | None = None, pause_s: float = 0.0) -> Send:
    """Sends head and body, in pieces."""

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


def take_over(response: aiohttp.ClientResponse, stall_s: float = 30.0, seen: list[int] | None = None) -> DirectBody:
    progress: Callable[[int], None] = (lambda _: None) if seen is None else seen.append
    body = direct_body("GET /a.csv", response, stall_s=stall_s, progress=progress)
    assert body is not None
    return body


async def receive_all(body: DirectBody, buffer_bytes: int = BUFFER_BYTES) -> bytes:
    """Receives the whole body, one buffer after the other, as the transfer engine does."""
    whole, buffer = bytearray(), bytearray(buffer_bytes)
    while body.left_bytes:
        filled = await body.receive_into(memoryview(buffer))
        assert filled == buffer_bytes or not body.left_bytes
        whole += buffer[:filled]
    return bytes(whole)


@pytest.mark.parametrize(
    "size", [DIRECT_MIN_BYTES, 2 * BUFFER_BYTES - 1, 2 * BUFFER_BYTES, 2 * BUFFER_BYTES + 1, len(BODY)]
)
async def test_body_is_received_completely(raw_server: RawServer, size: int) -> None:
    seen: list[int] = []
    async with raw_server.responding(sending(BODY[:size])) as response:
        assert await receive_all(take_over(response, seen=seen)) == BODY[:size]
    assert sum(seen) == size


@pytest.mark.parametrize("buffer_bytes", [65_537, len(BODY)])
async def test_body_is_received_into_buffers_of_any_size(raw_server: RawServer, buffer_bytes: int) -> None:
    async with raw_server.responding(sending(BODY)) as response:
        assert await receive_all(take_over(response), buffer_bytes) == BODY


async def test_bytes_that_aiohttp_has_buffered_are_kept(raw_server: RawServer) -> None:
    async with raw_server.responding(sending(BODY)) as response:
        connection = response.connection
        assert connection is not None
        assert connection.protocol is not None
        while not connection.protocol._reading_paused:  # its buffer is full
            await asyncio.sleep(0.01)
        assert await receive_all(take_over(response)) == BODY


async def test_nothing_is_received_while_no_caller_waits(raw_server: RawServer) -> None:
    seen: list[int] = []
    async with raw_server.responding(sending(BODY)) as response:
        body, buffer = take_over(response, seen=seen), bytearray(BUFFER_BYTES)
        await body.receive_into(memoryview(buffer))
        await asyncio.sleep(0.1)
        assert sum(seen) == BUFFER_BYTES
        assert bytes(buffer) + await receive_all(body) == BODY


@pytest.mark.parametrize("border", [BUFFER_BYTES, 2 * BUFFER_BYTES, len(BODY)])
@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("end", [closing, resetting])
async def test_truncated_body_raises_interrupted(raw_server: RawServer, border: int, offset: int, end: Send) -> None:
    sent = BODY[: border + offset]
    if len(sent) == len(BODY):
        return
    async with raw_server.responding(then(sending(sent, announced=len(BODY)), end)) as response:
        with pytest.raises(DownloadInterruptedError, match=r"GET /a.csv: .* bytes before its announced end"):
            await receive_all(take_over(response))


async def test_bytes_after_announced_end_are_ignored(raw_server: RawServer) -> None:
    async with raw_server.responding(sending(BODY + b"more", announced=len(BODY))) as response:
        assert await receive_all(take_over(response)) == BODY


async def test_stalled_body_raises_interrupted(raw_server: RawServer) -> None:
    async with raw_server.responding(sending(BODY[:-1], announced=len(BODY))) as response:
        with pytest.raises(DownloadInterruptedError, match="stalled"):
            await receive_all(take_over(response, stall_s=0.3))


async def test_slow_body_is_no_stall(raw_server: RawServer) -> None:
    async with raw_server.responding(sending(BODY, pause_s=0.05)) as response:
        assert await receive_all(take_over(response, stall_s=1.0)) == BODY


async def test_backpressure_is_no_stall(raw_server: RawServer) -> None:
    async with raw_server.responding(sending(BODY)) as response:
        body, buffer = take_over(response, stall_s=0.2), bytearray(BUFFER_BYTES)
        await body.receive_into(memoryview(buffer))
        await asyncio.sleep(0.5)
        assert bytes(buffer) + await receive_all(body) == BODY


async def test_cancelled_receive_writes_no_more_into_buffer(raw_server: RawServer) -> None:
    resume = asyncio.Event()

    async def send(writer: asyncio.StreamWriter) -> None:
        await sending(BODY[: BUFFER_BYTES // 2], announced=len(BODY))(writer)
        await resume.wait()
        writer.write(BODY[BUFFER_BYTES // 2 :])

    seen: list[int] = []
    async with raw_server.responding(send) as response:
        body, buffer = take_over(response, seen=seen), bytearray(BUFFER_BYTES)
        reading = asyncio.create_task(body.receive_into(memoryview(buffer)))
        while sum(seen) < BUFFER_BYTES // 2:
            await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        before = bytes(buffer)
        resume.set()
        await asyncio.sleep(0.1)
        assert bytes(buffer) == before
        # The buffer can be resized, so no memoryview of it is left.
        buffer.clear()


async def test_closing_response_closes_connection(raw_server: RawServer) -> None:
    closed = asyncio.Event()

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head(len(BODY)))
        try:
            while True:  # more than the sockets can buffer
                writer.write(BODY[:PIECE_BYTES])
                await writer.drain()
        finally:
            closed.set()

    async with raw_server.responding(send) as response:
        take_over(response)
        response.close()
        async with asyncio.timeout(30):
            await closed.wait()


@pytest.mark.parametrize(
    "data",
    [
        head(DIRECT_MIN_BYTES - 1) + bytes(DIRECT_MIN_BYTES - 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + bytes(0x200000) + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(DIRECT_MIN_BYTES),
        head(0),
    ],
    ids=["small", "chunked", "unknown", "empty"],
)
async def test_body_that_needs_more_than_copying_stays_with_aiohttp(raw_server: RawServer, data: bytes) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if b"Connection: close" in data[:200]:
            writer.close()

    async with raw_server.responding(send) as response:
        assert direct_body("GET /a.csv", response, stall_s=30, progress=lambda _: None) is None
        assert not (await response.read()).strip(b"\0")


async def test_broken_body_stays_with_aiohttp(raw_server: RawServer) -> None:
    async with raw_server.responding(then(sending(b"x", announced=len(BODY)), resetting)) as response:
        while response.connection is not None and response.content.exception() is None:
            await asyncio.sleep(0.01)
        assert direct_body("GET /a.csv", response, stall_s=30, progress=lambda _: None) is None
        with pytest.raises(aiohttp.ClientError):
            await response.read()

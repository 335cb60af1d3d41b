"""Chunked bodies whose rest is received directly into the caller's memory, from a raw server, plain and TLS."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from random import Random

import aiohttp
import pytest

from export_worker.errors import DownloadInterruptedError
from export_worker.platforms.http.chunked_body import ChunkedBody, chunked_body
from export_worker.platforms.http.recorded_response import DOWNLOAD_BUFFER_BYTES
from support.certificates import certificate
from support.raw_server import RawServer, Send

BUFFER_BYTES = 1_000_000
BODY = Random(12).randbytes(3 * BUFFER_BYTES + 4321)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
END = b"0\r\nDigest: x\r\n\r\n"


@pytest.fixture(scope="module", params=["plain", "tls"])
def raw_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RawServer:
    with_tls = request.param == "tls"
    return RawServer(certificate(tmp_path_factory.mktemp("tls")) if with_tls else None, DOWNLOAD_BUFFER_BYTES)


def framed(body: bytes, chunk_bytes: int) -> Iterator[bytes]:
    for at in range(0, len(body), chunk_bytes):
        chunk = body[at : at + chunk_bytes]
        yield b"%x;n=%d\r\n%s\r\n" % (len(chunk), at, chunk)


def sending(sent: bytes, *, closes: bool = False) -> Send:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        if closes:
            writer.close()

    return send


def take_over(
    response: aiohttp.ClientResponse, received_bytes: int, seen: list[int] | None = None, stall_s: float = 30.0
) -> ChunkedBody | None:
    progress = (lambda _: None) if seen is None else seen.append
    return chunked_body("GET /a.csv", response, received_bytes, stall_s=stall_s, progress=progress)


async def read_some(response: aiohttp.ClientResponse) -> bytes:
    return await response.content.readany()


async def received(response: aiohttp.ClientResponse, seen: list[int] | None = None, stall_s: float = 30.0) -> bytes:
    """Reads a first piece by aiohttp, and receives the rest."""
    whole = await read_some(response)
    rest = take_over(response, len(whole), seen, stall_s)
    assert rest is not None
    buffer = bytearray(BUFFER_BYTES)
    while not await rest.at_end():
        filled = await rest.receive_into(memoryview(buffer))
        whole += buffer[:filled]
        if filled < len(buffer):
            assert await rest.at_end()
    return whole


@pytest.mark.parametrize("chunk_bytes", [1000, 16_384, 1 << 20, len(BODY)])
@pytest.mark.parametrize("size", [2 * BUFFER_BYTES, 3 * BUFFER_BYTES, len(BODY)])
async def test_body_is_received_completely(raw_server: RawServer, chunk_bytes: int, size: int) -> None:
    sent = INTERIM + HEAD + b"".join(framed(BODY[:size], chunk_bytes)) + END + b"HTTP/1.1 200 OK\r\n\r\n"
    seen: list[int] = []
    async with raw_server.responding(sending(sent)) as response:
        assert await received(response, seen) == BODY[:size]
    assert 0 < sum(seen) <= size


@pytest.mark.parametrize("cut_bytes", [1, len(END), len(END) + 1, len(END) + 2, len(END) + 3, BUFFER_BYTES])
async def test_cut_body_raises_interrupted(raw_server: RawServer, cut_bytes: int) -> None:
    sent = HEAD + b"".join(framed(BODY, 1 << 20)) + END
    async with raw_server.responding(sending(sent[:-cut_bytes], closes=True)) as response:
        with pytest.raises(DownloadInterruptedError, match=r"GET /a.csv: .* before the end of its last chunk"):
            await received(response)


@pytest.mark.parametrize("garbage", [b"\r\nzz\r\n", b"x" * 10_000, b"\r\n0\r\n" + b"n: v\r\n" * 5000])
async def test_invalid_framing_raises_interrupted(raw_server: RawServer, garbage: bytes) -> None:
    sent = HEAD + b"%x\r\n%s" % (len(BODY), BODY) + garbage
    async with raw_server.responding(sending(sent)) as response:
        with pytest.raises(DownloadInterruptedError, match=r"GET /a.csv: .*chunk"):
            await received(response)


async def test_stalled_body_raises_interrupted(raw_server: RawServer) -> None:
    async with raw_server.responding(sending(HEAD + b"ffffffff\r\n" + BODY)) as response:
        with pytest.raises(DownloadInterruptedError, match="stalled"):
            await received(response, stall_s=0.3)


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"5\r\n12345\r\n" + END,
        b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n" + bytes(2000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\n12345\r\n",
    ],
    ids=["complete", "length", "coded"],
)
async def test_other_body_stays_with_aiohttp(raw_server: RawServer, sent: bytes) -> None:
    async with raw_server.responding(sending(sent)) as response:
        with suppress(aiohttp.ClientError):
            assert take_over(response, len(await read_some(response))) is None


async def test_bytes_that_caller_does_not_know_are_not_skipped(raw_server: RawServer) -> None:
    async with raw_server.responding(sending(HEAD + b"".join(framed(BODY, 1 << 16)) + END)) as response:
        first = await read_some(response)
        assert take_over(response, len(BODY)) is None
        assert first + await response.read() == BODY

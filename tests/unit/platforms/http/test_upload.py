"""Streamed request bodies: sent piece by piece, with their length if it is known, and again only where that is safe."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from export_worker.credentials import Redactor
from export_worker.errors import (
    AuthFailedError,
    InvalidRequestError,
    PlatformMalformedError,
    PlatformUnavailableError,
    TransformError,
)
from export_worker.platforms.http.client import ANONYMOUS, Call, HttpClient
from export_worker.platforms.http.outgoing import Credential
from support.scripted_server import ScriptedServer, json_replied


class RenewingAuth:
    """Provides a new credential on every renewal."""

    async def credential(self) -> Credential:
        return ANONYMOUS

    async def renew(self, rejected: Credential) -> Credential:
        return Credential(headers={"X-Fresh": "1"})

    async def close(self) -> None:
        pass


async def lines() -> AsyncIterator[bytes]:
    yield b"a\r\n"
    yield b"b\r\n"


async def test_streamed_body_is_sent_completely_with_its_media_type() -> None:
    async with ScriptedServer() as server:
        client = HttpClient("ta", server.url, Redactor())
        server.on("/up", json_replied({"ok": True}))
        assert await client.call(Call("POST", "/up", data=lines(), content_type="text/csv"), RenewingAuth()) == {
            "ok": True
        }
        await client.close()
    [seen] = server.seen
    assert (seen.body, seen.headers["Content-Type"]) == (b"a\r\nb\r\n", "text/csv")
    assert seen.headers["Transfer-Encoding"] == "chunked"


async def test_streamed_body_is_not_sent_again_after_401() -> None:
    async with ScriptedServer() as server:
        client = HttpClient("ta", server.url, Redactor())
        server.on("/up", json_replied({}, status=401))
        with pytest.raises(AuthFailedError):
            await client.call(Call("POST", "/up", data=lines()), RenewingAuth())
        await client.close()
    assert len(server.seen) == 1


class Text:
    """An upload of a text, which can be read twice."""

    def __init__(self, *chunks: bytes, total_bytes: int | None = None, error: Exception | None = None) -> None:
        self._chunks = chunks
        self._left = list(chunks)
        self._error = error
        self.total_bytes = total_bytes

    def __aiter__(self) -> "Text":
        return self

    async def __anext__(self) -> bytes:
        if self._left:
            return self._left.pop(0)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def rewind(self) -> bool:
        self._left = list(self._chunks)
        return True


@asynccontextmanager
async def called(server: ScriptedServer) -> AsyncIterator[Callable[[Call], asyncio.Future[object]]]:
    client = HttpClient("ta", server.url, Redactor())
    yield lambda call: asyncio.ensure_future(client.call(call, RenewingAuth()))
    await client.close()


async def test_length_that_is_known_is_sent() -> None:
    async with ScriptedServer() as server, called(server) as call:
        server.on("/up", json_replied({"ok": True}))
        await call(Call("POST", "/up", data=Text(b"a\r\n", b"b", total_bytes=4), content_type="text/csv"))
    [seen] = server.seen
    assert (seen.body, seen.headers["Content-Length"]) == (b"a\r\nb", "4")
    assert "Transfer-Encoding" not in seen.headers


@pytest.mark.parametrize("total_bytes", [3, 5])
async def test_body_of_another_length_than_announced_is_refused(total_bytes: int) -> None:
    async with ScriptedServer() as server, called(server) as call:
        server.on("/up", json_replied({}))
        with pytest.raises(InvalidRequestError, match="was changed while it was sent"):
            await call(Call("POST", "/up", data=Text(b"ab", b"cd", total_bytes=total_bytes)))


async def test_error_of_the_source_is_raised_and_is_no_error_of_the_platform() -> None:
    async with ScriptedServer() as server, called(server) as call:
        server.on("/up", json_replied({}))
        with pytest.raises(TransformError, match=r"^byte 7$"):
            await call(Call("POST", "/up", data=Text(b"ab", error=TransformError("byte 7"))))


async def test_body_that_can_be_read_twice_is_sent_again_after_401() -> None:
    async with ScriptedServer() as server, called(server) as call:
        server.on("/up", json_replied({}, status=401), json_replied({"ok": True}))
        assert await call(Call("POST", "/up", data=Text(b"ab", b"cd"))) == {"ok": True}
    assert [seen.body for seen in server.seen] == [b"abcd", b"abcd"]


@asynccontextmanager
async def breaking_server(*, after: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Closes the first connection without an answer once a request contains this text; then it answers."""
    received: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while after not in data:
            data += await reader.read(65_536)
        received.append(data)
        if len(received) == 2:
            while not data.endswith((b"0\r\n\r\n", b"END")):
                data += await reader.read(65_536)
            received[1] = data
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        writer.transport.abort() if len(received) == 1 else writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", received
    finally:
        server.close()
        await server.wait_closed()


async def test_success_before_the_whole_body_was_sent_is_refused() -> None:
    refused = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await refused.wait()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        client = HttpClient("ta", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", Redactor())
        with pytest.raises(PlatformMalformedError, match="before the whole body was sent"):
            await client.call(Call("POST", "/up", data=Text(*LONG)), RenewingAuth())
        refused.set()
        await client.close()


LONG = (b"x" * 8_000_000, b"END")
"""More than the buffers of a connection hold, so the end is not sent when the server closes the connection."""


@pytest.mark.parametrize(
    ("chunks", "after", "is_repeatable", "is_sent_again"),
    [
        (LONG, b"xxx", False, True),
        ((b"aEND",), b"END", False, False),
        ((b"aEND",), b"END", True, True),
    ],
    ids=["incomplete", "complete", "complete, but it replaces"],
)
async def test_upload_without_an_answer_is_sent_once_more_where_that_is_harmless(
    chunks: tuple[bytes, ...], after: bytes, *, is_repeatable: bool, is_sent_again: bool
) -> None:
    async with breaking_server(after=after) as (url, received):
        client = HttpClient("ta", url, Redactor())
        body = Text(*chunks, total_bytes=sum(map(len, chunks)))
        call = Call("POST", "/up", data=body, is_repeatable=is_repeatable)
        if is_sent_again:
            assert await client.call(call, RenewingAuth()) == {}
            assert received[1].endswith(b"".join(chunks))
        else:
            with pytest.raises(PlatformUnavailableError, match="the platform may have received the upload"):
                await client.call(call, RenewingAuth())
        await client.close()
    assert len(received) == (2 if is_sent_again else 1)

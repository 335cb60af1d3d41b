"""A real HTTP server with scripted replies that records its requests, and a raw server that can violate HTTP."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from aiohttp import web

CANARY = "canary-Token+with/odd=signs"


@dataclass(frozen=True)
class Seen:
    """One request, unchanged from the wire."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode())


Reply = Callable[[Seen], Awaitable[web.StreamResponse]]


def replied(
    body: bytes | str = b"",
    status: int = 200,
    content_type: str = "application/octet-stream",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    async def reply(_: Seen) -> web.StreamResponse:
        content = body.encode() if isinstance(body, str) else body
        return web.Response(body=content, status=status, headers={"Content-Type": content_type, **(headers or {})})

    return reply


def json_replied(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return replied(json.dumps(value), status, "application/json", headers)


def redirected(location: str, status: int = 302) -> Reply:
    return replied(status=status, headers={"Location": location})


async def echoed(seen: Seen) -> web.StreamResponse:
    """Replies with an error page that shows the credential of the request, as debug pages do."""
    shown = f"refused:\r\n\x00 {seen.headers.get('Authorization')} {seen.target} {seen.body.decode()}"
    return web.Response(text=shown, status=500)


class ScriptedServer:
    """Listens on a free port of the loopback interface. A path without scripted replies responds 418.

    Args:
        address: The IPv4 or IPv6 address of the interface.
        tls: Serve TLS with this context.
    """

    def __init__(self, address: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._tls = tls
        self.port = 0
        self.seen: list[Seen] = []
        self._replies: dict[str, list[Reply]] = {}
        self._runner: web.ServerRunner | None = None
        self.url = ""

    def on(self, path: str, *replies: Reply) -> None:
        """Scripts a path: each reply is used once, and the last one for all further requests."""
        self._replies[path] = list(replies)

    def asked(self, path: str) -> list[Seen]:
        """Returns the requests to a path."""
        return [seen for seen in self.seen if seen.target.partition("?")[0] == path]

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._address, 0, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]
        host = f"[{self._address}]" if ":" in self._address else self._address
        self.url = f"http{'s' if self._tls else ''}://{host}:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = Seen(request.method, request.raw_path, request.headers, await request.read())
        self.seen.append(seen)
        replies = self._replies.get(seen.target.partition("?")[0])
        if not replies:
            return web.Response(status=418, text=f"nothing is scripted for {seen.target}")
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return await reply(seen)


@asynccontextmanager
async def raw_server(answer: bytes, *, hold: bool = False, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serves the same bytes to every request, then closes the connection, or keeps it open without sending more.

    Args:
        answer: The bytes of the response.
        hold: Keep the connection open.
        tls: Serve TLS with this context.
    """
    done = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            if hold:
                await done.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        done.set()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def dripping_server(answer: bytes, at_once: int, pause_s: float) -> AsyncIterator[str]:
    """Serves the beginning of an answer at once, and then one byte after each pause.

    Args:
        answer: The bytes of the response. When all are sent, the connection is closed.
        at_once: How many bytes are sent at once.
        pause_s: The pause before each further byte.
    """

    sending = set[asyncio.Task[None]]()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer[:at_once])
            for position in range(at_once, len(answer)):
                await asyncio.sleep(pause_s)
                writer.write(answer[position : position + 1])
                await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sending.add(asyncio.create_task(send(reader, writer)))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending)
        await server.wait_closed()

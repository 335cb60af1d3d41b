"""A real HTTP proxy with Basic authentication, and a TLS front for a server without TLS."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TLS_HANDSHAKE = b"\x16"
"""The first byte of a client that uses TLS."""
REFUSALS = {
    400: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    403: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    407: b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="net"\r\n'
    b"Content-Length: 0\r\n\r\n",
    502: b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
}


@dataclass
class Proxy:
    """A running proxy.

    Args:
        targets: The port on 127.0.0.1 of each `host:port`, which a test may extend.
        url: Its address, without user and password.
        asked: The host and port of each request that it has forwarded.
        refused: The host and port of each request that it has refused, with the status.
    """

    targets: dict[str, int]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    refused: list[tuple[str, int]] = field(default_factory=list)

    def with_login(self, login: str) -> str:
        """Returns its address with `user:password`."""
        return self.url.replace("://", f"://{login}@")


@asynccontextmanager
async def proxy_server(
    targets: Mapping[str, int],
    *,
    login: str | None = None,
    tls: ssl.SSLContext | None = None,
    forbidden: frozenset[str] = frozenset(),
) -> AsyncIterator[Proxy]:
    """Runs a proxy on a free port.

    Args:
        targets: The port on 127.0.0.1 of each `host:port`. For any other it answers 502, as a proxy whose DNS does
            not know the name.
        login: The `user:password` that it requires.
        tls: It is an https:// proxy.
        forbidden: Each `host:port` for which it answers 403.
    """
    proxy = Proxy(dict(targets))
    required = None if login is None else f"Basic {b64encode(login.encode()).decode()}".encode()

    def refusal(target: str, head: bytes) -> int | None:
        if required is not None and b"proxy-authorization: " + required not in _lower_names(head):
            return 407
        if target in forbidden:
            return 403
        return None if target in proxy.targets else 502

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == TLS_HANDSHAKE:
            writer.write(REFUSALS[400])
            return
        head = first + await reader.readuntil(b"\r\n\r\n")
        method, address, _ = head.split(b" ", 2)
        target = address.decode() if method == b"CONNECT" else _authority(address.decode())
        status = refusal(target, head)
        if status is not None:
            proxy.refused.append((target, status))
            writer.write(REFUSALS[status])
            await writer.drain()
            return
        proxy.asked.append(target)
        inner = await asyncio.open_connection("127.0.0.1", proxy.targets[target])
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            inner[1].write(_origin_form(head))
        await _joined((reader, writer), inner)

    async with _serving(serve, tls) as port:
        proxy.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        yield proxy


@asynccontextmanager
async def tls_front(address: str, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """Terminates TLS in front of the server of a URL, as a sidecar does. Yields the front's port on 127.0.0.1."""
    server = urlsplit(address)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _joined((reader, writer), await asyncio.open_connection(server.hostname, server.port))

    async with _serving(serve, tls) as front_port:
        yield front_port


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _serving(serve: Serve, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    running = set[asyncio.Task[None]]()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # The other side may have closed the connection.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(handled(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        tasks = list(running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await server.wait_closed()


async def _joined(one: Ends, other: Ends) -> None:
    """Copies the bytes between two connections until one of them ends; closes the second one."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    try:
        await asyncio.gather(pump(one[0], other[1]), pump(other[0], one[1]))
    finally:
        other[1].close()


def _authority(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.hostname}:{parts.port or 80}"


def _origin_form(head: bytes) -> bytes:
    """Returns the head of a request to a proxy as the server itself expects it. Its connection is used once."""
    line, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, address, version = line.split(b" ")
    parts = urlsplit(address)
    path = (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
    kept = [field for field in fields if not field.lower().startswith((b"proxy-authorization:", b"connection:"))]
    return b"\r\n".join([b" ".join((method, path, version)), *kept, b"Connection: close", b"", b""])


def _lower_names(head: bytes) -> bytes:
    """Returns a head with the names of its fields in lower case."""
    fields = (line.partition(b":") for line in head.split(b"\r\n"))
    return b"\r\n".join(name.lower() + colon + value for name, colon, value in fields)

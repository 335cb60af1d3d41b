"""A store that answers each request with the same bytes, and counts requests and connections."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

GOOD = b'HTTP/1.1 200 OK\r\nETag: "0123"\r\nContent-Length: 0\r\n\r\n'


class SmallStore:
    """The store.

    Attributes:
        answer: The bytes of the answer. Empty: the server closes the connection. None: it sends nothing.
        requests: The first line of each request.
        connections: The number of connections so far.
    """

    good = GOOD

    def __init__(self) -> None:
        self.answer: bytes | None = GOOD
        self.requests: list[str] = []
        self.connections = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def serve_tls(self, tls: ssl.SSLContext | None) -> None:
        """Serves at a free port, or at the same port with another certificate."""
        port = 0
        if self._server is not None:
            port = self._server.sockets[0].getsockname()[1]
            await self.close()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"

    async def close_connections(self) -> None:
        """Closes all connections that clients keep open."""
        for writer in self._writers:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()
        self._writers.clear()

    async def close(self) -> None:
        """Ends the server."""
        if self._server is not None:
            self._server.close()
        await self.close_connections()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                await reader.readexactly(int(fields.get("content-length", 0)))
                self.requests.append(lines[0])
                if self.answer:
                    writer.write(self.answer)
                if self.answer not in {GOOD, None}:
                    break
        if self.answer is not None:
            writer.close()


@asynccontextmanager
async def small_store(tls: ssl.SSLContext | None = None) -> AsyncIterator[SmallStore]:
    """Serves a store, over TLS if there is a context for it."""
    store = SmallStore()
    await store.serve_tls(tls)
    try:
        yield store
    finally:
        await store.close()

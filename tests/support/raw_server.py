"""A server that sends bytes of a test as its response."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp

from export_worker.platforms.http.recorded_response import record_downloads
from support import certificates

Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """Sends one response to every request, over plain HTTP or TLS."""

    certificate: certificates.Certificate | None
    read_bufsize: int = 65_536

    @asynccontextmanager
    async def responding(self, send: Send) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yields the response to a request. Its head has been read."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.append(asyncio.current_task())
            with suppress(OSError):
                await reader.readuntil(b"\r\n\r\n")
                await send(writer)
                await reader.read()  # until the client closes
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

        handlers: list[asyncio.Task[None] | None] = []

        tls = self.certificate
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.server() if tls else None)
        port = server.sockets[0].getsockname()[1]
        connector = record_downloads(aiohttp.TCPConnector(ssl=tls.client() if tls else True))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, read_bufsize=self.read_bufsize) as session,
                session.get(f"{'https' if tls else 'http'}://127.0.0.1:{port}/a.csv") as response,
            ):
                yield response
        finally:
            server.close()
            await asyncio.gather(*filter(None, handlers))

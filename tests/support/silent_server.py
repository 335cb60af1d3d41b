"""A server that accepts connections and never answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class SilentServer:
    """A server that accepts connections and never answers."""

    port: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    open_connections: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        self.opened.set()
        with suppress(ConnectionError):
            while await reader.read(1024):
                pass
        writer.close()
        self.open_connections -= 1
        if self.open_connections == 0:
            self.closed.set()


@asynccontextmanager
async def silent_server() -> AsyncIterator[SilentServer]:
    found = SilentServer()
    server = await asyncio.start_server(found.serve, "127.0.0.1")
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found

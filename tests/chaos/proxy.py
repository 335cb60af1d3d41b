"""A TCP proxy in front of one service, for one process. It can stop a direction, reset, and slow downloads down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from export_worker.redis.cancellation import cancel_and_wait

Direction = Literal["requests", "answers"]
DIRECTIONS: tuple[Direction, ...] = ("requests", "answers")
READ_BYTES = 65536
_HEAD_END = b"\r\n\r\n"


class TcpProxy:
    """Forwards connections to a port of this machine.

    A direction that is held forwards nothing: what was sent arrives late, after `release`, or never, after `reset`.

    Args:
        upstream_port: The port of the service.
        drip_path: The beginning of request lines whose answers arrive at one byte a second behind their head.
    """

    def __init__(self, upstream_port: int, drip_path: bytes | None = None) -> None:
        self._upstream_port = upstream_port
        self._drip_path = drip_path
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = {direction: asyncio.Event() for direction in DIRECTIONS}
        self.port = 0
        self.release()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["TcpProxy"]:
        """Serves until the context ends."""
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await cancel_and_wait(*self._connections)
            # The transports that were aborted close their sockets in the next turn of the loop.
            await asyncio.sleep(0)

    def hold(self, direction: Direction) -> None:
        """Stops one direction of all connections, also of new ones."""
        self._flowing[direction].clear()

    def release(self) -> None:
        """Lets both directions flow again."""
        for flowing in self._flowing.values():
            flowing.set()

    def reset(self) -> None:
        """Aborts all connections. What was held is lost."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self._drip_path)
        ends = {writer, upstream_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump("requests", connection, reader, upstream_writer))
                pumps.create_task(self._pump("answers", connection, upstream_reader, writer))
        except* OSError:
            pass
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self,
        direction: Direction,
        connection: "_Connection",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(READ_BYTES):
            await self._flowing[direction].wait()
            if direction == "requests":
                connection.note_request(data)
            at_once, slowly = connection.split(data) if direction == "answers" else (data, b"")
            writer.write(at_once)
            await writer.drain()
            for byte in slowly:
                await asyncio.sleep(1.0)
                writer.write(bytes([byte]))
                await writer.drain()
        await self._flowing[direction].wait()
        with suppress(OSError):
            writer.write_eof()
        if direction == "answers":
            raise ConnectionResetError("the service has closed the connection")


class _Connection:
    """Whether the answer of one connection is slowed down, and whether its head has passed."""

    def __init__(self, drip_path: bytes | None) -> None:
        self._drip_path = drip_path
        self._drips = False
        self._head = b""

    def note_request(self, data: bytes) -> None:
        if self._drip_path is not None and not self._drips:
            self._drips, self._head = data.startswith(self._drip_path), b""

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """Returns the bytes of an answer that pass at once, and those that drip."""
        if not self._drips:
            return data, b""
        before = len(self._head)
        if _HEAD_END not in self._head:
            self._head += data
            if _HEAD_END not in self._head:
                return data, b""
            body_at = self._head.index(_HEAD_END) + len(_HEAD_END) - before
            return data[:body_at], data[body_at:]
        return b"", data

"""Connections on which requests are sent without botocore, by the event loop or by a thread.

A connection is opened in a thread. Between two requests it belongs to no event loop, so the next request may be sent,
and the connection closed, from every thread.
"""

import asyncio
import math
import socket
import ssl
import struct
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from export_worker.s3.small_answers import Answer, AnswerReader, BrokenAnswerError
from export_worker.s3.threads import run_in_thread

RECEIVE_BYTES = 64 * 1024
TLS_SEND_BYTES = 1024 * 1024
"""Of a body, in one call with one timeout: a store that takes less in that time counts as silent."""
_MORE_FOLLOWS = getattr(socket, "MSG_MORE", 0)
_WOULD_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True, slots=True)
class Server:
    """Where requests are sent.

    Args:
        host: Name or IP address.
        host_header: Host and port, as in a request.
        is_tls: Whether the connection is encrypted.
    """

    host: str
    port: int
    host_header: str
    is_tls: bool


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one exchange, in seconds.

    Args:
        connect_s: Longest time to connect, and to agree on TLS.
        read_s: Longest wait for the next byte.
        body_s: Longest time for one answer.
    """

    connect_s: float
    read_s: float
    body_s: float


class SilentServerError(Exception):
    """The server has not sent or received anything for too long."""


class Connection:
    """One connection. It serves one request at a time.

    Attributes:
        is_idle: Another request may be sent.
    """

    def __init__(self, server: Server, opened: socket.socket) -> None:
        self.server = server
        self.is_idle = True
        self._socket = opened
        self._cancelled = False

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes it."""
        self._socket.close()

    def is_usable(self) -> bool:
        """Whether the server has neither closed it nor sent anything since the last answer."""
        try:
            self._socket.recv(1)
        except _WOULD_WAIT:
            return True
        except OSError:
            return False
        return False

    async def exchange(self, request: bytes, body: bytes | bytearray, reader: AnswerReader, limits: Timeouts) -> Answer:
        """Sends a request and returns its answer.

        If the caller is cancelled, this method still waits for the answer, and then raises CancelledError: no request
        is on its way when it returns.

        Raises:
            OSError: The connection broke.
            BrokenAnswerError: The answer is no answer of HTTP, or is incomplete.
            SilentServerError: A wait took too long.
        """
        self.is_idle = self._cancelled = False
        try:
            await self._send_and_receive(request, body, reader, limits)
        except (OSError, BrokenAnswerError, SilentServerError):
            if self._cancelled:
                raise asyncio.CancelledError from None
            raise
        self.is_idle = reader.answer.is_reusable
        if self._cancelled:
            raise asyncio.CancelledError
        return reader.answer

    async def _send_and_receive(
        self, request: bytes, body: bytes | bytearray, reader: AnswerReader, limits: Timeouts
    ) -> None:
        ends_s = asyncio.get_running_loop().time() + limits.body_s
        for data in (request, body) if len(body) > RECEIVE_BYTES else (request + body,):
            await self._send(data, limits.read_s)
        while not reader.feed(await self._receive(limits.read_s)):
            if asyncio.get_running_loop().time() > ends_s:
                raise SilentServerError

    def exchange_in_thread(
        self, request: bytes, body: bytes | bytearray, reader: AnswerReader, limits: Timeouts
    ) -> Answer:
        """Does the same as `exchange` by blocking calls. A large body leaves with one call of the system."""
        self.is_idle = False
        try:
            self._send_in_thread(request, body, limits)
            ends_s = time.monotonic() + limits.body_s
            while not reader.feed(self._socket.recv(RECEIVE_BYTES)):
                if time.monotonic() > ends_s:
                    raise SilentServerError
        except (*_WOULD_WAIT, TimeoutError):  # the socket's own timeout has passed
            raise SilentServerError from None
        self._socket.setblocking(False)
        self.is_idle = reader.answer.is_reusable
        return reader.answer

    def _send_in_thread(self, request: bytes, body: bytes | bytearray, limits: Timeouts) -> None:
        if not isinstance(self._socket, ssl.SSLSocket):
            self._socket.setblocking(True)
            self._socket.sendall(request, _MORE_FOLLOWS)
            self._socket.sendall(body)
            return
        # TLS repeats a read that has reached the timeout of the system. So it needs a timeout of Python for each call.
        self._socket.settimeout(limits.read_s)
        self._socket.sendall(request)
        with memoryview(body) as view:
            for start in range(0, len(view), TLS_SEND_BYTES):
                self._socket.sendall(view[start : start + TLS_SEND_BYTES])

    async def _send(self, data: bytes | bytearray, timeout_s: float) -> None:
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                try:
                    sent += self._socket.send(view[sent:])
                except _WOULD_WAIT as error:
                    await self._wait(timeout_s, to_write=not isinstance(error, ssl.SSLWantReadError))

    async def _receive(self, timeout_s: float) -> bytes:
        while True:
            if not isinstance(self._socket, ssl.SSLSocket):
                await self._wait(timeout_s)  # to try it first would nearly always be in vain
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except _WOULD_WAIT as error:
                if isinstance(self._socket, ssl.SSLSocket):
                    await self._wait(timeout_s, to_write=isinstance(error, ssl.SSLWantWriteError))

    async def _wait(self, timeout_s: float, *, to_write: bool = False) -> None:
        """Waits until the socket can be read or written. A cancellation is noted, and does not end the wait."""
        loop, descriptor = asyncio.get_running_loop(), self._socket.fileno()
        add, remove = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)
        is_ready = False
        while not is_ready:
            waiter: asyncio.Future[bool] = loop.create_future()
            add(descriptor, _wake, waiter)
            timer = loop.call_later(timeout_s, _expire, waiter)
            try:
                is_ready = await waiter
                if not is_ready:
                    raise SilentServerError
            except asyncio.CancelledError:
                self._cancelled = True
            finally:
                timer.cancel()
                remove(descriptor)


def _wake(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(True)


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


class ConnectionPool:
    """Connections to the servers of one client.

    Args:
        spare_max: Connections to one server that are kept open while they are not used.
        timeouts: Limits of each connection and exchange.
        tls: Returns the settings of TLS. They are read again after a failure.
    """

    def __init__(self, spare_max: int, timeouts: Timeouts, tls: Callable[[], ssl.SSLContext]) -> None:
        self._spare_max = spare_max
        self.timeouts = timeouts
        self._build_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._spare: defaultdict[Server, list[Connection]] = defaultdict(list)

    async def take(self, server: Server, executor: ThreadPoolExecutor) -> Connection:
        """Returns an open connection. Raises OSError if there is none and none can be opened."""
        spare = self._take_spare(server)
        return await self._opened(server, executor) if spare is None else spare

    async def _opened(self, server: Server, executor: ThreadPoolExecutor) -> Connection:
        """Opens a connection in a thread. Closes it if the caller is cancelled meanwhile, which loses the result."""
        opened: list[Connection] = []
        try:
            await run_in_thread(executor, lambda: opened.append(self._open(server)))
        except asyncio.CancelledError:
            for connection in opened:
                connection.close()
            raise
        return opened[0]

    def take_in_thread(self, server: Server) -> Connection:
        """Does the same as `take` by blocking calls."""
        spare = self._take_spare(server)
        return self._open(server) if spare is None else spare

    def _take_spare(self, server: Server) -> Connection | None:
        spare = self._spare[server]
        with suppress(IndexError):  # another thread may take the last one
            while True:
                connection = spare.pop()
                if connection.is_usable():
                    return connection
                connection.close()
        return None

    def give_back(self, connection: Connection) -> None:
        """Keeps a connection for later requests if it is idle, or closes it."""
        if not connection.is_idle:
            connection.close()
            return
        spare = self._spare[connection.server]
        spare.append(connection)
        if len(spare) > self._spare_max:  # examined after `append`: another thread may have closed the pool meanwhile
            with suppress(IndexError):
                spare.pop().close()

    def close(self) -> None:
        """Closes the connections that are not used. Each of the others is closed when it is given back."""
        self._spare_max = 0
        for spare in tuple(self._spare.values()):
            with suppress(IndexError):  # another thread may take the last one
                while True:
                    spare.pop().close()

    def _open(self, server: Server) -> Connection:
        opened = socket.create_connection((server.host, server.port), self.timeouts.connect_s)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # for blocking calls
                opened.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", math.ceil(self.timeouts.read_s), 0))
            if server.is_tls:
                self._tls = self._tls or self._build_tls()
                opened = self._tls.wrap_socket(opened, server_hostname=server.host)
            opened.setblocking(False)
        except BaseException:
            self._tls = None
            with suppress(OSError):
                opened.close()
            raise
        return Connection(server, opened)

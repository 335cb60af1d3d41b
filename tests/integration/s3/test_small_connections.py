"""Connections of small requests end every wait, and lose no cancellation, whatever the server does."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from export_worker.s3.small_answers import AnswerReader, BrokenAnswerError
from export_worker.s3.small_http import Connection, ConnectionPool, Server, SilentServerError, Timeouts
from support.certificates import Authority
from support.small_store import SmallStore, small_store

LIMITS = Timeouts(connect_s=5.0, read_s=0.3, body_s=0.5)
PUT = b"PUT /k HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def reader() -> AnswerReader:
    return AnswerReader(has_body=True, success_max_bytes=1000, error_max_bytes=1000)


def server_of(store: SmallStore, *, is_tls: bool = False) -> Server:
    parts = urlsplit(store.url)
    return Server(str(parts.hostname), parts.port or 0, parts.netloc, is_tls=is_tls)


async def until_accepted(store: SmallStore) -> None:
    """Waits until the store knows its only connection, which it closes at its end."""
    while not store.connections:
        await asyncio.sleep(0.01)


def pool_of(tls: ssl.SSLContext | None = None) -> ConnectionPool:
    return ConnectionPool(1, LIMITS, lambda: tls or ssl.create_default_context())


async def connected(store: SmallStore, executor: ThreadPoolExecutor, tls: ssl.SSLContext | None = None) -> Connection:
    return await pool_of(tls).take(server_of(store, is_tls=tls is not None), executor)


async def test_connection_that_is_given_back_after_the_pool_was_closed_is_closed(executor: ThreadPoolExecutor) -> None:
    async with small_store() as store:
        pool = pool_of()
        connection = await pool.take(server_of(store), executor)
        pool.close()
        pool.give_back(connection)
        assert not connection.is_usable()
        await until_accepted(store)


async def test_connection_that_is_opened_for_a_cancelled_caller_is_closed(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Connection] = []
    may_open = threading.Event()
    open_connection = ConnectionPool._open  # the caller is cancelled within this call

    def open_late(pool: ConnectionPool, server: Server) -> Connection:
        may_open.wait(20)
        opened.append(open_connection(pool, server))
        return opened[0]

    monkeypatch.setattr(ConnectionPool, "_open", open_late)
    async with small_store() as store:
        task = asyncio.create_task(pool_of().take(server_of(store), executor))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        may_open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not opened[0].is_usable()
        await until_accepted(store)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_silent_store_ends_a_blocking_exchange(
    tmp_path: Path, executor: ThreadPoolExecutor, is_tls: bool
) -> None:
    authority = Authority(tmp_path)
    served = authority.issue("127.0.0.1").server() if is_tls else None
    trusted = ssl.create_default_context(cafile=authority.path) if is_tls else None
    async with small_store(served) as store:
        store.answer = None
        connection = await connected(store, executor, trusted)
        exchange = partial(connection.exchange_in_thread, PUT, b"", reader(), LIMITS)
        with pytest.raises(SilentServerError):
            await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(executor, exchange), 20)
        connection.close()


async def test_cancelled_exchange_whose_connection_breaks_is_still_cancelled(executor: ThreadPoolExecutor) -> None:
    async with small_store() as store:
        store.answer = None
        connection = await connected(store, executor)
        limits = Timeouts(connect_s=5.0, read_s=60.0, body_s=60.0)
        task = asyncio.create_task(connection.exchange(PUT, b"", reader(), limits))
        while not store.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        await store.close_connections()
        with pytest.raises(asyncio.CancelledError):
            await task
        connection.close()


def test_length_with_too_many_digits_is_no_answer() -> None:
    with pytest.raises(BrokenAnswerError):
        reader().feed(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")

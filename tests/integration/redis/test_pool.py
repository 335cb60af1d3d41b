"""The pool replaces a connection that was closed or has unread data, and reads no other one before its use."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from export_worker.redis.client import close_redis, open_redis


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Any]:
    """A client with one connection, which repeats no call."""
    client: Any = open_redis(redis_url, retries=0, max_connections=1)
    yield client
    await close_redis(client)


async def test_connection_that_redis_has_closed_is_replaced(client: Any, arq_redis: Any) -> None:
    number = await client.client_id()
    await arq_redis.client_kill_filter(_id=number)
    stream = client.connection_pool._available_connections[0]._reader
    async with asyncio.timeout(10):
        while not stream.at_eof():
            await asyncio.sleep(0.01)
    assert await client.client_id() != number


async def test_connection_with_an_answer_that_was_not_read_is_replaced(client: Any) -> None:
    pool = client.connection_pool
    connection = await pool.get_connection()
    await connection.send_command("ECHO", "late")
    await pool.release(connection)
    async with asyncio.timeout(10):
        while not connection._reader._buffer:
            await asyncio.sleep(0.01)
    assert await client.echo("own") == b"own"


async def test_quiet_connection_is_used_without_a_pass_of_the_loop(client: Any) -> None:
    await client.ping()
    pool = client.connection_pool
    passes: list[str] = []
    asyncio.get_running_loop().call_soon(passes.append, "pass")
    connection = await pool.get_connection()
    assert passes == []
    await pool.release(connection)


async def test_calls_wait_for_the_only_connection_and_all_are_answered(client: Any) -> None:
    texts = [str(number) for number in range(50)]
    assert await asyncio.gather(*map(client.echo, texts)) == [text.encode() for text in texts]
    assert len(client.connection_pool._available_connections) == 1

"""Opening Redis: every transport, and no password in any error."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from export_producers.client import ExportQueue
from export_worker.demo.processes import redis_binary
from export_worker.errors import ConfigError, ServiceUnreachableError
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.failures import is_unreachable, outage_event, redis_failure


@pytest.fixture
def unix_redis(tmp_path: Path) -> Iterator[str]:
    """A real Redis that listens only on a unix socket."""
    socket = tmp_path / "r.sock"
    command = [redis_binary(), "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 20
            while not socket.exists():
                assert time.monotonic() < deadline, "the server has created no socket"
                time.sleep(0.02)
            yield f"unix://{socket}"
        finally:
            server.terminate()


async def test_commands_over_a_unix_socket_succeed(unix_redis: str) -> None:
    client = open_redis(f"{unix_redis}?db=3")
    assert await client.set("a", "b")
    assert await client.get("a") == b"b"
    await close_redis(client)
    async with ExportQueue(unix_redis) as queue:
        assert await queue.list_exports() == []


async def test_missing_unix_socket_is_reported_with_its_path(tmp_path: Path) -> None:
    async with ExportQueue(f"unix://:hidden-word@{tmp_path}/no.sock?db=1") as queue:
        with pytest.raises(ServiceUnreachableError, match=r"/no\.sock") as caught:
            await queue.list_exports()
    assert "hidden-word" not in str(caught.value)


@pytest.mark.parametrize(("scheme", "checked"), [("redis", None), ("rediss", True)])
async def test_tcp_connections_have_keepalive_and_tls_checks_the_host_name(scheme: str, checked: bool | None) -> None:
    client = open_redis(f"{scheme}://127.0.0.1:1")
    options = client.connection_pool.connection_kwargs
    assert options["socket_keepalive"] is True
    assert options.get("ssl_check_hostname") is checked
    await close_redis(client)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", "localhost:6379"),
        ("redis://:abc@h:7/2", "h:7/2"),
        ("redis://u:abc%40SECRET@h:7/2?db=3", "h:7/2"),
        ("redis://h:7/0?password=abc@SECRET", "h:7/0"),
        ("redis://h:7?password=SECRET", "h:7"),
        ("rediss://:SECRET@[::1]:7/1", "[::1]:7/1"),
        ("redis://:12/SECRET@h/0", "localhost:12"),
        ("unix:///run/x.sock?password=a@SECRET", "/run/x.sock"),
        ("unix://:SECRET@/run/x.sock", "/run/x.sock"),
        ("redis:///0", "localhost:6379/0"),
    ],
)
def test_unreachable_error_names_the_address_without_the_password(url: str, address: str) -> None:
    message = str(redis_failure(url, RedisConnectionError("refused")))
    assert f"cannot reach Redis at {address} (refused)" in message
    assert "SECRET" not in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://:SECRET/x@h:6379/0",
        "redis://[SECRET",
        "redis://h?SECRET=1",
        "redis://h?socket_timeout=SECRET",
        "redis://h?retry=SECRET",
        "unix:///x.sock?socket_keepalive=SECRET",
        "http://SECRET@h",
    ],
)
def test_malformed_url_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="redis_url: ") as caught:
        _ = open_redis(url)
    assert "SECRET" not in str(caught.value)


async def test_cancel_and_wait_repeats_a_cancellation_that_is_lost() -> None:
    async def ignore_cancellations(times: int) -> None:
        for _ in range(times):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(ignore_cancellations(times)) for times in (0, 1, 3)]
    await asyncio.sleep(0)
    await cancel_and_wait(*tasks, retry_s=0.01)
    await cancel_and_wait(*tasks)
    assert all(task.cancelled() for task in tasks)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ResponseError("Error running script (call to f_1): @user_script:70: @user_script: 70: -READONLY You"),
            "is a read-only replica",
        ),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), "cannot write to its disk"),
        (ResponseError("MOVED 5 10.0.0.1:6379"), "cluster mode"),
        (ResponseError("CLUSTERDOWN Hash slot not served"), "a cluster that has no owner for a key now"),
        (ResponseError("SELECT is not allowed in cluster mode"), "a cluster, which has only database 0"),
        (ResponseError("TRYAGAIN Multiple keys request"), "a cluster that has no owner for a key now"),
        (ResponseError("MASTERDOWN Link with MASTER is down"), "has lost its primary"),
        (ResponseError("BUSY Redis is busy running a script."), "runs a script of another client"),
        (BusyLoadingError("Redis is loading the dataset in memory"), "still loads its data"),
        (AuthenticationError("WRONGPASS"), "refuses the user or the password"),
        (
            ResponseError("DB index is out of range"),
            "has no database with this number (DB index is out of range); correct",
        ),
        (ResponseError("unknown command 'FOO'"), "refuses a command (unknown command 'FOO')"),
    ],
)
def test_refusal_of_redis_is_not_reported_as_unreachable(error: RedisError, text: str) -> None:
    message = str(redis_failure("redis://:SECRET@h:7/2", error))
    assert message.startswith("Redis at h:7/2 ")
    assert text in message
    assert "SECRET" not in message


@pytest.mark.parametrize(
    ("error", "unreachable"),
    [
        (RedisConnectionError("refused"), True),
        (RedisTimeoutError("late"), True),
        (ConnectionResetError(), True),
        (BusyLoadingError("loading"), False),
        (AuthenticationError("WRONGPASS"), False),
        (ReadOnlyError("read only"), False),
    ],
)
def test_redis_that_answers_is_reachable(error: RedisError | OSError, unreachable: bool) -> None:
    assert is_unreachable(error) == unreachable


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (RedisConnectionError("refused"), "redis.unreachable"),
        (BusyLoadingError("Redis is loading the dataset in memory"), "redis.unreachable"),
        (ResponseError("LOADING Redis is loading the dataset in memory"), "redis.unreachable"),
        (ReadOnlyError("read only"), "redis.refused"),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), "redis.refused"),
    ],
)
def test_redis_that_still_loads_its_data_counts_as_unreachable_in_the_log(error: RedisError, event: str) -> None:
    assert outage_event(error) == event

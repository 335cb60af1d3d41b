"""A Redis whose packets are dropped, or that accepts connections and never answers: calls end with its address.

Both are real sockets: one has a full backlog, so that the kernel ignores further SYNs; the other one never answers.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from export_producers import ExportQueue
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.intake import Intake
from export_producers.triggers.redis_stream import Consumer, ConsumerGroup, RedisStreamTrigger
from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import child, free_port, redis_binary
from export_worker.errors import ServiceUnreachableError
from export_worker.redis import client
from export_worker.redis.client import close_redis, open_redis, wait_for_redis
from support.redis_process import wait_until_ready
from support.worker_site import Running, Site

Silent = Callable[[], AbstractContextManager[int]]
WORD = "canary-redis-silent-5e1c"
BEGIN_S = 3.0
"""The time that a process needs before its first call to Redis."""
GRACE_S = 45.0
"""The grace period of the manifests."""
EXIT_TIMEOUT_S = 60.0
"""Long, because the machine may be busy."""


@contextmanager
def never_answering() -> Iterator[int]:
    """Listens on a port whose connections the kernel accepts, and never answers. Yields the port."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=100)) as server:
        yield server.getsockname()[1]


@contextmanager
def never_accepting() -> Iterator[int]:
    """Listens on a port with a full backlog, so that the kernel ignores every SYN. Yields the port."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
        for _ in range(4):
            filler = stack.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()[1]


SILENT = pytest.mark.parametrize("silent", [never_answering, never_accepting])


def address(port: int) -> str:
    return f"redis://:{WORD}@127.0.0.1:{port}/0"


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divides all timeouts by 20."""
    for name in ("CONNECT_TIMEOUT_S", "SOCKET_TIMEOUT_S", "CALL_TIMEOUT_S", "STARTUP_TIMEOUT_S", "WARN_AFTER_S"):
        monkeypatch.setattr(client, name, getattr(client, name) / 20)


def test_timeouts_limit_a_start_to_fifteen_seconds() -> None:
    assert max(client.CALL_TIMEOUT_S, client.STARTUP_TIMEOUT_S) + BEGIN_S <= 15
    assert client.CALL_TIMEOUT_S > client.SOCKET_TIMEOUT_S, "an answer that comes within the socket timeout is received"


@SILENT
async def test_start_with_a_silent_redis_logs_the_address_and_times_out(
    silent: Silent, short_timeouts: None, caplog: pytest.LogCaptureFixture
) -> None:
    began_s = time.monotonic()
    with silent() as port, caplog.at_level(logging.WARNING), pytest.raises(ServiceUnreachableError) as caught:
        await wait_for_redis(address(port))
    assert time.monotonic() - began_s < client.STARTUP_TIMEOUT_S + BEGIN_S
    assert f"cannot reach Redis at 127.0.0.1:{port}/0" in str(caught.value)
    assert [record.getMessage() for record in caplog.records] == [f"waiting for Redis at 127.0.0.1:{port}/0"]
    assert WORD not in caplog.text + str(caught.value)


@SILENT
async def test_producer_call_to_a_silent_redis_logs_the_address_and_times_out(
    silent: Silent, short_timeouts: None, caplog: pytest.LogCaptureFixture
) -> None:
    began_s = time.monotonic()
    with silent() as port, caplog.at_level(logging.WARNING):
        async with ExportQueue(address(port)) as queue:
            with pytest.raises(ServiceUnreachableError, match=f"cannot reach Redis at 127.0.0.1:{port}/0"):
                await queue.status("0" * 32)
    assert time.monotonic() - began_s < client.CALL_TIMEOUT_S + BEGIN_S
    assert caplog.messages == [f"waiting for Redis at 127.0.0.1:{port}/0"]


async def test_calls_that_wait_at_once_log_one_warning(short_timeouts: None, caplog: pytest.LogCaptureFixture) -> None:
    with never_answering() as port, caplog.at_level(logging.WARNING):
        async with ExportQueue(address(port)) as queue:
            for _ in range(2):
                calls = (queue.status("0" * 32) for _ in range(20))
                answers = await asyncio.gather(*calls, return_exceptions=True)
                assert {type(answer) for answer in answers} == {ServiceUnreachableError}
    assert caplog.messages == [f"waiting for Redis at 127.0.0.1:{port}/0"] * 2


async def test_start_waits_for_a_redis_that_starts_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    waiting = asyncio.create_task(wait_for_redis(f"redis://127.0.0.1:{port}/0"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    command = [redis_binary(), "--port", str(port), "--dir", str(tmp_path), "--bind", "127.0.0.1", "--save", ""]
    async with child(command, name="redis", directory=tmp_path) as process:
        await wait_until_ready(process, port, name="redis", directory=tmp_path)
        await waiting


async def test_stop_during_a_start_is_no_outage(redis_url: str) -> None:
    stop = asyncio.Event()
    stop.set()
    await wait_for_redis(redis_url, stop)


@SILENT
async def test_stop_during_a_start_with_a_silent_redis_ends_the_wait(silent: Silent) -> None:
    stop = asyncio.Event()
    stop.set()
    began_s = time.monotonic()
    with silent() as port, pytest.raises(ServiceUnreachableError, match=f"cannot reach Redis at 127.0.0.1:{port}/0"):
        await wait_for_redis(address(port), stop)
    assert time.monotonic() - began_s < client.LAST_PING_S + BEGIN_S


async def test_start_with_a_wrong_password_fails_at_once(tmp_path: Path) -> None:
    port = free_port()
    command = [redis_binary(), "--port", str(port), "--dir", str(tmp_path), "--requirepass", "canary-right"]
    async with child(command, name="redis", directory=tmp_path) as process:
        await wait_until_ready(process, port, name="redis", directory=tmp_path)
        began_s = time.monotonic()
        with pytest.raises(ServiceUnreachableError, match=r"refuses the user or the password \(.*; correct redis_url"):
            await wait_for_redis(address(port))
        assert time.monotonic() - began_s < 1


@SILENT
async def test_trigger_stops_although_its_redis_is_silent(silent: Silent, short_timeouts: None, namespace: str) -> None:
    stop = asyncio.Event()
    with silent() as port:
        redis = open_redis(address(port))
        async with ExportQueue(address(port), namespace=namespace) as queue:
            dead_letters = DeadLetters(redis, Keys(namespace).dead("t"))
            intake = Intake("t", queue=queue, dead_letters=dead_letters, template=None, stop=stop)
            consumer = Consumer(ConsumerGroup("s", "g"), "c", field="request", claim_after_s=60.0)
            trigger = RedisStreamTrigger(redis, intake, consumer)
            running = asyncio.create_task(trigger.run(stop))
            await asyncio.sleep(0.1)
            stop.set()
            async with asyncio.timeout(GRACE_S / 20 + 2 * BEGIN_S):
                await running
        await close_redis(redis)


def log_of_the_end(running: Running) -> str:
    """Waits for the end of a process that could not reach Redis, and returns its log."""
    assert running.process.wait(EXIT_TIMEOUT_S) == 4
    log = running.log.read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert WORD not in log
    return log


def test_every_command_ends_with_status_4_and_names_the_address(namespace: str, outputs: Path) -> None:
    commands = (("gateway",), ("status", "0" * 32), ("events", "undelivered"), ("run",), ("trigger", "t"))
    with never_answering() as port, ExitStack() as stack:
        site = Site(address(port), "http://127.0.0.1:1", "http://127.0.0.1:1", namespace, "bucket", outputs)
        site.settings = {"triggers": {"t": {"type": "redis-stream", "stream": "s"}}, "gateway": {"port": 0}}
        started = [stack.enter_context(site.process(*command)) for command in commands]
        for running in (started[0], *started[3:]):
            # Gateways, workers and triggers that wait for Redis stop at once on SIGTERM.
            running.until_logged("waiting for Redis")
            running.process.send_signal(signal.SIGTERM)
        for log in map(log_of_the_end, started):
            assert f"waiting for Redis at 127.0.0.1:{port}/0" in log
            assert f"error: cannot reach Redis at 127.0.0.1:{port}/0 (" in log
            assert "is redis_url (EXPORT_REDIS_URL) right?" in log
            assert "stop_forced" not in log

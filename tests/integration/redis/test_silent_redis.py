"""A Redis whose packets are dropped, or that takes connections and says nothing: waited for a little, and told by name.

Both are real sockets: one has a full backlog, so that the kernel passes over further SYNs; one never answers.
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
from export_producers.triggers.intake import Intake
from export_producers.triggers.redis_stream import RedisStreamTrigger
from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import child, free_port, redis_binary, wait_until_listening
from export_worker.errors import ServiceUnreachableError
from export_worker.redis import client
from export_worker.redis.client import close_redis, open_redis, wait_for_redis
from support.worker_site import Running, Site

Silent = Callable[[], AbstractContextManager[int]]
WORD = "canary-redis-silent-5e1c"
BEGIN_S = 3.0
"""What a process needs until it asks Redis."""
GRACE_S = 45.0
"""As the manifests grant it."""
PATIENCE_S = 60.0
"""For a machine that does other things."""


@contextmanager
def mute() -> Iterator[int]:
    """Takes connections, for the kernel does, and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=100)) as server:
        yield server.getsockname()[1]


@contextmanager
def deaf() -> Iterator[int]:
    """Never accepts, and its backlog is full: whoever connects sends SYNs into the dark."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
        for _ in range(4):
            filler = stack.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()[1]


SILENT = pytest.mark.parametrize("silent", [mute, deaf])


def address(port: int) -> str:
    return f"redis://:{WORD}@127.0.0.1:{port}/0"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same patience, a twentieth of it."""
    for name in ("CONNECT_TIMEOUT_S", "SOCKET_TIMEOUT_S", "CALL_MAX_S", "FIRST_CONTACT_S", "TELL_AFTER_S"):
        monkeypatch.setattr(client, name, getattr(client, name) / 20)


def test_a_start_takes_no_longer_than_fifteen_seconds() -> None:
    assert max(client.CALL_MAX_S, client.FIRST_CONTACT_S) + BEGIN_S <= 15
    assert client.CALL_MAX_S > client.SOCKET_TIMEOUT_S, "a Redis that is slow, and answers, is heard"


@SILENT
async def test_the_first_contact_is_bounded_and_says_what_it_waits_for(
    silent: Silent, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    began_s = time.monotonic()
    with silent() as port, caplog.at_level(logging.WARNING), pytest.raises(ServiceUnreachableError) as caught:
        await wait_for_redis(address(port))
    assert time.monotonic() - began_s < client.FIRST_CONTACT_S + BEGIN_S
    assert f"cannot reach Redis at 127.0.0.1:{port}/0" in str(caught.value)
    assert [record.getMessage() for record in caplog.records] == [f"waiting for Redis at 127.0.0.1:{port}/0"]
    assert WORD not in caplog.text + str(caught.value)


@SILENT
async def test_a_producer_s_call_is_bounded_and_says_what_it_waits_for(
    silent: Silent, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    began_s = time.monotonic()
    with silent() as port, caplog.at_level(logging.WARNING):
        async with ExportQueue(address(port)) as queue:
            with pytest.raises(ServiceUnreachableError, match=f"cannot reach Redis at 127.0.0.1:{port}/0"):
                await queue.status("0" * 32)
    assert time.monotonic() - began_s < client.CALL_MAX_S + BEGIN_S
    assert caplog.messages == [f"waiting for Redis at 127.0.0.1:{port}/0"]


async def test_a_redis_that_comes_a_little_later_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    waiting = asyncio.create_task(wait_for_redis(f"redis://127.0.0.1:{port}/0"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    command = [redis_binary(), "--port", str(port), "--dir", str(tmp_path), "--bind", "127.0.0.1", "--save", ""]
    async with child(command, name="redis", directory=tmp_path) as process:
        await wait_until_listening(process, port, name="redis", directory=tmp_path)
        await waiting


async def test_a_wrong_password_is_not_waited_for(tmp_path: Path) -> None:
    port = free_port()
    command = [redis_binary(), "--port", str(port), "--dir", str(tmp_path), "--requirepass", "canary-right"]
    async with child(command, name="redis", directory=tmp_path) as process:
        await wait_until_listening(process, port, name="redis", directory=tmp_path)
        began_s = time.monotonic()
        with pytest.raises(ServiceUnreachableError, match=r"refuses the user or the password \(.*; correct redis_url"):
            await wait_for_redis(address(port))
        assert time.monotonic() - began_s < 1


@SILENT
async def test_a_trigger_whose_redis_has_fallen_silent_stops(silent: Silent, impatient: None, namespace: str) -> None:
    stop = asyncio.Event()
    with silent() as port:
        redis = open_redis(address(port))
        async with ExportQueue(address(port), namespace=namespace) as queue:
            intake = Intake("t", queue=queue, redis=redis, keys=Keys(namespace), template=None, stop=stop)
            trigger = RedisStreamTrigger(
                redis, intake, stream="s", group="g", consumer="c", field="request", claim_after_s=60.0
            )
            running = asyncio.create_task(trigger.run(stop))
            await asyncio.sleep(0.1)
            stop.set()
            async with asyncio.timeout(GRACE_S / 20 + 2 * BEGIN_S):
                await running
        await close_redis(redis)


def ended(running: Running) -> str:
    """What a process has told that ended by itself, or was told to while it waited."""
    assert running.process.wait(PATIENCE_S) == 4
    told = running.log.read_text(encoding="utf-8")
    assert "Traceback" not in told
    assert WORD not in told
    return told


def test_every_command_ends_with_status_4_and_the_address(namespace: str, outputs: Path) -> None:
    commands = (("gateway",), ("status", "0" * 32), ("events", "undelivered"), ("run",), ("trigger", "t"))
    with mute() as port, ExitStack() as stack:
        site = Site(address(port), "http://127.0.0.1:1", "http://127.0.0.1:1", namespace, "bucket", outputs)
        site.settings = {"triggers": {"t": {"type": "redis-stream", "stream": "s"}}, "gateway": {"port": 0}}
        started = [stack.enter_context(site.process(*command)) for command in commands]
        for running in (started[0], *started[3:]):
            # Told to stop while they wait, gateways, workers and triggers do so at once.
            running.until_logged("waiting for Redis")
            running.process.send_signal(signal.SIGTERM)
        for told in map(ended, started):
            assert f"waiting for Redis at 127.0.0.1:{port}/0" in told
            assert f"error: cannot reach Redis at 127.0.0.1:{port}/0 (" in told
            assert "is redis_url (EXPORT_REDIS_URL) right?" in told
            assert "stop_forced" not in told

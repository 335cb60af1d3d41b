"""Message brokers for tests: real servers. If a server is not installed, the test is skipped with the reason."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from export_worker.demo.processes import free_port

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The server itself. The script on the PATH switches to another user first."""
KAFKA_ADDRESS = re.compile(rb"bootstrap\.servers=([0-9.]+:[0-9]+)")
"""How librdkafka logs the address of its broker for tests."""
KAFKA_PARTITIONS = 4
"""Of each topic of librdkafka's broker."""
START_TIMEOUT_S = 90.0
"""Limit for the start of a server on a busy machine. RabbitMQ is the slowest."""


@contextmanager
def rabbitmq_server(directory: Path) -> Iterator[str]:
    """Runs an empty RabbitMQ while the block runs. Yields its URL."""
    epmd = shutil.which("epmd")
    if not RABBITMQ.exists() or epmd is None:
        pytest.skip("RabbitMQ is not installed (Debian: rabbitmq-server)")
    port, names = free_port(), free_port()
    environment = os.environ | {
        "HOME": str(directory),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(directory / "none"),
    }
    # epmd runs in the foreground here. If RabbitMQ started it, it would be a daemon that outlives the test.
    with _running([epmd, "-address", "127.0.0.1", "-port", str(names)], names), _running([RABBITMQ], port, environment):
        yield f"amqp://guest:guest@127.0.0.1:{port}/"


@contextmanager
def nats_server(directory: Path) -> Iterator[str]:
    """Runs an empty NATS server with JetStream while the block runs. Yields its URL."""
    binary = shutil.which("nats-server")
    if binary is None:
        pytest.skip("NATS is not installed (Debian: nats-server)")
    port = free_port()
    with _running([binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory)], port):
        yield f"nats://127.0.0.1:{port}"


@dataclass(frozen=True)
class KafkaServer:
    """A Kafka broker that keeps topics and consumer groups in memory, and creates each topic when it is used.

    Args:
        address: The address, as `bootstrap.servers` has it.
        log: The file that names each request which the broker receives.
    """

    address: str
    log: Path

    def requests(self, name: str) -> int:
        """Returns how many requests of one kind the broker has received, e.g. `Produce`."""
        return self.log.read_bytes().count(f"Received {name}Request".encode())


@contextmanager
def kafka_server(directory: Path) -> Iterator[KafkaServer]:
    """Runs an empty Kafka broker while the block runs: the one that librdkafka has for tests, in a separate process."""
    binary = shutil.which("kcat")
    if binary is None:
        pytest.skip("kcat is not installed (Debian: kcat)")
    # kcat itself reads an unused topic for as long as it runs. It ignores the address, but demands one.
    command = [binary, "-C", "-b", "none", "-t", "idle", "-X", "test.mock.num.brokers=1", "-d", "mock"]
    log = directory / "kafka.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output) as process,
    ):
        try:
            yield KafkaServer(_logged_address(process, log), log)
        finally:
            process.terminate()


def _logged_address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while (found := KAFKA_ADDRESS.search(log.read_bytes())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"{process.args!r} logged no address within {START_TIMEOUT_S} s"
        time.sleep(0.02)
    return found[1].decode()


@contextmanager
def _running(command: list[str | Path], port: int, environment: dict[str, str] | None = None) -> Iterator[None]:
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _until_listening(process, port)
            yield
        finally:
            process.terminate()


def _until_listening(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{process.args!r} did not listen within {START_TIMEOUT_S} s"
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)

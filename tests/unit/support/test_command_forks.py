"""A forked command behaves as one in a new interpreter."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.command_forks import COMMAND, ForkedProcess, ForkServer

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("EXPORT_")}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.stop()


def forked(
    server: ForkServer, *arguments: str, stdin: str = "", environment: Mapping[str, str] = ENVIRONMENT
) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        status = server.run(arguments, environment, [given.fileno(), out.fileno(), err.fileno()]).wait(60)
        out.seek(0)
        err.seek(0)
        return status, out.read().decode(), err.read().decode()


def in_new_interpreter(*arguments: str, stdin: str = "", environment: Mapping[str, str]) -> tuple[int, str, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "environment"),
    [
        (("--help",), "", {}),
        (("no-such-command",), "", {}),
        (("enqueue", "-"), "下载", {"EXPORT_REDIS_URL": "redis://127.0.0.1:1/0"}),
        (("run", "--burst"), "", {"EXPORT_REDIS_URL": "no URL"}),
    ],
    ids=["help", "unknown command", "standard input", "settings in variables"],
)
def test_status_and_output_are_those_of_a_new_interpreter(
    server: ForkServer, arguments: tuple[str, ...], stdin: str, environment: dict[str, str]
) -> None:
    expected = in_new_interpreter(*arguments, stdin=stdin, environment=ENVIRONMENT | environment)
    assert forked(server, *arguments, stdin=stdin, environment=ENVIRONMENT | environment) == expected


def simulator(server: ForkServer) -> ForkedProcess:
    """Starts a command that runs until a signal ends it, and waits until it runs."""
    here, there = os.pipe()
    with Path(os.devnull).open("rb") as nothing, os.fdopen(here) as output:
        process = server.run(["simulate", "--port", "0"], ENVIRONMENT, [nothing.fileno(), there, there])
        os.close(there)
        assert "platform simulator" in output.readline()
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)])
def test_signals_reach_the_process(server: ForkServer, number: signal.Signals, status: int) -> None:
    process = simulator(server)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.send_signal(number)
    assert process.wait(30) == process.poll() == process.returncode == status
    process.kill()


@pytest.mark.parametrize("name", ["PYTHONPATH", "LC_ALL", "NO_COLOR"])
def test_environment_that_may_matter_to_imports_needs_a_new_interpreter(server: ForkServer, name: str) -> None:
    assert server.suits(ENVIRONMENT | {"EXPORT_REDIS_URL": "redis://127.0.0.1:1/0"})
    assert not server.suits(ENVIRONMENT | {name: "other"})


def test_server_runs_no_thread(server: ForkServer) -> None:
    """A process that is forked while other threads run may inherit locks that are never released."""
    script = "import threading\nfrom support import command_fork_server as server\nserver.import_modules()\n"
    script += "print(threading.active_count())"
    path = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {"PYTHONPATH": path},
        check=True,
    )
    assert ran.stdout == "1\n"

"""Runs `export-worker` as processes that are forked from one process, which has imported all modules once.

A new interpreter that imports the modules takes longer than most of the commands themselves: 0.8 s of processor time.
A forked process differs from it in nothing else: it has its own environment, arguments and standard streams, runs
`python -m export_worker`, and ends as an interpreter ends. Tests of the import itself start a new interpreter.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from support.command_fork_server import NUMBER

COMMAND = (sys.executable, "-m", "export_worker")

_SERVER = Path(__file__).with_name("command_fork_server.py")
_OWN_VARIABLES = ("EXPORT_", "AWS_", "PYTEST_")
"""Variables that are read while a command runs. All others may be read by an import, or by the interpreter."""


class Process(Protocol):
    """What tests use of a process: the part of `subprocess.Popen` that a forked process has, too."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class ForkedProcess:
    """A forked process. It has no parent in this process, so its end is reported over a socket."""

    def __init__(self, arguments: Sequence[str], reports: socket.socket) -> None:
        self._arguments = arguments
        self._reports = reports
        self.returncode: int | None = None
        self._ending = threading.Lock()
        self.pid = self._read()

    def poll(self) -> int | None:
        """Returns the exit status, or None while the process runs; the negative number of the signal that ended it."""
        if self.returncode is None and self._has_reported(0):
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end of the process. Returns the exit status.

        Raises:
            subprocess.TimeoutExpired: The process still runs after `timeout` seconds.
        """
        if self.returncode is None:
            if not self._has_reported(timeout):
                raise subprocess.TimeoutExpired(list(self._arguments), timeout or 0.0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Sends a signal, if the process still runs."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _has_reported(self, timeout: float | None) -> bool:
        """Whether the process has ended. Another thread may have read the report and closed the socket meanwhile."""
        try:
            return bool(select.select([self._reports], [], [], timeout)[0])
        except (OSError, ValueError):
            return True

    def _end(self) -> None:
        # A test may wait for the end in one thread, and read the log in another.
        with self._ending:
            if self.returncode is None:
                self.returncode = os.waitstatus_to_exitcode(self._read())
                self._reports.close()

    def _read(self) -> int:
        """Reads one number. The server sends the process id, then the status as `os.waitpid` returns it."""
        data = b""
        while len(data) < NUMBER.size:
            more = self._reports.recv(NUMBER.size - len(data))
            assert more, "the server of forks has died"
            data += more
        number: int = NUMBER.unpack(data)[0]
        return number


class ForkServer:
    """The process from which the commands are forked. It starts with the first command. Threads may share it.

    Args:
        changes: Variables that its environment has beside those of this process.
    """

    def __init__(self, changes: Mapping[str, str] | None = None) -> None:
        self._changes = dict(changes or {})
        self._lock = threading.Lock()
        self._variables: dict[str, str] = {}
        self._server: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Returns whether a forked process behaves as a new interpreter with this environment."""
        with self._lock:
            own = self._variables if self._server else _inherited(os.environ | self._changes)
            return _inherited(environment) == own

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> ForkedProcess:
        """Starts `export-worker` with arguments, an environment, and the files of its three standard streams."""
        request = {"arguments": arguments, "environment": dict(environment), "directory": str(Path.cwd())}
        data = json.dumps(request).encode()
        reports, reporter = socket.socketpair()
        with reporter, self._lock:
            requests = self._requests()
            socket.send_fds(requests, [NUMBER.pack(len(data))], [*streams, reporter.fileno()])
            requests.sendall(data)
        return ForkedProcess(arguments, reports)

    def stop(self) -> None:
        """Ends the server. Commands that still run are not affected."""
        with self._lock:
            if self._server is not None:
                process, requests = self._server
                requests.close()
                process.wait()
            self._server = None

    def _requests(self) -> socket.socket:
        """Returns the socket for requests. Starts the server if it does not run."""
        if self._server is None:
            mine, theirs = socket.socketpair()
            environment = os.environ | self._changes
            self._variables = _inherited(environment)
            with theirs:
                command = [sys.executable, str(_SERVER), str(theirs.fileno())]
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
                )
            self._server = process, mine
        return self._server[1]


def _inherited(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_OWN_VARIABLES)}


SERVER = ForkServer()
"""The server of this test process."""

_others: list[ForkServer] = []


def server_for(environment: Mapping[str, str]) -> ForkServer | None:
    """Returns the server whose processes behave as new interpreters with this environment; None if there is none."""
    return next((server for server in (SERVER, *_others) if server.suits(environment)), None)


@contextmanager
def also_with(**changes: str) -> Iterator[None]:
    """Has a server for processes with these variables, too, during the block. It starts when it is needed."""
    server = ForkServer(changes)
    _others.append(server)
    try:
        yield
    finally:
        _others.remove(server)
        server.stop()

"""A computer as a new user has it: a checkout, an empty home directory, and no packages and caches."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from first_minutes.screens import Recording
from support.paths import ROOT
from support.terminal import Terminal

SAMPLE_S = 0.25
"""How often the output is read. Two screens between which less time lies are one for a person."""
STOP_TIMEOUT_S = 30.0
NETWORK_VARIABLES = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "NO_", "ALL_")
"""First parts of the names of variables that say how package indexes are reached, in either case."""
CACHE_VARIABLES = ("PIP_CACHE_DIR", "UV_CACHE_DIR", "PIP_CONSTRAINT")


@dataclass(frozen=True, slots=True)
class Computer:
    """Directories that nothing else uses.

    Args:
        checkout: The files that git tracks, as they are now.
        environment: The variables of a shell that has just been opened.
    """

    checkout: Path
    environment: dict[str, str]


@dataclass(slots=True)
class Session:
    """A command that runs in a terminal.

    Args:
        recording: What the command has printed so far.
    """

    recording: Recording
    terminal: Terminal
    process: "subprocess.Popen[bytes]"

    def wait(self, until: Callable[[], bool], timeout_s: float) -> None:
        """Records the output until a condition holds, the command ends, or the time is over."""
        begun_s = time.monotonic() - self.recording.seconds
        deadline_s = time.monotonic() + timeout_s
        while not until() and self.process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(SAMPLE_S)
            self._record(time.monotonic() - begun_s)

    def _record(self, seconds: float) -> None:
        self.recording.add(seconds, self.terminal.text)

    def end(self) -> int:
        """Waits until the command ends, and returns its exit status."""
        status = self.process.wait(STOP_TIMEOUT_S)
        time.sleep(SAMPLE_S)  # the terminal still has the last output
        self._record(self.recording.seconds + SAMPLE_S)
        return status


def prepare(directory: Path) -> Computer:
    """Creates a computer in an empty directory."""
    checkout, home, programs = directory / "export-worker", directory / "home", directory / "bin"
    for folder in (checkout, home, programs):
        folder.mkdir(parents=True)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    copy = ["xargs", "-0", "cp", "--parents", "--target-directory", str(checkout)]
    subprocess.run(copy, cwd=ROOT, input=tracked, check=True)
    # Python itself is all that is taken from this environment.
    (programs / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    network = {name: value for name, value in os.environ.items() if name.upper().startswith(NETWORK_VARIABLES)}
    shell = {"HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin", "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    return Computer(checkout, {name: network[name] for name in network.keys() - set(CACHE_VARIABLES)} | shell)


@contextmanager
def running(computer: Computer, command: Sequence[str], columns: int, lines: int) -> Iterator[Session]:
    """Runs a command in the checkout, in a terminal that it is interrupted from."""
    with Terminal(columns, lines) as terminal:
        # setsid makes the terminal the one that Ctrl-C is typed into.
        process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            cwd=computer.checkout,
            env=computer.environment,
            stdin=terminal.stream,
            stdout=terminal.stream,
            stderr=terminal.stream,
        )
        session = Session(Recording(columns, lines), terminal, process)
        try:
            yield session
        finally:
            if process.poll() is None:
                terminal.type(b"\x03")
                process.wait(STOP_TIMEOUT_S)

"""One process of export-worker: the real command, forked from a process that has imported everything.

A worker writes a journal: a line when it starts a step, and a line when the step has ended. After a kill, the journal
shows which steps the worker ran at that moment. The journals of all workers show who claimed these steps next.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from export_worker import cli
from export_worker.redis.claims import ClaimedStep
from export_worker.worker.step_runner import StepRunner
from support.worker_forks import forked

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Step:
    """One step of an export: submit, poll or transfer."""

    export_id: str
    number: int
    name: str
    connection: str


@dataclass(frozen=True)
class Entry:
    """One line of a journal.

    Args:
        at_s: The time of the line on the system clock.
        started: Whether the step was started; if not, it has ended.
    """

    at_s: float
    started: bool
    step: Step


def start(environment: dict[str, str], arguments: list[str], output: Path) -> ForkServerProcess:
    """Starts `export-worker` with these arguments. Its output is the file, and its journal is beside it."""
    output.touch()
    return forked(main, environment, arguments, output)


def journal_of(output: Path) -> Path:
    """Returns the path of the journal of a process."""
    return output.with_suffix(".journal")


def read_journal(output: Path) -> Iterator[Entry]:
    """Yields the lines of a journal, except for one that was cut by a kill."""
    path = journal_of(output)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.rpartition("\n")[0].splitlines():
        at_s, started, export_id, number, name, connection = line.split(" ")
        yield Entry(float(at_s), started == "+", Step(export_id, int(number), name, connection))


def running_steps(output: Path) -> list[Step]:
    """Returns the steps that a process has started, and that have not ended."""
    running: dict[Step, None] = {}
    for entry in read_journal(output):
        if entry.started:
            running[entry.step] = None
        else:
            running.pop(entry.step, None)
    return list(running)


def main(environment: dict[str, str], arguments: list[str], output: Path) -> None:
    """Runs the command in the forked process."""
    # The fork server ends with the test. Without this, its children would continue after the test was killed.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(environment)
    with output.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    _write_journal(journal_of(output))
    sys.argv = ["export-worker", *arguments]
    cli.main()


def _write_journal(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    run = StepRunner.run

    def write(mark: str, claimed: ClaimedStep) -> None:
        export = claimed.export
        line = f"{time.time():.3f} {mark} {export.export_id} {claimed.step} {export.step_name}"
        os.write(file, f"{line} {export.request.connection}\n".encode())

    async def journalled(self: StepRunner, claimed: ClaimedStep) -> None:
        write("+", claimed)
        try:
            await run(self, claimed)
        finally:
            write("-", claimed)

    patched: Any = StepRunner
    patched.run = journalled

"""Plays the first minutes of a new user, as the README describes them. Run it with `make first-minutes`.

It runs the demo, cold; the demo with `--serve`, warm; the commands that it prints, pasted into another terminal; and
the example of the README. It prints the times, and saves each screen that the terminal showed.
"""

import argparse
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from first_minutes.computer import Computer, Session, prepare, running
from first_minutes.screens import Recording
from support.deployment import blocks

SIZES = ("80x24", "120x50")
TIMEOUT_S = 400.0
"""Far longer than a person waits. pip alone takes more than a minute on a slow computer."""
ALL_SUCCEEDED = re.compile(r"(\d+) of \1 exports succeeded, \1 events received")
STARTED, SERVING = "Starting Redis", "Press Ctrl-C to stop everything."
INTERRUPTED = (0, -signal.SIGINT, 128 + signal.SIGINT)
"""make, which is interrupted too, ends with the signal."""
NO_INDEX = "http://127.0.0.1:9/"
"""No server listens here: uv fails, and pip does its work."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the user.

    Args:
        name: What the user does. Also the name of the file with the screens.
        seconds: What took how long, by its name.
        complete: Whether the command did what the README says.
    """

    name: str
    recording: Recording
    seconds: dict[str, float]
    complete: bool


def play(computer: Computer, columns: int, lines: int) -> Iterator[Step]:
    """Yields each step when it has ended."""
    with running(computer, ["make", "demo"], columns, lines) as session:
        session.wait(lambda: False, TIMEOUT_S)
        status = session.end()
    cold = session.recording
    times = {"the packages are installed": cold.seconds_of(STARTED), "the demo has ended": cold.seconds}
    yield Step("make demo", cold, _known(times), status == 0 and bool(ALL_SUCCEEDED.search(cold.text)))
    with running(computer, ["make", "demo", "ARGS=--serve"], columns, lines) as serving:
        serving.wait(lambda: SERVING in serving.recording.text, TIMEOUT_S)
        up = serving.recording.seconds_of(SERVING)
        if up is not None:
            yield from _other_terminal(computer, serving)
        yield _interrupted(serving, up)


def _other_terminal(computer: Computer, serving: Session) -> Iterator[Step]:
    """Pastes the printed commands, and runs the example of the README."""
    columns, lines = serving.recording.columns, serving.recording.lines
    printed = serving.recording.text
    (computer.checkout / "example.py").write_text(_example(printed), encoding="utf-8")
    scripts = {
        "the printed commands": printed[printed.index("\n# ") : printed.index(SERVING)],
        "the example of the README": ".venv/bin/python example.py",
    }
    for name, script in scripts.items():
        with running(computer, ["bash", "-eu", "-c", script], columns, lines) as session:
            session.wait(lambda: False, TIMEOUT_S)
            status = session.end()
        shown = session.recording
        yield Step(name, shown, {"ended": shown.seconds}, status == 0 and "succeeded" in shown.text)


def _example(printed: str) -> str:
    """Returns the example of the README, with the address that the demo prints, if another program uses the usual."""
    (example,) = blocks("README.md", "python")
    (address,) = re.findall(r"^Redis +(redis:\S+)", printed, re.MULTILINE)
    return example.replace("redis://127.0.0.1:6379/0", address)


def _interrupted(serving: Session, up: float | None) -> Step:
    """Types Ctrl-C, as the demo asks."""
    begun_s = time.monotonic()
    serving.terminal.type(b"\x03")
    status = serving.end()
    stopped = {"stopped after Ctrl-C": time.monotonic() - begun_s}
    orderly = status in INTERRUPTED and serving.recording.text.rstrip().endswith("Stopping everything.")
    complete = up is not None and orderly
    return Step("make demo ARGS=--serve", serving.recording, _known({"everything is up": up}) | stopped, complete)


def _known(times: dict[str, float | None]) -> dict[str, float]:
    return {name: seconds for name, seconds in times.items() if seconds is not None}


def save(step: Step, directory: Path) -> None:
    """Writes the screens of a step into one file, with the time of each."""
    directory.mkdir(parents=True, exist_ok=True)
    shown = (f"--- after {screen.seconds:.1f} s\n{screen.text}\n" for screen in step.recording.screens())
    name = re.sub(r"\W+", "-", step.name).strip("-")
    (directory / f"{name}.txt").write_text("\n".join(shown), encoding="utf-8")


def table(steps: dict[str, list[Step]]) -> Table:
    """Returns the times of all steps, by size of the terminal."""
    grid = Table("TERMINAL", "STEP", "UNTIL", "SECONDS", "AS DESCRIBED", box=None, pad_edge=False)
    for size, played in steps.items():
        for step in played:
            for name, seconds in step.seconds.items():
                grid.add_row(size, step.name, name, f"{seconds:.1f}", "yes" if step.complete else "NO")
    return grid


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make first-minutes", description=__doc__)
    parser.add_argument("--size", action="append", choices=SIZES, help="size of the terminal (default: each)")
    parser.add_argument("--pip", action="store_true", help="let uv fail, so that pip installs the packages")
    parser.add_argument("--screens", type=Path, default=Path("build/first-minutes"), help="directory of the screens")
    return parser.parse_args()


def main(arguments: argparse.Namespace, console: Console) -> bool:
    """Plays at each size, and returns whether all steps did what the README says."""
    steps: dict[str, list[Step]] = {}
    for size in arguments.size or SIZES:
        columns, lines = map(int, size.split("x"))
        with tempfile.TemporaryDirectory(prefix="first-minutes-") as directory:
            computer = prepare(Path(directory))
            computer.environment.update({"UV_DEFAULT_INDEX": NO_INDEX} if arguments.pip else {})
            for step in play(computer, columns, lines):
                steps.setdefault(size, []).append(step)
                save(step, arguments.screens / size)
    console.print(table(steps))
    console.print(f"The screens are in {arguments.screens}.")
    return all(step.complete for played in steps.values() for step in played)


if __name__ == "__main__":
    sys.exit(0 if main(_arguments(), Console()) else 1)

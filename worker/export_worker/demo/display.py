"""Shows the demo's exports: as a screen in a terminal, else as one line for each change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

from export_producers.commands import rendering
from export_worker.contract.model import isoformat
from export_worker.contract.status import Status
from export_worker.demo.exports import ShowStatuses
from export_worker.demo.first_line import STARTING
from export_worker.demo.requests import ROUND_KEY
from export_worker.demo.screen import Screen

DRAWN_PER_SECOND = 5.0
"""The elapsed time shows tenths of the wait for a retry."""


@contextmanager
def display(console: Console) -> Iterator[ShowStatuses]:
    """Yields a function that shows the latest statuses of all exports.

    A terminal is redrawn also while no status changes, so that the elapsed time shows that the demo runs. At the end
    the screen is removed.
    """
    if rendering.redraws(console):
        with _drawn(console) as show:
            yield show
    else:
        console.print(STARTING)
        yield _printer(console)


@contextmanager
def _drawn(console: Console) -> Iterator[ShowStatuses]:
    started_at = datetime.now(UTC)
    latest: Sequence[Status] = ()

    def show(statuses: Sequence[Status]) -> None:
        nonlocal latest
        latest = statuses

    def draw() -> Screen:
        return Screen(latest, started_at, datetime.now(UTC))

    with Live(console=console, get_renderable=draw, refresh_per_second=DRAWN_PER_SECOND, transient=True):
        yield show


def _printer(console: Console) -> ShowStatuses:
    printed: dict[str, str] = {}

    def show(statuses: Sequence[Status]) -> None:
        for status in statuses:
            text = f"{status.phase:<12}  {rendering.activity(status)}"
            if printed.get(status.export_id) != text:
                printed[status.export_id] = text
                round_name = status.metadata.get(ROUND_KEY, "")
                console.print(Text(f"{isoformat(status.updated_at)}  {status.kind:<31}  {round_name:<5}  {text}"))

    return show

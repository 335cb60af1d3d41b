"""What a terminal shows while the demo runs: the rounds, the exports that have not ended, and what they wait for.

A screen is drawn from the statuses and the time alone. It always fits the terminal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from export_producers.commands import rendering
from export_producers.commands.asked import subject
from export_worker.contract.printable import clean
from export_worker.contract.status import Phase, Status
from export_worker.demo.first_line import STARTING
from export_worker.demo.requests import FLAKY, GOOD, ROUND_KEY

ROUNDS = {GOOD: "the platforms work", FLAKY: "the platforms fail some calls"}
"""The rounds in their order, as a sentence says what is different in each."""

_LINES_AROUND_ROWS = 6
"""Both rounds, the header, two lines below the rows, and the line of the cursor."""
_SUBJECT_WIDTH_MIN = 110
"""Columns of a terminal that has room for what each export asks for."""
_PHASE_WIDTH = max(map(len, Phase))

_ORDER = {Phase.TRANSFERRING: 0, Phase.RUNNING: 1, Phase.QUEUED: 2}
"""Open exports that are closest to their end come first."""


@dataclass(frozen=True, slots=True)
class Screen:
    """The screen of one moment.

    Args:
        statuses: The exports of the rounds that have begun.
        started_at: When the demo was started.
        now: The time of this moment.
    """

    statuses: Sequence[Status]
    started_at: datetime
    now: datetime

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the lines of the screen. Rows that have no room are counted."""
        if not self.statuses:
            yield _justified(STARTING, _seconds(self.now, self.started_at), options.max_width)
            return
        for line in round_lines(self.statuses, self.now):
            yield _justified(line.text, line.seconds, options.max_width, "green" if line.ended else "bold")
        rows = sorted((it for it in self.statuses if not it.phase.terminal), key=lambda it: _ORDER[it.phase])
        room = max(1, console.size.height - _LINES_AROUND_ROWS)
        if rows:
            yield _table(rows[:room], options.max_width)
        if len(rows) > room:
            yield Text(f"… and {len(rows) - room} more", "dim")
        yield Text(waits(self.statuses, self.now), "dim", no_wrap=True, overflow="ellipsis")


@dataclass(frozen=True, slots=True)
class RoundLine:
    """One round as a line.

    Args:
        text: The number and the name of the round, and how many of its exports have succeeded.
        seconds: How long the round has run, or took.
        ended: Whether all of its exports have ended.
    """

    text: str
    seconds: float
    ended: bool


def round_lines(statuses: Sequence[Status], now: datetime) -> Iterator[RoundLine]:
    """Yields a line for each round that has begun. Exports that have ended are only counted."""
    for number, (name, difference) in enumerate(ROUNDS.items(), start=1):
        members = [status for status in statuses if status.metadata.get(ROUND_KEY) == name]
        if members:
            ended = [status.finished_at for status in members if status.finished_at is not None]
            complete = len(ended) == len(members)
            until = max(ended) if complete else now
            text = f"Round {number} of {len(ROUNDS)}, {difference}: {_progress(members)}"
            yield RoundLine(text, _seconds(until, min(status.created_at for status in members)), complete)


def _progress(members: Sequence[Status]) -> str:
    succeeded = sum(status.phase is Phase.SUCCEEDED for status in members)
    text = f"{succeeded} of {len(members)} exports succeeded"
    lost = sum(status.phase.terminal for status in members) - succeeded
    return f"{text}, {lost} did not" if lost else text


def waits(statuses: Sequence[Status], now: datetime) -> str:
    """Returns in one line what the open exports wait for."""
    opened = [status for status in statuses if not status.phase.terminal]
    if not opened:
        return "Waiting for the last events and processes" if _last_round_ended(statuses) else "Starting the next round"
    retried = [status for status in opened if status.error is not None]
    counts = {phase: sum(it.phase is phase and it.error is None for it in opened) for phase in _ORDER}
    parts = (
        (counts[Phase.QUEUED], "submit", "submits"),
        (counts[Phase.RUNNING], "operation", "operations"),
        (counts[Phase.TRANSFERRING], "transfer", "transfers"),
        (len(retried), "retry", "retries"),
    )
    counted = [f"{count} {one if count == 1 else many}" for count, one, many in parts if count]
    return f"Waiting for {_listed(counted)}{_next_retry(retried, now)}"


def _last_round_ended(statuses: Sequence[Status]) -> bool:
    return any(status.metadata.get(ROUND_KEY) == FLAKY for status in statuses)


def _next_retry(retried: Sequence[Status], now: datetime) -> str:
    """Returns when the next retry is due. If it is due already, its calls are paused, and nothing is added."""
    next_s = min(((it.due_at - now).total_seconds() for it in retried if it.due_at is not None), default=0.0)
    return f" (next in {next_s:.1f} s)" if next_s > 0 else ""


def _listed(parts: Sequence[str]) -> str:
    """Returns the parts as English lists them: `a, b and c`."""
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last


def _table(rows: Sequence[Status], width: int) -> Table:
    """Returns the rows as a table with one line for each. Only its last column is cut."""
    with_subject = width >= _SUBJECT_WIDTH_MIN
    grid = Table(box=None, pad_edge=False, header_style="bold", width=width)
    grid.add_column("KIND", no_wrap=True, min_width=max(len(status.kind) for status in rows))
    if with_subject:
        grid.add_column("WHAT", no_wrap=True, overflow="ellipsis")
    grid.add_column("PHASE", no_wrap=True, min_width=_PHASE_WIDTH)
    grid.add_column("NOW", no_wrap=True, overflow="ellipsis", ratio=1)
    for status in rows:
        what = [Text(subject(status))] if with_subject else []
        grid.add_row(
            Text(clean(status.kind)), *what, Text(status.phase, rendering.STYLE[status.phase]), Text(_now(status))
        )
    return grid


def _now(status: Status) -> str:
    """Returns the current activity of an export. Of an error, the code is enough: its message has no room here."""
    return rendering.activity(status) if status.error is None else clean(f"retry after {status.error.code}")


def _justified(text: str, seconds: float, width: int, style: str = "") -> Text:
    """Returns a line with the text on the left and the time on the right."""
    time = f"{seconds:.0f} s"
    room = max(1, width - len(time) - 2)
    line = Text(text, style, no_wrap=True)
    line.truncate(room, overflow="ellipsis", pad=True)
    return line.append(f"  {time}")


def _seconds(later: datetime, earlier: datetime) -> float:
    """Returns the seconds between two times; 0 if the clocks of Redis and of this process differ the other way."""
    return max(0.0, (later - earlier).total_seconds())

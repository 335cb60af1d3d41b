"""What a terminal shows while a command follows one export: its phase, a bar, its rate and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from export_producers.choices import Language
from export_producers.commands import rendering
from export_producers.commands.asked import subject
from export_producers.languages import duration, text
from export_worker.contract.printable import clean
from export_worker.contract.status import Phase, Status

BAR_MAX = 40
"""Columns of a bar. A longer one is no easier to read."""
OBJECTS_MAX = 5
"""Objects of an ended export that are shown. The manifest lists all of them."""
REFRESHES_PER_S = 4
"""The elapsed time is drawn again although the status has not changed."""


@contextmanager
def following(console: Console, language: Language = "en") -> Iterator[Callable[[Status], None]]:
    """Yields a function that shows a status in place of the one before."""
    last: Status | None = None

    def renderable() -> RenderableType:
        return Text() if last is None else Following(last, datetime.now(UTC), language)

    with Live(console=console, get_renderable=renderable, refresh_per_second=REFRESHES_PER_S) as live:

        def show(status: Status) -> None:
            nonlocal last
            last = status
            live.refresh()

        yield show


@dataclass(frozen=True, slots=True)
class Following:
    """One export at one moment, within the width of its console.

    Args:
        now: The time of this moment.
    """

    status: Status
    now: datetime
    language: Language = "en"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields what is exported, the phase with a bar and the elapsed time, and the current activity."""
        status = self.status
        what = " ".join(filter(None, (status.kind, subject(status, self.language))))
        title = text(self.language, "doing.on", what=what, connection=status.connection)
        yield Text(clean(title), style="dim", overflow="fold")
        yield self._phase(options.max_width)
        activity = ", ".join(filter(None, (rendering.activity(status, self.language), self._next_step())))
        if activity:
            yield Text(activity, overflow="fold")
        for name in self._results():
            yield Text(clean(name), overflow="fold")

    def _next_step(self) -> str:
        """Returns when the next step is due, unless it is due or the export transfers or has ended."""
        status = self.status
        if status.due_at is None or status.due_at <= self.now or status.phase is Phase.TRANSFERRING:
            return ""
        due = rendering.how_long_ago(status.due_at, self.now, self.language)
        return text(self.language, "doing.next_step", age=due)

    def _phase(self, width: int) -> Table:
        """Returns the line with phase, bar, percentage and elapsed time. A narrow terminal has no room for the bar."""
        status, done = self.status, rendering.fraction(self.status)
        until = status.finished_at or self.now
        span = duration(self.language, (until - status.created_at).total_seconds())
        elapsed = text(self.language, "doing.after" if status.phase.terminal else "doing.during", span=span)
        phase = rendering.phase_name(status.phase, self.language)
        cells: list[RenderableType] = [Text(phase, f"bold {rendering.STYLE[status.phase]}")]
        if done is not None and not status.phase.terminal:
            room = width - cell_len(f"{phase} 100% {elapsed}") - 3
            if room >= 5:
                cells.append(ProgressBar(total=1.0, completed=done, width=min(room, BAR_MAX)))
            cells.append(Text(f"{done:4.0%}"))
        grid = Table.grid(padding=(0, 1))
        for _ in cells:
            grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_row(*cells, Text(elapsed, "dim"))
        return grid

    def _results(self) -> list[str]:
        """Returns where the files of a succeeded export are."""
        if self.status.phase is not Phase.SUCCEEDED:
            return []
        uris = [item.uri for item in self.status.objects]
        more = [text(self.language, "doing.more", count=len(uris) - OBJECTS_MAX)] if len(uris) > OBJECTS_MAX else []
        manifest = [self.status.manifest] if self.status.manifest else []
        return [*uris[:OBJECTS_MAX], *more, *manifest]

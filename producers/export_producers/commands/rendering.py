"""Formats exports for people: a line of progress, tables, and plain lines if the output is no terminal."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_never

from pydantic import BaseModel
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from export_producers.commands.asked import asked, subject
from export_producers.durations import age, duration
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Phase, Progress, Status, StoredObject

STYLE = {
    Phase.QUEUED: "dim",
    Phase.RUNNING: "cyan",
    Phase.TRANSFERRING: "blue",
    Phase.SUCCEEDED: "green",
    Phase.FAILED: "red",
    Phase.CANCELLED: "yellow",
}

PIPE_WIDTH = 240
"""Columns of an output that is no terminal. Ids and keys must not be cut in a file or a pipe."""

NOW_WIDTH_MIN = 24
"""Minimum width of the column with the current activity of an export. A narrower column is hard to read."""

COLUMNS = ("EXPORT", "WHAT", "CONNECTION", "PHASE", "CREATED (UTC)", "AGE")
"""The columns of a listing before that with the current activity."""

BLOCK_INDENT = 2
"""Columns by which the lines below the first one of a block are indented."""

TIMELINE_WIDTH_MIN = 70
"""From this width on, time and phase leave enough room for the note of a transition."""


def document(model: BaseModel) -> str:
    """Returns a document of the contract as JSON."""
    return dumps(model.model_dump(mode="json"))


def console(*, stderr: bool = False) -> Console:
    """Returns a console. If the stream is no terminal, lines are wide enough that no text is cut."""
    stream = sys.stderr if stderr else sys.stdout
    # The stream is None if it was closed before the process started.
    terminal = stream is not None and stream.isatty()
    return Console(stderr=stderr, width=None if terminal else PIPE_WIDTH, highlight=False)


def redraws(console: Console) -> bool:
    """Returns whether lines can be drawn again in place. A pipe, and a terminal of the type `dumb`, only append.

    A stream is asked itself, because `FORCE_COLOR` makes rich call every stream a terminal.
    """
    return console.file.isatty() and not console.is_dumb_terminal


def human_bytes(count: float) -> str:
    """Formats a number of bytes, e.g. `1536` as `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def activity(status: Status) -> str:
    """Returns the current activity of an export as short text."""
    match status.phase:
        case Phase.QUEUED:
            text = "waits to be submitted"
        case Phase.RUNNING:
            text = f"platform says {status.platform_stage or 'nothing yet'}, {status.counters.polls} polls"
        case Phase.TRANSFERRING:
            text = _transferred(status)
        case Phase.SUCCEEDED:
            text = f"{len(status.objects)} file(s), {human_bytes(sum(item.bytes for item in status.objects))}"
        case Phase.FAILED | Phase.CANCELLED:
            text = ""
        case _:
            assert_never(status.phase)
    if status.error is not None:
        text += f" [{status.error.code}] {status.error.message}"
    return clean(text).strip()


def _transferred(status: Status) -> str:
    progress = status.progress
    total = f" of {human_bytes(progress.bytes_total)}" if progress.bytes_total else ""
    files = progress.files_total or 1
    text = f"{human_bytes(progress.bytes_done)}{total}, file {min(progress.files_done + 1, files)} of {files}"
    if progress.parts_done:
        text += f", {progress.parts_done} part(s)"
    if progress.bytes_per_s is not None:
        text += f", {human_bytes(progress.bytes_per_s)}/s"
    left_s = time_left_s(progress)
    return text if left_s is None else f"{text}, {duration(left_s)} left"


def fraction(status: Status) -> float | None:
    """Returns how far the platform or the transfer is, from 0 to 1; None if it is not known."""
    progress = status.progress
    if status.phase is Phase.TRANSFERRING and progress.percent is None:
        if progress.bytes_total:
            return min(1.0, progress.bytes_done / progress.bytes_total)
        files = progress.files_total or 0
        return progress.files_done / files if files > 1 else None
    return None if progress.percent is None else min(1.0, progress.percent / 100)


def time_left_s(progress: Progress) -> float | None:
    """Returns how long a transfer still takes at its present rate; None if size or rate are not known."""
    if not progress.bytes_total or not progress.bytes_per_s:
        return None
    return max(0.0, (progress.bytes_total - progress.bytes_done) / progress.bytes_per_s)


def line(status: Status) -> str:
    """Returns one plain line with time, id, phase and current activity."""
    text = f"{isoformat(status.updated_at)}  {status.export_id}  {status.phase:<12}  {activity(status)}"
    return clean(text).rstrip()


@dataclass(frozen=True, slots=True)
class Listing:
    """Exports as a table that fits the width of its console, or as blocks where a table is too wide. No id is cut.

    Args:
        now: The time from which ages count.
    """

    statuses: Sequence[Status]
    now: datetime

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a table with one row for each export, or a block of lines for each."""
        rows = [self._row(status) for status in self.statuses]
        needed = sum(max(map(cell_len, column)) + 1 for column in zip(COLUMNS, *rows, strict=True)) + NOW_WIDTH_MIN
        if options.max_width >= needed:
            yield self._table(rows)
        else:
            room = options.max_width - BLOCK_INDENT
            yield from (self._block(status, row, room) for status, row in zip(self.statuses, rows, strict=True))

    def _row(self, status: Status) -> list[str]:
        created = isoformat(status.created_at).replace("T", " ")[:-5]
        what = f"{status.kind} {subject(status)}".rstrip()
        cells = (status.export_id, what, status.connection, status.phase, created, age(status.created_at, self.now))
        return [clean(cell) for cell in cells]

    def _table(self, rows: Sequence[Sequence[str]]) -> Table:
        grid = Table(box=None, pad_edge=False, header_style="bold")
        for column in COLUMNS:
            grid.add_column(column, no_wrap=True)
        grid.add_column("NOW", overflow="fold")
        for status, (export_id, what, connection, phase, created, since) in zip(self.statuses, rows, strict=True):
            styled = Text(phase, STYLE[status.phase])
            cells = map(Text, (created, since, activity(status)))
            grid.add_row(Text(export_id), Text(what), Text(connection), styled, *cells)
        return grid

    def _block(self, status: Status, row: Sequence[str], room: int) -> Group:
        export_id, what, connection, phase, _, since = row
        # The id comes first: what a very narrow terminal cuts off is the age.
        head = Text(export_id, "bold", no_wrap=True, overflow="crop")
        head.append("  ").append(phase, STYLE[status.phase]).append(f"  {since}", "not bold")
        subject_line, now = f"{what} on {connection}", activity(status)
        joined = f"{subject_line}  {now}".rstrip()
        lines = (joined,) if cell_len(joined) <= room else (subject_line, now)
        return Group(head, *(Padding(Text(text, overflow="fold"), (0, 0, 0, BLOCK_INDENT)) for text in lines))


def table(statuses: Sequence[Status]) -> Listing:
    """Returns exports as a table for a console."""
    return Listing(statuses, datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Timeline:
    """The transitions of one export. A note that is longer than its line continues below itself, not below the time."""

    entries: Sequence[Mapping[str, Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a line for each transition. In a narrow terminal, the note is below its time and phase."""
        narrow = options.max_width < TIMELINE_WIDTH_MIN
        grid = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(2 if not narrow else 0):
            grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for entry in self.entries:
            at, phase, note = (clean(str(entry[name])) for name in ("at", "phase", "note"))
            styled = Text(phase, STYLE[Phase(phase)] if phase in set(Phase) else "")
            if narrow:
                grid.add_row(Group(Text.assemble(at, "  ", styled), Padding(Text(note, overflow="fold"), (0, 0, 0, 2))))
            else:
                grid.add_row(Text(at), styled, Text(note))
        yield grid


def details(status: Status, now: datetime | None = None) -> Table:
    """Returns all facts about one export as a table with one fact in each line.

    Args:
        now: The time from which ages count; by default that of this machine.
    """
    now = now or datetime.now(UTC)
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    counters = status.counters
    times = {
        "created": status.created_at,
        "updated": status.updated_at,
        "due": status.due_at,
        "finished": status.finished_at,
    }
    facts: list[tuple[str, str | Text | None]] = [
        ("export", status.export_id),
        ("kind", f"{status.kind} (connection {status.connection})"),
        *asked(status),
        ("phase", Text.assemble((status.phase, STYLE[status.phase]), f"  {activity(status)}")),
        ("operation", status.operation_id),
        *((name, None if at is None else f"{isoformat(at)} ({age(at, now)})") for name, at in times.items()),
        ("usual", _usual(status)),
        ("counters", f"{counters.submits} submits, {counters.polls} polls, {counters.retries} retries"),
        ("manifest", status.manifest),
        *(("object", _object(item)) for item in status.objects),
        *(("metadata", f"{name} = {value}") for name, value in status.metadata.items()),
    ]
    for name, fact in facts:
        if fact is not None:
            grid.add_row(name, fact if isinstance(fact, Text) else Text(clean(fact)))
    return grid


def _usual(status: Status) -> str | None:
    if (eta := status.eta) is None:
        return None
    return f"{duration(eta.p50)} on the platform, {duration(eta.p95)} at most in 95 % of {eta.samples} exports"


def _object(item: StoredObject) -> str:
    rows = "" if item.rows is None else f"  {item.rows} rows"
    return f"{item.uri}  {item.bytes} bytes{rows}  {item.checksum}"

"""Formats exports for people: a line of progress, tables, and plain lines if the output is no terminal."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from pydantic import BaseModel
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Phase, Status

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


def document(model: BaseModel) -> str:
    """Returns a document of the contract as JSON."""
    return dumps(model.model_dump(mode="json"))


def console(*, stderr: bool = False) -> Console:
    """Returns a console. If the stream is no terminal, lines are wide enough that no text is cut."""
    stream = sys.stderr if stderr else sys.stdout
    # The stream is None if it was closed before the process started.
    terminal = stream is not None and stream.isatty()
    return Console(stderr=stderr, width=None if terminal else PIPE_WIDTH, highlight=False)


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
    return text if progress.bytes_per_s is None else f"{text}, {human_bytes(progress.bytes_per_s)}/s"


def line(status: Status) -> str:
    """Returns one plain line with time, id, phase and current activity."""
    text = f"{isoformat(status.updated_at)}  {status.export_id}  {status.phase:<12}  {activity(status)}"
    return clean(text).rstrip()


@dataclass(frozen=True, slots=True)
class Listing:
    """Exports as a table that fits the width of its console. An id is never cut."""

    statuses: Sequence[Status]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a table with one row for each export. If it is too wide, kind and activity share one column."""
        wide = [_wide_row(status) for status in self.statuses]
        needed = sum(max(map(cell_len, column)) + 1 for column in zip(*wide, strict=True)) + NOW_WIDTH_MIN
        yield self._wide(wide) if options.max_width >= needed else self._narrow()

    def _wide(self, rows: Sequence[Sequence[str]]) -> Table:
        grid = _grid("EXPORT", "KIND", "CONNECTION", "PHASE", "CREATED")
        grid.add_column("NOW", overflow="fold")
        for status, (export_id, kind, connection, phase, created) in zip(self.statuses, rows, strict=True):
            styled = Text(phase, STYLE[status.phase])
            grid.add_row(*map(Text, (export_id, kind, connection)), styled, Text(created), Text(activity(status)))
        return grid

    def _narrow(self) -> Table:
        grid = _grid("EXPORT", "PHASE")
        grid.add_column("WHAT", overflow="fold")
        for status in self.statuses:
            export_id, kind, _, phase, _ = _wide_row(status)
            grid.add_row(
                Text(export_id), Text(phase, STYLE[status.phase]), Text(f"{kind}\n{activity(status)}".rstrip())
            )
        return grid


def _wide_row(status: Status) -> list[str]:
    cells = (status.export_id, status.kind, status.connection, status.phase, isoformat(status.created_at))
    return [clean(cell) for cell in cells]


def _grid(*columns: str) -> Table:
    """Returns a table with columns that are never wrapped."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, no_wrap=True)
    return grid


def table(statuses: Sequence[Status]) -> Listing:
    """Returns exports as a table for a console."""
    return Listing(statuses)


def details(status: Status) -> Table:
    """Returns all facts about one export as a table with one fact in each line."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    counters = status.counters
    facts = {
        "export": status.export_id,
        "kind": f"{status.kind} (connection {status.connection})",
        "phase": f"{status.phase}  {activity(status)}",
        "operation": status.operation_id,
        "created": isoformat(status.created_at),
        "updated": isoformat(status.updated_at),
        "due": None if status.due_at is None else isoformat(status.due_at),
        "finished": None if status.finished_at is None else isoformat(status.finished_at),
        "counters": f"{counters.submits} submits, {counters.polls} polls, {counters.retries} retries",
        "manifest": status.manifest,
    }
    for name, fact in facts.items():
        if fact is not None:
            grid.add_row(name, Text(clean(fact)))
    for item in status.objects:
        rows = "" if item.rows is None else f"  {item.rows} rows"
        grid.add_row("object", Text(clean(f"{item.uri}  {item.bytes} bytes{rows}  {item.checksum}")))
    for name, value in status.metadata.items():
        grid.add_row("metadata", Text(clean(f"{name} = {value}")))
    return grid

"""How exports look in a terminal: one line of progress, tables, and plain lines where there is no terminal."""

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
"""Columns when nobody watches: ids and keys must not be cut in a file or a pipe."""

NOW_WIDTH_MIN = 24
"""Columns in which what an export does can still be read."""


def document(model: BaseModel) -> str:
    """A document of the contract, as JSON."""
    return dumps(model.model_dump(mode="json"))


def console(*, stderr: bool = False) -> Console:
    """A console that cuts nothing when it is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    # A stream that was closed before we began is None.
    terminal = stream is not None and stream.isatty()
    return Console(stderr=stderr, width=None if terminal else PIPE_WIDTH, highlight=False)


def human_bytes(count: float) -> str:
    """`1536` → `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def what_now(status: Status) -> str:
    """What an export is doing, in a few words."""
    match status.phase:
        case Phase.QUEUED:
            words = "waits to be submitted"
        case Phase.RUNNING:
            words = f"platform says {status.platform_stage or 'nothing yet'}, {status.counters.polls} polls"
        case Phase.TRANSFERRING:
            words = _moved(status)
        case Phase.SUCCEEDED:
            words = f"{len(status.objects)} file(s), {human_bytes(sum(item.bytes for item in status.objects))}"
        case Phase.FAILED | Phase.CANCELLED:
            words = ""
        case _:
            assert_never(status.phase)
    if status.error is not None:
        words += f" [{status.error.code}] {status.error.message}"
    return clean(words).strip()


def _moved(status: Status) -> str:
    progress = status.progress
    total = f" of {human_bytes(progress.bytes_total)}" if progress.bytes_total else ""
    files = progress.files_total or 1
    words = f"{human_bytes(progress.bytes_done)}{total}, file {min(progress.files_done + 1, files)} of {files}"
    if progress.parts_done:
        words += f", {progress.parts_done} part(s)"
    return words if progress.bytes_per_s is None else f"{words}, {human_bytes(progress.bytes_per_s)}/s"


def line(status: Status) -> str:
    """One plain line: when, which, where it stands."""
    words = f"{isoformat(status.updated_at)}  {status.export_id}  {status.phase:<12}  {what_now(status)}"
    return clean(words).rstrip()


@dataclass(frozen=True, slots=True)
class Listing:
    """Exports as a table that fits its console: whatever must give way, an id never does."""

    statuses: Sequence[Status]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One export a row; where that is too wide, what it is and does stands in one column."""
        wide = [_wide_row(status) for status in self.statuses]
        needed = sum(max(map(cell_len, column)) + 1 for column in zip(*wide, strict=True)) + NOW_WIDTH_MIN
        yield self._wide(wide) if options.max_width >= needed else self._narrow()

    def _wide(self, rows: Sequence[Sequence[str]]) -> Table:
        grid = _grid("EXPORT", "KIND", "CONNECTION", "PHASE", "CREATED")
        grid.add_column("NOW", overflow="fold")
        for status, (export_id, kind, connection, phase, created) in zip(self.statuses, rows, strict=True):
            styled = Text(phase, STYLE[status.phase])
            grid.add_row(*map(Text, (export_id, kind, connection)), styled, Text(created), Text(what_now(status)))
        return grid

    def _narrow(self) -> Table:
        grid = _grid("EXPORT", "PHASE")
        grid.add_column("WHAT", overflow="fold")
        for status in self.statuses:
            export_id, kind, _, phase, _ = _wide_row(status)
            grid.add_row(
                Text(export_id), Text(phase, STYLE[status.phase]), Text(f"{kind}\n{what_now(status)}".rstrip())
            )
        return grid


def _wide_row(status: Status) -> list[str]:
    told = (status.export_id, status.kind, status.connection, status.phase, isoformat(status.created_at))
    return [clean(text) for text in told]


def _grid(*columns: str) -> Table:
    """A table whose columns so far keep their width."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, no_wrap=True)
    return grid


def table(statuses: Sequence[Status]) -> Listing:
    """Exports, as a table for a console."""
    return Listing(statuses)


def details(status: Status) -> Table:
    """Everything about one export, one line a fact."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    counters = status.counters
    facts = {
        "export": status.export_id,
        "kind": f"{status.kind} over {status.connection}",
        "phase": f"{status.phase}  {what_now(status)}",
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

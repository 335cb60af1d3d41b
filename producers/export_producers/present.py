"""How exports look in a terminal: one line of progress, tables, and plain lines where there is no terminal."""

import json
import sys
from collections.abc import Sequence
from typing import assert_never

from rich.console import Console
from rich.table import Table
from rich.text import Text

from export_worker.contract.model import isoformat
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


def dumps(value: object) -> str:
    """JSON for people and programs: Chinese stays Chinese."""
    return json.dumps(value, ensure_ascii=False)


def console(*, stderr: bool = False) -> Console:
    """A console that cuts nothing when it is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


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
    return words.strip()


def _moved(status: Status) -> str:
    progress = status.progress
    total = f" of {human_bytes(progress.bytes_total)}" if progress.bytes_total else ""
    files = progress.files_total or 1
    return f"{human_bytes(progress.bytes_done)}{total}, file {min(progress.files_done + 1, files)} of {files}"


def line(status: Status) -> str:
    """One plain line: when, which, where it stands."""
    return f"{isoformat(status.updated_at)}  {status.export_id}  {status.phase:<12}  {what_now(status)}".rstrip()


def table(statuses: Sequence[Status]) -> Table:
    """Exports, one a row."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("EXPORT", "KIND", "CONNECTION", "PHASE", "CREATED"):
        grid.add_column(column, no_wrap=True)
    grid.add_column("NOW")
    for status in statuses:
        grid.add_row(
            status.export_id,
            status.kind,
            Text(status.connection),
            Text(status.phase, STYLE[status.phase]),
            isoformat(status.created_at),
            Text(what_now(status)),
        )
    return grid


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
            grid.add_row(name, Text(fact))
    for item in status.objects:
        grid.add_row("object", Text(f"{item.uri}  {item.bytes} bytes  {item.checksum}"))
    for name, value in status.metadata.items():
        grid.add_row("metadata", Text(f"{name} = {value}"))
    return grid

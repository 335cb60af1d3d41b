"""Formats exports for people: a line of progress, tables, and plain lines if the output is no terminal."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_never

from pydantic import BaseModel
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from export_producers.choices import Language
from export_producers.commands.asked import asked, subject
from export_producers.events.deliveries import Delivery
from export_producers.languages import age, duration, text
from export_producers.languages.messages import translated
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

COLUMNS = ("export", "what", "connection", "phase", "created", "age")
"""The columns of a listing before that with the current activity."""

PHASE_WIDTH = 12
"""Columns of the longest name of a phase, in any language."""

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


def activity(status: Status, language: Language = "en") -> str:
    """Returns the current activity of an export as short text."""
    found = _activity(status, language)
    if status.error is not None:
        found += f" [{status.error.code}] {translated(language, status.error.message)}"
    return clean(found).strip()


def _activity(status: Status, language: Language) -> str:
    match status.phase:
        case Phase.QUEUED:
            return text(language, "doing.queued")
        case Phase.RUNNING if status.platform_stage:
            return text(language, "doing.running", stage=status.platform_stage, polls=status.counters.polls)
        case Phase.RUNNING:
            return text(language, "doing.no_stage", polls=status.counters.polls)
        case Phase.TRANSFERRING:
            return _transferred(status.progress, language)
        case Phase.SUCCEEDED:
            size = human_bytes(sum(item.bytes for item in status.objects))
            return text(language, "doing.succeeded", files=len(status.objects), size=size)
        case Phase.FAILED | Phase.CANCELLED:
            return ""
        case _:
            assert_never(status.phase)


def _transferred(progress: Progress, language: Language) -> str:
    files = progress.files_total or 1
    place = {"number": min(progress.files_done + 1, files), "files": files, "done": human_bytes(progress.bytes_done)}
    if progress.bytes_total:
        found = text(language, "doing.bytes_of", total=human_bytes(progress.bytes_total), **place)
    else:
        found = text(language, "doing.bytes", **place)
    if progress.parts_done:
        found += text(language, "doing.parts", count=progress.parts_done)
    if progress.bytes_per_s is not None:
        found += text(language, "doing.rate", rate=human_bytes(progress.bytes_per_s))
    left_s = time_left_s(progress)
    return found if left_s is None else found + text(language, "doing.left", span=duration(language, left_s))


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


def line(status: Status, language: Language = "en") -> str:
    """Returns one plain line with time, id, phase and current activity."""
    phase = set_cell_size(phase_name(status.phase, language), PHASE_WIDTH)
    found = f"{isoformat(status.updated_at)}  {status.export_id}  {phase}  {activity(status, language)}"
    return clean(found).rstrip()


def phase_name(phase: str, language: Language) -> str:
    """Returns the name of a phase. One of a later version keeps its own."""
    return text(language, f"phase.{phase}") if phase in set(Phase) else phase


def how_long_ago(moment: datetime, now: datetime, language: Language) -> str:
    """Returns how far a time is from now: `3 min ago` or `in 3 min`."""
    return age(language, (now - moment).total_seconds())


@dataclass(frozen=True, slots=True)
class Listing:
    """Exports as a table that fits the width of its console, or as blocks where a table is too wide. No id is cut.

    Args:
        now: The time from which ages count.
    """

    statuses: Sequence[Status]
    now: datetime
    language: Language = "en"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a table with one row for each export, or a block of lines for each."""
        rows = [self._row(status) for status in self.statuses]
        needed = (
            sum(max(map(cell_len, column)) + 1 for column in zip(self._names(), *rows, strict=True)) + NOW_WIDTH_MIN
        )
        if options.max_width >= needed:
            yield self._table(rows)
        else:
            room = options.max_width - BLOCK_INDENT
            yield from (self._block(status, row, room) for status, row in zip(self.statuses, rows, strict=True))

    def _names(self) -> list[str]:
        return [text(self.language, f"column.{name}") for name in COLUMNS]

    def _row(self, status: Status) -> list[str]:
        created = isoformat(status.created_at).replace("T", " ")[:-5]
        what = f"{status.kind} {subject(status, self.language)}".rstrip()
        phase = phase_name(status.phase, self.language)
        since = how_long_ago(status.created_at, self.now, self.language)
        cells = (status.export_id, what, status.connection, phase, created, since)
        return [clean(cell) for cell in cells]

    def _table(self, rows: Sequence[Sequence[str]]) -> Table:
        grid = Table(box=None, pad_edge=False, header_style="bold")
        for column in self._names():
            grid.add_column(column, no_wrap=True)
        grid.add_column(text(self.language, "column.now"), overflow="fold")
        for status, (export_id, what, connection, phase, created, since) in zip(self.statuses, rows, strict=True):
            styled = Text(phase, STYLE[status.phase])
            cells = map(Text, (created, since, activity(status, self.language)))
            grid.add_row(Text(export_id), Text(what), Text(connection), styled, *cells)
        return grid

    def _block(self, status: Status, row: Sequence[str], room: int) -> Group:
        export_id, what, connection, phase, _, since = row
        # The id comes first: what a very narrow terminal cuts off is the age.
        head = Text(export_id, "bold", no_wrap=True, overflow="crop")
        head.append("  ").append(phase, STYLE[status.phase]).append(f"  {since}", "not bold")
        subject_line = text(self.language, "doing.on", what=what, connection=connection)
        now = activity(status, self.language)
        joined = f"{subject_line}  {now}".rstrip()
        lines = (joined,) if cell_len(joined) <= room else (subject_line, now)
        return Group(head, *(Padding(Text(each, overflow="fold"), (0, 0, 0, BLOCK_INDENT)) for each in lines))


def table(statuses: Sequence[Status], language: Language = "en") -> Listing:
    """Returns exports as a table for a console."""
    return Listing(statuses, datetime.now(UTC), language)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The transitions of one export. A note that is longer than its line continues below itself, not below the time."""

    entries: Sequence[Mapping[str, Any]]
    language: Language = "en"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a line for each transition. In a narrow terminal, the note is below its time and phase."""
        narrow = options.max_width < TIMELINE_WIDTH_MIN
        grid = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(2 if not narrow else 0):
            grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for entry in self.entries:
            at, phase = (clean(str(entry[name])) for name in ("at", "phase"))
            note = clean(translated(self.language, str(entry["note"])))
            styled = Text(phase_name(phase, self.language), STYLE[Phase(phase)] if phase in set(Phase) else "")
            if narrow:
                grid.add_row(Group(Text.assemble(at, "  ", styled), Padding(Text(note, overflow="fold"), (0, 0, 0, 2))))
            else:
                grid.add_row(Text(at), styled, Text(note))
        yield grid


def details(status: Status, now: datetime | None = None, language: Language = "en") -> Table:
    """Returns all facts about one export as a table with one fact in each line.

    Args:
        now: The time from which ages count; by default that of this machine.
    """
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, fact in _facts(status, now or datetime.now(UTC), language):
        if fact is not None:
            grid.add_row(text(language, f"label.{name}"), fact if isinstance(fact, Text) else Text(clean(fact)))
    return grid


def _facts(status: Status, now: datetime, language: Language) -> Iterator[tuple[str, str | Text | None]]:
    """Yields the facts about an export, each with the key of its name."""
    yield "export", status.export_id
    yield "kind", text(language, "label.kind_of", kind=status.kind, connection=status.connection)
    yield from ((name.replace(" ", "_"), fact) for name, fact in asked(status))
    yield "requested_by", status.requested_by
    yield "trace", status.trace_id
    phase = (phase_name(status.phase, language), STYLE[status.phase])
    yield "phase", Text.assemble(phase, f"  {activity(status, language)}")
    yield "operation", status.operation_id
    times = {
        "created": status.created_at,
        "updated": status.updated_at,
        "due": status.due_at,
        "finished": status.finished_at,
        "submits_from": None if status.eta is None else status.eta.submits_from,
    }
    for name, at in times.items():
        yield name, None if at is None else f"{isoformat(at)} ({how_long_ago(at, now, language)})"
    yield "usual", _usual(status, language)
    counters = status.counters
    yield (
        "counters",
        text(language, "label.counts", submits=counters.submits, polls=counters.polls, retries=counters.retries),
    )
    yield "manifest", status.manifest
    yield from (("object", _object(item, language)) for item in status.objects)
    yield from (("metadata", f"{name} = {value}") for name, value in status.metadata.items())


def delivery(item: Delivery, language: Language = "en") -> str:
    """Returns one plain line with an event, a sink, and how far the delivery is."""
    facts = [item.state.replace("_", " ")]
    if item.due_at is not None:
        facts.append(f"due at {isoformat(item.due_at)}")
    if item.failures:
        facts.append(f"refused {item.failures} time(s)")
    answer = f": {translated(language, item.answer)}" if item.answer else ""
    state = ", ".join(translated(language, fact) for fact in facts)
    return clean(f"{isoformat(item.event_at)}  {item.event_id}  {item.sink} ({item.type})  {state}{answer}")


def _usual(status: Status, language: Language) -> str | None:
    if (eta := status.eta) is None:
        return None
    p50, p95 = duration(language, eta.p50), duration(language, eta.p95)
    return text(language, "label.usual_of", p50=p50, p95=p95, samples=eta.samples)


def _object(item: StoredObject, language: Language) -> str:
    counts = [f"{item.bytes} bytes", *([] if item.rows is None else [f"{item.rows} rows"])]
    return "  ".join([item.uri, *(translated(language, each) for each in counts), item.checksum])

"""What the demo prints at its end: the events, the objects, the rounds and the result."""

from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from export_producers.commands import rendering
from export_worker.contract.model import isoformat
from export_worker.demo.exports import Outcome
from export_worker.demo.screen import round_lines
from export_worker.demo.services import Services

CHECKSUM_WIDTH_MIN = 110
"""Columns of a terminal that has room for checksums beside keys of two lines."""


def print_report(console: Console, outcome: Outcome, elapsed_s: float) -> None:
    """Prints the tables, and last the lines that a short terminal still shows."""
    console.print()
    console.print(_events_table(outcome))
    console.print()
    console.print(_objects_table(outcome, with_checksums=console.width >= CHECKSUM_WIDTH_MIN))
    console.print()
    for line in round_lines(outcome.statuses, datetime.now(UTC)):
        console.print(Text(f"{line.text} ({line.seconds:.0f} s)"))
    succeeded = sum(status.phase == "succeeded" for status in outcome.statuses)
    console.print(
        Text(f"{succeeded} of {len(outcome.statuses)} exports succeeded, {len(outcome.events)} events received"),
        style="bold green" if outcome.complete else "bold red",
    )
    console.print(Text(f"The demo took {elapsed_s:.0f} s."), style="dim")


def _objects_table(outcome: Outcome, *, with_checksums: bool) -> Table:
    grid = Table(title="Objects in S3", title_justify="left", box=None, pad_edge=False, header_style="bold")
    grid.add_column("KEY", overflow="fold")
    grid.add_column("BYTES", justify="right", no_wrap=True)
    if with_checksums:
        grid.add_column("CHECKSUM", no_wrap=True)
    for status in outcome.statuses:
        for item in status.objects:
            grid.add_row(Text(item.key), f"{item.bytes:,}", *([item.checksum] if with_checksums else []))
        if not status.objects:
            grid.add_row(Text(f"({status.kind}: {status.phase} {rendering.activity(status)})"))
    return grid


def _events_table(outcome: Outcome) -> Table:
    grid = Table(title="Events received", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("TIME", "TYPE", "EXPORT"):
        grid.add_column(column, no_wrap=True)
    for event in outcome.events:
        grid.add_row(isoformat(event.time), event.type, event.subject)
    return grid


def document(services: Services, outcome: Outcome) -> dict[str, object]:
    """Returns what `--json` prints."""
    return {
        "complete": outcome.complete,
        "exports": [status.model_dump(mode="json") for status in outcome.statuses],
        "events": [event.model_dump(mode="json") for event in outcome.events],
        "addresses": {"redis": services.redis_url, "s3": services.s3_url, "platform": services.platform_url},
    }

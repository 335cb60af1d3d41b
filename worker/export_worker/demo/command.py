"""The command `export-worker demo`: runs the exports and prints their progress, their objects and their events."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from export_producers.commands import rendering
from export_worker.contract.model import isoformat
from export_worker.contract.printable import dumps
from export_worker.contract.status import Status
from export_worker.demo.exports import Outcome, ShowStatuses, run_exports
from export_worker.demo.requests import EXPORTS, ROUND_KEY
from export_worker.demo.services import Services, start_services, start_workers
from export_worker.redis.cancellation import cancel_and_wait

TIMEOUT_S = 120.0
"""The timeout of a round with one export of each kind. Each further export adds a second."""


def demo(count: int | None, *, serve: bool, as_json: bool) -> None:
    """See `declarations.demo`."""
    with tempfile.TemporaryDirectory(prefix="export-worker-demo-") as directory:
        complete = asyncio.run(_demo(Path(directory), count or len(EXPORTS), serve=serve, as_json=as_json))
    sys.exit(0 if complete else 1)


async def _demo(directory: Path, count: int, *, serve: bool, as_json: bool) -> bool:
    console = rendering.console(stderr=as_json)
    stop = _stop_on_signals()
    console.print("Starting Redis, an S3 server, the platform simulator and two workers …", style="dim")
    async with start_services(directory) as services, start_workers(services):
        with _display(console) as show:
            exports = run_exports(services.redis_url, services.platform_url, count, show, TIMEOUT_S + count)
            running = asyncio.create_task(exports)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await cancel_and_wait(running)
            console.print("Stopped before all exports ended.")
            return False
        outcome = await running
        if as_json:
            click.echo(dumps(_document(services, outcome)))
        else:
            _report(console, outcome)
        if serve:
            _print_addresses(console, services)
            await stop.wait()
        stopping.cancel()
        return outcome.complete


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


@contextmanager
def _display(console: Console) -> Iterator[ShowStatuses]:
    """Yields a function that shows statuses: as a live table in a terminal, else as one line for each change."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda statuses: live.update(rendering.table(statuses), refresh=True)
        return
    printed: dict[str, str] = {}

    def show(statuses: Sequence[Status]) -> None:
        for status in statuses:
            text = f"{status.phase:<12}  {rendering.activity(status)}"
            if printed.get(status.export_id) != text:
                printed[status.export_id] = text
                round_name = status.metadata.get(ROUND_KEY, "")
                console.print(Text(f"{isoformat(status.updated_at)}  {status.kind:<31}  {round_name:<5}  {text}"))

    yield show


def _report(console: Console, outcome: Outcome) -> None:
    console.print()
    console.print(_objects_table(outcome.statuses))
    console.print()
    console.print(_events_table(outcome))
    succeeded = sum(status.phase == "succeeded" for status in outcome.statuses)
    console.print()
    console.print(
        Text(f"{succeeded} of {len(outcome.statuses)} exports succeeded, {len(outcome.events)} events received"),
        style="bold green" if outcome.complete else "bold red",
    )


def _objects_table(statuses: Sequence[Status]) -> Table:
    grid = Table(title="Objects in S3", title_justify="left", box=None, pad_edge=False, header_style="bold")
    grid.add_column("KEY", overflow="fold")
    grid.add_column("BYTES", justify="right", no_wrap=True)
    grid.add_column("CHECKSUM", no_wrap=True)
    for status in statuses:
        for item in status.objects:
            grid.add_row(Text(item.key), f"{item.bytes:,}", item.checksum)
        if not status.objects:
            grid.add_row(Text(f"({status.kind}: {status.phase} {rendering.activity(status)})"), "", "")
    return grid


def _events_table(outcome: Outcome) -> Table:
    grid = Table(title="Events received", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("TIME", "TYPE", "EXPORT"):
        grid.add_column(column, no_wrap=True)
    for event in outcome.events:
        grid.add_row(isoformat(event.time), event.type, event.subject)
    return grid


def _document(services: Services, outcome: Outcome) -> dict[str, object]:
    return {
        "complete": outcome.complete,
        "exports": [status.model_dump(mode="json") for status in outcome.statuses],
        "events": [event.model_dump(mode="json") for event in outcome.events],
        "addresses": {"redis": services.redis_url, "s3": services.s3_url, "platform": services.platform_url},
    }


def _print_addresses(console: Console, services: Services) -> None:
    variables = " ".join(
        f"{name}={services.environment[name]}"
        for name in ("EXPORT_CONFIG", "DEMO_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    )
    console.print()
    console.print(f"Redis      {services.redis_url}")
    console.print(f"S3         {services.s3_url}")
    console.print(f"Platform   {services.platform_url}")
    console.print(f"Logs       {services.directory}")
    console.print("To run export-worker commands in another terminal, first run there:", style="bold")
    console.print(Text(f"  export {variables}"), soft_wrap=True)
    console.print("Press Ctrl-C to stop everything.")

"""`export-worker demo`: the whole way of every export, on this machine."""

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
from export_worker.demo.play import Outcome, Show, play
from export_worker.demo.requests import EXPORTS
from export_worker.demo.stage import Stage, open_stage, workers
from export_worker.redis.cancellation import cancel_and_wait

TIMEOUT_S = 120.0
"""For the exports of a default demo; each further one adds a second."""


@click.command()
@click.option(
    "--exports",
    "count",
    type=click.IntRange(1, 10_000),
    metavar="N",
    default=len(EXPORTS),
    help="At least so many in good weather.",
)
@click.option("--serve", is_flag=True, help="Stay up until Ctrl-C, and print the addresses.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def demo(count: int, *, serve: bool, as_json: bool) -> None:
    """Run every kind of export against an embedded Redis, an embedded S3 and simulated platforms.

    Twice: while all goes well, and while the platforms are flaky.
    """
    with tempfile.TemporaryDirectory(prefix="export-worker-demo-") as directory:
        complete = asyncio.run(_demo(Path(directory), count, serve=serve, as_json=as_json))
    sys.exit(0 if complete else 1)


async def _demo(directory: Path, count: int, *, serve: bool, as_json: bool) -> bool:
    console = rendering.console(stderr=as_json)
    stop = _stop_on_signals()
    console.print("starting Redis, S3, the platforms' simulator and two workers …", style="dim")
    async with open_stage(directory) as stage, workers(stage):
        with _display(console) as show:
            show_all = play(stage.redis_url, stage.platform_url, count, show, TIMEOUT_S + count)
            playing = asyncio.create_task(show_all)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():
            await cancel_and_wait(playing)
            console.print("stopped before the end")
            return False
        outcome = await playing
        if as_json:
            click.echo(dumps(_document(stage, outcome)))
        else:
            _report(console, outcome)
        if serve:
            _invite(console, stage)
            await stop.wait()
        stopping.cancel()
        return outcome.complete


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


@contextmanager
def _display(console: Console) -> Iterator[Show]:
    """A table that changes in place in a terminal, one line a change elsewhere."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda statuses: live.update(rendering.table(statuses), refresh=True)
        return
    told: dict[str, str] = {}

    def show(statuses: Sequence[Status]) -> None:
        for status in statuses:
            words = f"{status.phase:<12}  {rendering.activity(status)}"
            if told.get(status.export_id) != words:
                told[status.export_id] = words
                weather = status.metadata.get("weather", "")
                console.print(Text(f"{isoformat(status.updated_at)}  {status.kind:<31}  {weather:<5}  {words}"))

    yield show


def _report(console: Console, outcome: Outcome) -> None:
    console.print()
    console.print(_landed(outcome.statuses))
    console.print()
    console.print(_events(outcome))
    done = sum(status.phase == "succeeded" for status in outcome.statuses)
    console.print()
    console.print(
        Text(f"{done} of {len(outcome.statuses)} exports succeeded, {len(outcome.events)} events received"),
        style="bold green" if outcome.complete else "bold red",
    )


def _landed(statuses: Sequence[Status]) -> Table:
    grid = Table(title="What landed in S3", title_justify="left", box=None, pad_edge=False, header_style="bold")
    grid.add_column("KEY", overflow="fold")
    grid.add_column("BYTES", justify="right", no_wrap=True)
    grid.add_column("CHECKSUM", no_wrap=True)
    for status in statuses:
        for item in status.objects:
            grid.add_row(Text(item.key), f"{item.bytes:,}", item.checksum)
        if not status.objects:
            grid.add_row(Text(f"({status.kind}: {status.phase} {rendering.activity(status)})"), "", "")
    return grid


def _events(outcome: Outcome) -> Table:
    grid = Table(title="Events received", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("TIME", "TYPE", "EXPORT"):
        grid.add_column(column, no_wrap=True)
    for event in outcome.events:
        grid.add_row(isoformat(event.time), event.type, event.subject)
    return grid


def _document(stage: Stage, outcome: Outcome) -> dict[str, object]:
    return {
        "complete": outcome.complete,
        "exports": [status.model_dump(mode="json") for status in outcome.statuses],
        "events": [event.model_dump(mode="json") for event in outcome.events],
        "addresses": {"redis": stage.redis_url, "s3": stage.s3_url, "platform": stage.platform_url},
    }


def _invite(console: Console, stage: Stage) -> None:
    exports = " ".join(
        f"{name}={stage.environment[name]}"
        for name in ("EXPORT_CONFIG", "DEMO_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    )
    console.print()
    console.print(f"Redis      {stage.redis_url}")
    console.print(f"S3         {stage.s3_url}")
    console.print(f"Platform   {stage.platform_url}")
    console.print(f"Logs       {stage.directory}")
    console.print("Ask for more from another terminal, after:", style="bold")
    console.print(Text(f"  export {exports}"), soft_wrap=True)
    console.print("Ctrl-C ends everything.")

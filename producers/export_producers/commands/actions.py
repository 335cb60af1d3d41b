"""The commands that act on exports, and the one that explains: cancel, retry, explain."""

import asyncio
import sys

import click

from export_producers.client import ExportQueue
from export_producers.commands.exports import OpenQueue, as_json, failed_exports
from export_producers.commands.options import TEXT
from export_producers.records import Start
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Phase, Status
from export_worker.errors import ExportWorkerError


@click.command()
@click.argument("export_id", type=TEXT)
@as_json
@click.pass_obj
def cancel(open_queue: OpenQueue, *, export_id: str, as_json: bool) -> None:
    """Ask for the end of the export EXPORT_ID, here and on the platform where that can be done."""

    async def run() -> Phase:
        async with open_queue() as queue:
            return await queue.cancel(export_id)

    phase = asyncio.run(run())
    if as_json:
        click.echo(dumps({"export_id": export_id, "phase": phase, "cancelling": not phase.terminal}))
    else:
        click.echo(f"export {export_id} has {phase} already" if phase.terminal else f"cancelling export {export_id}")
    if phase.terminal and phase is not Phase.CANCELLED:
        sys.exit(1)


@click.command()
@click.argument("export_id", type=TEXT, required=False)
@click.option("--from", "start", type=click.Choice(["submit", "poll", "transfer"]), help="By default the failed step.")
@click.option("--failed", is_flag=True, help="Every failed export instead of one.")
@click.option("--error", "code", type=TEXT, metavar="CODE", help="With --failed: only those with this error code.")
@click.option("--dry-run", is_flag=True, help="With --failed: only list them.")
@as_json
@click.pass_obj
def retry(
    open_queue: OpenQueue,
    *,
    export_id: str | None,
    start: Start | None,
    failed: bool,
    code: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Set the export EXPORT_ID, or all failed ones, going again."""
    if (export_id is None) != failed:
        raise click.UsageError("either EXPORT_ID or --failed")
    if (code is not None or dry_run) and not failed:
        raise click.UsageError("--error and --dry-run go with --failed")

    async def run() -> list[Status]:
        async with open_queue() as queue:
            if export_id is not None:
                return [await queue.retry(export_id, start)]
            return await _retry_failed(queue, start, code, dry_run=dry_run)

    again = asyncio.run(run())
    if as_json:
        documents = [status.model_dump(mode="json") for status in again]
        click.echo(dumps(documents if failed else documents[0]))
        return
    for status in again:
        click.echo(clean(f"{'would retry' if dry_run else 'retrying'} {status.export_id} ({status.kind})"))
    if not again:
        click.echo("no such failed export")


async def _retry_failed(queue: ExportQueue, start: Start | None, code: str | None, *, dry_run: bool) -> list[Status]:
    wanted = [status async for status in failed_exports(queue, code)]
    if dry_run:
        return wanted
    again: list[Status] = []
    for status in wanted:
        try:
            again.append(await queue.retry(status.export_id, start))
        except ExportWorkerError as error:
            # Somebody else was quicker, or its retention has just passed: the others go on.
            click.echo(clean(f"{status.export_id}: {error}"), err=True)
    return again


@click.command()
@click.argument("export_id", type=TEXT)
@as_json
@click.pass_obj
def explain(open_queue: OpenQueue, *, export_id: str, as_json: bool) -> None:
    """Say in a sentence why the export EXPORT_ID waits, and until when."""

    async def run() -> str:
        async with open_queue() as queue:
            return await queue.explain(export_id)

    sentence = asyncio.run(run())
    document = dumps({"export_id": export_id, "explanation": sentence})
    click.echo(document if as_json else clean(sentence))

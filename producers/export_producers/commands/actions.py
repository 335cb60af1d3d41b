"""The commands cancel, retry and explain."""

import asyncio
import sys

import click

from export_producers.client import ExportQueue
from export_producers.commands.exports import OpenQueue, failed_exports
from export_producers.records import Start
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Phase, Status
from export_worker.errors import ExportWorkerError


@click.pass_obj
def cancel(open_queue: OpenQueue, *, export_id: str, as_json: bool) -> None:
    """See `declarations.cancel`."""

    async def run() -> Phase:
        async with open_queue() as queue:
            return await queue.cancel(export_id)

    phase = asyncio.run(run())
    if as_json:
        click.echo(dumps({"export_id": export_id, "phase": phase, "cancelling": not phase.terminal}))
    else:
        click.echo(
            f"export {export_id} has already ended: {phase}" if phase.terminal else f"cancelling export {export_id}"
        )
    if phase.terminal and phase is not Phase.CANCELLED:
        sys.exit(1)


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
    """See `declarations.retry`."""
    if (export_id is None) != failed:
        raise click.UsageError("pass either EXPORT_ID or --failed")
    if (code is not None or dry_run) and not failed:
        raise click.UsageError("--error and --dry-run require --failed")

    async def run() -> list[Status]:
        async with open_queue() as queue:
            if export_id is not None:
                return [await queue.retry(export_id, start)]
            return await _retry_failed(queue, start, code, dry_run=dry_run)

    restarted = asyncio.run(run())
    if as_json:
        documents = [status.model_dump(mode="json") for status in restarted]
        click.echo(dumps(documents if failed else documents[0]))
        return
    for status in restarted:
        click.echo(clean(f"{'would retry' if dry_run else 'retrying'} {status.export_id} ({status.kind})"))
    if not restarted:
        click.echo("no failed export matches")


async def _retry_failed(queue: ExportQueue, start: Start | None, code: str | None, *, dry_run: bool) -> list[Status]:
    matching = [status async for status in failed_exports(queue, code)]
    if dry_run:
        return matching
    restarted: list[Status] = []
    for status in matching:
        try:
            restarted.append(await queue.retry(status.export_id, start))
        except ExportWorkerError as error:
            # Another caller has already restarted it, or its retention has ended. The other exports are still retried.
            click.echo(clean(f"{status.export_id}: {error}"), err=True)
    return restarted


@click.pass_obj
def explain(open_queue: OpenQueue, *, export_id: str, as_json: bool) -> None:
    """See `declarations.explain`."""

    async def run() -> str:
        async with open_queue() as queue:
            return await queue.explain(export_id)

    explanation = asyncio.run(run())
    document = dumps({"export_id": export_id, "explanation": explanation})
    click.echo(document if as_json else clean(explanation))

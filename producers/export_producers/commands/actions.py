"""The commands cancel, retry and explain."""

import sys
from datetime import datetime

import click

from export_producers.bulk.orders import BulkOrder
from export_producers.choices import Language
from export_producers.commands import interrupts, rendering
from export_producers.commands.bulk_retry import retry_failed
from export_producers.commands.opening import OpenQueue
from export_producers.filters import ExportFilter
from export_producers.reasons import Explanation
from export_producers.records import Start
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Phase, Status

CONDITIONS = {
    "--error": "error",
    "--connection": "connection",
    "--kind": "kind",
    "--since": "since",
    "--until": "until",
    "--requested-by": "requested_by",
    "--search": "search",
}
"""The options that select exports, and the fields of `ExportFilter`."""


@click.pass_obj
def cancel(open_queue: OpenQueue, *, export_id: str, as_json: bool) -> None:
    """See `declarations.cancel`."""

    async def run() -> Phase:
        async with open_queue() as queue:
            return await queue.cancel(export_id)

    phase = interrupts.run(run())
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
    connection: str | None,
    kind: str | None,
    since: datetime | None,
    until: datetime | None,
    requested_by: str | None,
    search: str | None,
    limit: int | None,
    per_second: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """See `declarations.retry`."""
    if (export_id is None) != failed:
        raise click.UsageError("pass either EXPORT_ID or --failed")
    where = ExportFilter(
        phase=Phase.FAILED,
        connection=connection,
        kind=kind,
        requested_by=requested_by,
        error=code,
        since=since,
        until=until,
        search=search,
    )
    if failed:
        # Who names a code has fixed its cause, so none of these exports is left out.
        order = BulkOrder(action="retry", where=where, start=start, hopeless=code is not None, per_second=per_second)
        retry_failed(open_queue, order, limit, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    given = {option: getattr(where, name) for option, name in CONDITIONS.items()}
    given |= {"--limit": limit, "--per-second": per_second, "--dry-run": dry_run or None}
    if of_many := [option for option, value in given.items() if value is not None]:
        raise click.UsageError(f"{', '.join(of_many)}: only with --failed")
    _retry_one(open_queue, str(export_id), start, as_json=as_json)


def _retry_one(open_queue: OpenQueue, export_id: str, start: Start | None, *, as_json: bool) -> None:
    async def run() -> Status:
        async with open_queue() as queue:
            return await queue.retry(export_id, start)

    restarted = interrupts.run(run())
    text = f"retrying {restarted.export_id} ({restarted.kind})"
    click.echo(rendering.document(restarted) if as_json else clean(text))


@click.pass_obj
def explain(open_queue: OpenQueue, *, export_id: str, language: Language, as_json: bool) -> None:
    """See `declarations.explain`."""

    async def run() -> Explanation:
        async with open_queue() as queue:
            return await queue.explanation(export_id)

    explanation = interrupts.run(run())
    text = explanation.text(language)
    if as_json:
        # Scripts of earlier versions read the text in this field.
        click.echo(dumps({"explanation": text} | explanation.document(language).model_dump(mode="json")))
    else:
        click.echo(clean(text))

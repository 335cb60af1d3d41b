"""`export-worker enqueue --dry-run`: checks a request, and enqueues nothing."""

import click

from export_producers.choices import LIST_MAX, Language
from export_producers.client import ExportQueue
from export_producers.commands import interrupts, rendering
from export_producers.commands.opening import check_connections
from export_producers.commands.options import PREVIEW
from export_producers.languages.messages import translated
from export_worker.contract.dry_run import DryRun, Preview, PreviewCall
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean
from export_worker.contract.request import ExportRequest

_NONE_AMONG_THE_NEWEST = (
    f"equal export: none among the {LIST_MAX:,} newest open exports of each phase; older ones were not compared"
)


def print_dry_run(opened: ExportQueue, request: ExportRequest, *, language: Language, as_json: bool) -> None:
    """Prints what would happen to a request."""
    preview: PreviewCall = click.get_current_context().meta[PREVIEW]

    async def run() -> DryRun:
        async with opened as queue:
            await check_connections(queue, request)
            # Checked before the platform is called, and again with what the platform has.
            await queue.dry_run(request)
            return await queue.dry_run(request, await preview(request))

    result = interrupts.run(run())
    if as_json:
        click.echo(rendering.document(result))
        return
    for line in dry_run_lines(result):
        click.echo(clean(translated(language, line)))


def dry_run_lines(result: DryRun) -> list[str]:
    """Returns what would happen to a request, in words."""
    lines = [f"valid: {result.kind} on {result.connection}", *_platform_lines(result.platform, result.connection)]
    if result.existing is not None:
        existing = result.existing
        lines.append(f"idempotency key: export {existing.export_id} has it and is {existing.phase}; it is returned")
    lines += [
        f"equal export: {equal.export_id} is {equal.phase}, accepted at {isoformat(equal.created_at)}"
        for equal in result.equal
    ] or ["equal export: none is open" if result.compared_all else _NONE_AMONG_THE_NEWEST]
    return [*lines, "nothing was enqueued"]


def _platform_lines(preview: Preview | None, connection: str) -> list[str]:
    if preview is None:
        reason = f"connection {connection} or the extra [worker] is missing here, or its driver has no such call"
        return [f"platform: not asked ({reason})"]
    name = "" if preview.name is None else f" {preview.name}"
    found = {True: f"found{name}", False: "not found in the catalog; the platform may refuse the export"}
    lines = [f"platform: {found[preview.found]}"] if preview.found is not None else []
    lines += [f"{field}: {value}" for field, value in preview.ids.items()]
    users = "the platform states no number" if preview.users is None else f"{preview.users:,}"
    return [*lines, f"users: {users}"]

"""The commands list and failures, and how commands select exports."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import click

from export_producers.choices import LIST_MAX, OPEN, Language, State
from export_producers.client import ExportQueue
from export_producers.commands import interrupts, rendering
from export_producers.commands.opening import OpenQueue
from export_producers.filters import ExportFilter
from export_producers.languages import text
from export_producers.languages.messages import translated
from export_producers.reads.failures import read_failures
from export_producers.reads.failures_document import Failures
from export_producers.reasons import fix
from export_producers.records import Page
from export_worker.contract.kind_names import kind_names
from export_worker.contract.model import isoformat
from export_worker.contract.names import unknown_name
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Phase, Status
from export_worker.errors import ErrorCode, FieldProblem, InvalidRequestError

FAILURES_SINCE = timedelta(hours=24)
"""The failures that are grouped unless `--since` is set."""


@click.pass_obj
def list_(
    open_queue: OpenQueue,
    *,
    phase: str | None,
    state: State | None,
    code: str | None,
    connection: str | None,
    kind: str | None,
    since: datetime | None,
    until: datetime | None,
    requested_by: str | None,
    search: str | None,
    limit: int,
    language: Language,
    as_json: bool,
) -> None:
    """See `declarations.list_`."""
    if code is not None and phase not in {None, Phase.FAILED}:
        raise click.UsageError(f"--error selects failed exports, but --phase is {phase}; leave out --phase")
    where = ExportFilter(
        phase=Phase(phase) if phase and phase != OPEN else None,
        is_open=phase == OPEN,
        state=state,
        connection=connection,
        kind=kind,
        requested_by=requested_by,
        error=code,
        since=since,
        until=until,
        search=search,
    )

    async def run() -> tuple[list[Status], Page]:
        async with open_queue() as queue:
            await check_names(queue, where)
            found = [status async for status in matching(queue, where, limit)]
            return found, await queue.page(limit=1, where=where)

    found, page = interrupts.run(run())
    total = page.total if len(found) == limit and not as_json else None
    if as_json:
        click.echo(dumps([item.model_dump(mode="json") for item in found]))
    elif found:
        rendering.console().print(rendering.table(found, language))
        if total is not None and total > limit:
            click.echo(translated(language, f"the newest {limit} of {total} exports; --limit shows more"), err=True)
    else:
        click.echo(clean(translated(language, f"no exports{described(where)}")))
    if page.archive is not None:
        older = f"exports that ended before {isoformat(page.archive.before)} are in the archive {page.archive.uri}"
        click.echo(clean(translated(language, older)), err=True)


@click.pass_obj
def failures(
    open_queue: OpenQueue,
    *,
    code: str | None,
    connection: str | None,
    kind: str | None,
    since: datetime | None,
    language: Language,
    as_json: bool,
) -> None:
    """See `declarations.failures`."""
    since = since or datetime.now(UTC) - FAILURES_SINCE
    where = ExportFilter(connection=connection, kind=kind, error=code, since=since)

    async def run() -> Failures:
        async with open_queue() as queue:
            await check_names(queue, where)
            return await read_failures(queue, where)

    found = interrupts.run(run())
    if as_json:
        click.echo(rendering.document(found))
        return
    for line in failure_lines(found, language):
        click.echo(clean(line))
    if not found.groups:
        click.echo(clean(translated(language, f"no failed exports{described(where)}")))


def failure_lines(found: Failures, language: Language = "en") -> Iterator[str]:
    """Yields the lines about the causes of failures: three for each, the last one with what to do."""
    for group in found.groups:
        step = {"step": translated(language, group.step)} if group.step else {}
        names = {"code": group.code, "connection": group.connection, "kind": group.kind}
        key = "cause.line_of_step" if step else "cause.line"
        yield text(language, key, count=f"{group.count:>7}", **names, **step)
        hopeless = {"hopeless": group.hopeless} if group.hopeless else {}
        key = "cause.detail_hopeless" if hopeless else "cause.detail"
        example = {"last_at": isoformat(group.last_at), "example": group.export_ids[0]}
        yield "        " + text(language, key, message=translated(language, group.message), **example, **hopeless)
        yield "        " + fix(group.code, language)
    if found.groups_left_out:
        yield text(language, "cause.left_out", count=found.groups_left_out)
    if found.searched_until is not None:
        counts = {"count": sum(group.count for group in found.groups), "until": isoformat(found.searched_until)}
        if found.total is None:
            yield text(language, "cause.searched", **counts)
        else:
            yield text(language, "cause.searched_of", total=found.total, **counts)


async def matching(queue: ExportQueue, where: ExportFilter, limit: int | None = None) -> AsyncIterator[Status]:
    """Yields the exports that match, newest first, with a call to Redis for each page.

    Args:
        limit: Maximum number of exports; None for all.
    """
    left, cursor = limit, None
    while left is None or left > 0:
        page = await queue.page(limit=LIST_MAX if left is None else min(left, LIST_MAX), cursor=cursor, where=where)
        for status in page.statuses:
            yield status
        if left is not None:
            left -= len(page.statuses)
        cursor = page.cursor
        if cursor is None:
            return


async def check_names(queue: ExportQueue, where: ExportFilter) -> None:
    """Checks the names in a filter. A misspelt name would match nothing.

    Stored exports can have names that are not configured here, of an earlier configuration or of another package.

    Raises:
        InvalidRequestError: A name is not known here, and no stored export has it.
    """
    problems = []
    if where.error is not None and where.error not in {*ErrorCode, *await queue.values_in_use("error")}:
        problems.append(FieldProblem("--error", unknown_name("error code", where.error, ErrorCode)))
    if where.kind is not None and where.kind not in {*kind_names(), *await queue.values_in_use("kind")}:
        problems.append(FieldProblem("--kind", unknown_name("kind", where.kind, kind_names())))
    if where.connection is not None:
        known = {*await queue.known_connections(), *await queue.values_in_use("connection")}
        # Without any connection and export, the name may be right.
        if known and where.connection not in known:
            problems.append(FieldProblem("--connection", unknown_name("connection", where.connection, known)))
    if where.requested_by is not None:
        requesters = await queue.values_in_use("requested_by")
        if requesters and where.requested_by not in requesters:
            problems.append(FieldProblem("--requested-by", unknown_name("requester", where.requested_by, requesters)))
    if problems:
        raise InvalidRequestError(problems)


def described(where: ExportFilter) -> str:
    """Returns the conditions of a filter as text that follows "exports"."""
    conditions = (
        ("in phase", OPEN if where.is_open else where.phase),
        ("in state", where.state),
        ("with error", where.error),
        ("of connection", where.connection),
        ("of kind", where.kind),
        ("requested by", where.requested_by),
        ("accepted since", where.since and isoformat(where.since)),
        ("accepted before", where.until and isoformat(where.until)),
        ("with the id, key or metadata", where.search),
    )
    return "".join(f" {text} {value}" for text, value in conditions if value)

"""The command activity."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import click

from export_producers.activity import CONDITIONS, ActivityEntry, ActivityRange
from export_producers.client import ExportQueue
from export_producers.commands import interrupts
from export_producers.commands.opening import OpenQueue
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean, dumps


@click.pass_obj
def activity(
    open_queue: OpenQueue,
    *,
    who: str | None,
    action: str | None,
    export_id: str | None,
    connection: str | None,
    outcome: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """See `declarations.activity`."""
    stated = zip(CONDITIONS, (who, action, export_id, connection, outcome), strict=True)
    wanted = {name: value for name, value in stated if value is not None}

    async def run() -> list[ActivityEntry]:
        async with open_queue() as queue:
            return await acts(queue, wanted, ActivityRange(None, since, until), limit)

    found = interrupts.run(run())
    if as_json:
        click.echo(dumps([entry.model_dump(mode="json") for entry in found]))
        return
    for entry in found:
        click.echo(clean(line(entry)))
    if not found:
        click.echo("no acts" + (" match" if wanted or since or until else ""))


async def acts(
    queue: ExportQueue, conditions: Mapping[str, str], part: ActivityRange, limit: int
) -> list[ActivityEntry]:
    """Returns the newest acts that meet the conditions, with a call to Redis for each 1,000 acts that it reads."""
    found: list[ActivityEntry] = []
    before = part.before
    while len(found) < limit:
        rest = ActivityRange(before, part.since, part.until)
        page = await queue.activity.page(lambda act: act.meets(conditions), rest, limit - len(found))
        found += page.entries
        before = page.cursor
        if before is None:
            break
    return found


def line(entry: ActivityEntry) -> str:
    """Returns one act as a line."""
    return "".join(_parts(entry))


def _parts(entry: ActivityEntry) -> Iterator[str]:
    yield f"{isoformat(entry.at)} {entry.who} ({entry.role}"
    yield f", {entry.address})" if entry.address else ")"
    yield f" {entry.action}"
    yield f" {entry.export_id}" if entry.export_id else ""
    yield f" on {entry.connection}" if entry.connection else ""
    yield f": {entry.outcome}"
    yield "".join(f", {name}: {value}" for name, value in entry.detail.items())

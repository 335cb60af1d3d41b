"""`export-worker events`: delivers completion events again, and lists the events that workers have given up."""

from datetime import UTC, datetime
from typing import Any

import click

from export_producers.commands import interrupts
from export_worker.config import Config, load_config
from export_worker.contract.model import isoformat
from export_worker.contract.names import unknown_name
from export_worker.contract.printable import clean, dumps
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.redis.replay import Replayed
from export_worker.wiring.events import open_outbox, open_replay


def replay(*, moment: datetime, sink: str | None, dry_run: bool, as_json: bool) -> None:
    """See `declarations.replay`."""
    config = load_config()
    sinks = _chosen_sinks(config, sink)

    async def run() -> list[Replayed]:
        async with open_replay(config, sinks) as opened:
            return await opened.since(moment, datetime.now(UTC), dry_run=dry_run)

    found = interrupts.run(run())
    if as_json:
        click.echo(dumps([_document(item) for item in found]))
        return
    for item in found:
        action = "would deliver" if dry_run else "delivering"
        click.echo(clean(f"{action} {item.event_id} ({item.type}) to {', '.join(item.sinks)}"))
    if not found:
        click.echo("no such event is stored")


def undelivered(*, sink: str | None, as_json: bool) -> None:
    """See `declarations.undelivered`."""
    config = load_config()
    sinks = _chosen_sinks(config, sink)
    found = interrupts.run(_undelivered(config, sinks))
    if as_json:
        click.echo(dumps(found))
        return
    for item in found:
        line = f"{item['at']}  {item['sink']}  {item['event_id']}  after {item['failures']} attempts: {item['reason']}"
        click.echo(clean(line))
    if not found:
        click.echo("no event was given up")


async def _undelivered(config: Config, sinks: list[str]) -> list[dict[str, Any]]:
    async with open_outbox(config) as outbox:
        return [
            {
                "sink": name,
                "event_id": item.event_id,
                "at": item.at,
                "failures": item.failures,
                "reason": item.reason,
            }
            for name in sinks
            for item in await outbox.undelivered(name)
        ]


def _document(item: Replayed) -> dict[str, Any]:
    return {
        "event_id": item.event_id,
        "type": item.type,
        "export_id": item.subject,
        "time": isoformat(item.time),
        "sinks": list(item.sinks),
    }


def _chosen_sinks(config: Config, sink: str | None) -> list[str]:
    if sink is None:
        return list(config.sinks)
    if sink not in config.sinks:
        raise InvalidRequestError([FieldProblem("--sink", unknown_name("sink", sink, config.sinks))])
    return [sink]

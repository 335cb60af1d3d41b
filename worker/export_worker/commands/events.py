"""`export-worker events`: delivers completion events again, and lists the events that workers have given up."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from export_producers.commands.options import TEXT
from export_worker.commands import options
from export_worker.config import Config, load_config
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean, dumps
from export_worker.contract.wording import unknown_name
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.redis.replay import Replayed
from export_worker.wiring.events import open_outbox, open_replay

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

only_sink = click.option("--sink", type=TEXT, metavar="NAME", help="Only this sink.")


def _moment(_: click.Context, option: click.Parameter, value: str) -> datetime:
    try:
        return since(value, datetime.now(UTC))
    except (ValueError, OverflowError):
        message = f"{value} is neither a date and time (2026-11-22T03:00:00Z) nor a time ago (30m, 6h, 2d)"
        raise click.BadParameter(message, param=option) from None


def since(text: str, now: datetime) -> datetime:
    """Returns the date and time that a text states.

    Args:
        text: An RFC 3339 date and time, in UTC unless it has a time zone, or a time ago such as `30m`.
        now: The current time, with its time zone.

    Raises:
        ValueError: The text has neither form.
    """
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@click.group()
def events() -> None:
    """Deliver events again, or list the events that workers have given up."""


@events.command()
@click.option(
    "--since",
    "moment",
    type=TEXT,
    callback=_moment,
    required=True,
    metavar="WHEN",
    help="A time ago such as 6h, or a date and time.",
)
@only_sink
@click.option("--dry-run", is_flag=True, help="Only list the events.")
@options.as_json
def replay(*, moment: datetime, sink: str | None, dry_run: bool, as_json: bool) -> None:
    """Deliver every event since WHEN again, with the same id. Running workers deliver them."""
    config = load_config()
    sinks = _chosen_sinks(config, sink)

    async def run() -> list[Replayed]:
        async with open_replay(config, sinks) as opened:
            return await opened.since(moment, datetime.now(UTC), dry_run=dry_run)

    found = asyncio.run(run())
    if as_json:
        click.echo(dumps([_document(item) for item in found]))
        return
    for item in found:
        action = "would deliver" if dry_run else "delivering"
        click.echo(clean(f"{action} {item.event_id} ({item.type}) to {', '.join(item.sinks)}"))
    if not found:
        click.echo("no such event is stored")


@events.command()
@only_sink
@options.as_json
def undelivered(*, sink: str | None, as_json: bool) -> None:
    """List the events that workers have given up, with the reason. `events replay` delivers such events again."""
    config = load_config()
    sinks = _chosen_sinks(config, sink)
    found = asyncio.run(_undelivered(config, sinks))
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

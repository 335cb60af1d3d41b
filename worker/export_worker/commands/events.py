"""`export-worker events`: deliver completion events again, and see which were given up."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_producers.commands.options import TEXT
from export_worker.config import Config, load_config
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean, dumps
from export_worker.contract.redis_keys import Keys
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.redis.client import close_redis, open_redis, redis_unreachable, translate_redis_errors
from export_worker.redis.outbox import Outbox
from export_worker.redis.replay import Replay, Replayed

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
only_sink = click.option("--sink", type=TEXT, metavar="NAME", help="This sink alone.")


def _moment(_: click.Context, option: click.Parameter, value: str) -> datetime:
    try:
        return since(value, datetime.now(UTC))
    except (ValueError, OverflowError):
        words = f"{value} is neither a date and time (2026-11-22T03:00:00Z) nor a time ago (30m, 6h, 2d)"
        raise click.BadParameter(words, param=option) from None


def since(text: str, now: datetime) -> datetime:
    """The moment that a text means: RFC 3339, in UTC unless it says a zone, or a time ago such as `30m`.

    Raises:
        ValueError: It means none.
    """
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@click.group()
def events() -> None:
    """Completion events: deliver them again, or see which were given up."""


@events.command()
@click.option("--since", "moment", type=TEXT, callback=_moment, required=True, metavar="WHEN", help="As 6h, or a date.")
@only_sink
@click.option("--dry-run", is_flag=True, help="Only list them.")
@as_json
def replay(*, moment: datetime, sink: str | None, dry_run: bool, as_json: bool) -> None:
    """Deliver every event since WHEN again, under the same id; running workers do it."""
    config = load_config()
    sinks = _chosen_sinks(config, sink)

    async def run() -> list[Replayed]:
        async with _redis(config) as redis:
            again = Replay(redis, Keys(config.namespace), sinks)
            return await again.since(moment, datetime.now(UTC), dry_run=dry_run)

    found = asyncio.run(run())
    if as_json:
        click.echo(dumps([_document(item) for item in found]))
        return
    for item in found:
        words = "would deliver" if dry_run else "delivering"
        click.echo(clean(f"{words} {item.event_id} ({item.type}) to {', '.join(item.sinks)}"))
    if not found:
        click.echo("no such event is kept")


@events.command()
@only_sink
@as_json
def undelivered(*, sink: str | None, as_json: bool) -> None:
    """List the events that were given up, with the reason; `replay` delivers them again."""
    config = load_config()
    sinks = _chosen_sinks(config, sink)

    async def run() -> list[dict[str, Any]]:
        async with _redis(config) as redis:
            outbox = Outbox(redis, Keys(config.namespace))
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

    found = asyncio.run(run())
    if as_json:
        click.echo(dumps(found))
        return
    for item in found:
        words = f"{item['at']}  {item['sink']}  {item['event_id']}  after {item['failures']} tries: {item['reason']}"
        click.echo(clean(words))
    if not found:
        click.echo("none was given up")


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
        known = ", ".join(sorted(config.sinks)) or "none is configured"
        raise InvalidRequestError([FieldProblem("--sink", f"unknown sink {sink!r}; known: {known}")])
    return [sink]


@asynccontextmanager
async def _redis(config: Config) -> AsyncIterator[ArqRedis]:
    redis = open_redis(config.redis_url)
    try:
        async with translate_redis_errors(config.redis_url):
            await redis.ping()
        yield redis
    except (RedisError, OSError) as error:
        raise redis_unreachable(config.redis_url, error) from None
    finally:
        await close_redis(redis)

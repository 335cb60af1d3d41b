"""The command overview."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from export_producers.choices import Language
from export_producers.commands import interrupts, rendering
from export_producers.commands.opening import OpenQueue
from export_producers.console.pages.overview_views import sentences
from export_producers.console.views import say
from export_producers.languages import duration, short, text
from export_producers.languages.messages import translated
from export_producers.reads.overview_document import ConnectionOverview, Overview, RedisOverview
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean

COLUMNS = ("connection", "platform", "open", "slots", "waiting", "last_hour", "median", "oldest", "state")


@click.pass_obj
def overview(open_queue: OpenQueue, *, language: Language, as_json: bool) -> None:
    """See `declarations.overview`."""

    async def run() -> Overview:
        async with open_queue() as queue:
            return await queue.reads.overview()

    found = interrupts.run(run())
    if as_json:
        click.echo(rendering.document(found))
        return
    console = rendering.console()
    for line in head(found, language):
        console.print(Text(clean(line)))
    if found.connections:
        console.print(_table(found, language))
    for line in parts(found, language):
        console.print(Text(clean(line)))


def head(found: Overview, language: Language = "en") -> Iterator[str]:
    """Yields what an operator must know, as the page does, and the lines about all exports and the queue."""
    yield from (say(language, each) for each in sentences(found))
    counts = [f"{count} {rendering.phase_name(phase, language)}" for phase, count in found.phases.items() if count]
    yield text(language, "summary.exports", counts=", ".join(counts) or text(language, "summary.none"))
    for role, queue in found.queue.items():
        facts: dict[str, Any] = {"role": _role(role, language), "due": queue.due}
        if queue.due:
            span = duration(language, queue.oldest_due_age_s)
            yield text(language, "summary.steps_since", span=span, **facts)
        else:
            yield text(language, "summary.steps", **facts)
    if not found.complete:
        yield text(language, "summary.incomplete")


def _role(role: str, language: Language) -> str:
    return text(language, f"role.{role}").lower() if role in {"control", "transfer"} else role


def _table(found: Overview, language: Language) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        grid.add_column(text(language, f"column.{column}"), overflow="fold")
    for name, connection in found.connections.items():
        grid.add_row(*map(Text, map(clean, row(name, connection, found.now, language))))
    return grid


def row(name: str, connection: ConnectionOverview, now: datetime, language: Language = "en") -> list[str]:
    """Returns the cells of one connection."""
    slots, hour, oldest = connection.slots, connection.last_hour, connection.oldest_open_at
    medians = (f"{kind.rpartition('.')[2]} {short(language, each.p50)}" for kind, each in connection.durations.items())
    ended = "summary.ended_failed" if hour.failed else "summary.ended"
    return [
        name,
        connection.platform or text(language, "summary.not_configured"),
        str(connection.open),
        f"{slots.used}/{'?' if slots.limit is None else slots.limit}",
        str(connection.waiting + connection.transfers_waiting),
        text(language, ended, ended=hour.ended, failed=hour.failed),
        ", ".join(medians),
        "" if oldest is None else rendering.how_long_ago(oldest, now, language),
        "; ".join(_pauses(connection, now, language)) or text(language, "summary.ok"),
    ]


def _pauses(connection: ConnectionOverview, now: datetime, language: Language) -> Iterator[str]:
    if (pause := connection.pause) is not None:
        until = {} if pause.until is None else {"until": isoformat(pause.until)}
        held = text(language, "summary.held_until" if until else "summary.held", **until)
        yield held + (f" ({pause.reason})" if pause.reason else "")
    if connection.closed_until is not None:
        yield text(language, "summary.closed_until", until=isoformat(connection.closed_until))
    for kind, breaker in connection.breaker:
        if breaker is not None and breaker.until is not None and breaker.until > now:
            facts: dict[str, Any] = {"until": isoformat(breaker.until), "failures": breaker.failures}
            if kind == "platform":
                yield text(language, "summary.paused", **facts)
            else:
                yield text(language, "summary.failing", kind=text(language, f"word.{kind}"), **facts)


def parts(found: Overview, language: Language = "en") -> Iterator[str]:
    """Yields the lines about workers, sinks, triggers and Redis."""
    if not found.workers:
        yield text(language, "summary.no_worker")
    for worker in found.workers:
        steps = [
            text(language, "summary.worker_steps", count=count, role=_role(role, language))
            for role, count in sorted(worker.steps.items())
        ]
        problems = (
            text(language, "summary.store", name=name, why=translated(language, why))
            for name, why in worker.store_problems.items()
        )
        does = ", ".join(steps) or text(language, "summary.no_role")
        yield text(language, "summary.worker", id=worker.id, version=worker.version, steps=does) + "".join(problems)
    for name, sink in found.sinks.items():
        facts: dict[str, Any] = {
            "name": name,
            "type": sink.type,
            "pending": sink.pending,
            "given_up": sink.given_up,
        }
        if sink.refused_since is None:
            yield text(language, "summary.sink", **facts)
        else:
            yield text(language, "summary.sink_refused", since=isoformat(sink.refused_since), **facts)
    for name, trigger in found.triggers.items():
        dead = text(language, "summary.unknown_dead") if trigger.dead_letters is None else trigger.dead_letters
        about: dict[str, Any] = {"name": name, "type": trigger.type, "dead": dead}
        if trigger.lag_s is None:
            yield text(language, "summary.trigger", **about)
        else:
            yield text(language, "summary.trigger_lag", lag=duration(language, trigger.lag_s), **about)
    where = {"version": found.version, "namespace": found.namespace}
    yield text(language, "summary.redis", memory=_memory(found.redis, language), **where)


def _memory(redis: RedisOverview, language: Language) -> str:
    if redis.memory is None:
        return text(language, "summary.no_info")
    facts = {
        "used": rendering.human_bytes(redis.memory),
        "policy": redis.policy,
        "persistence": text(language, "summary.appends" if redis.aof else "summary.snapshots"),
    }
    if not redis.maxmemory:
        return text(language, "summary.memory", **facts)
    return text(language, "summary.memory_of", limit=rendering.human_bytes(redis.maxmemory), **facts)

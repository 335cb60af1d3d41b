"""The command overview."""

from collections.abc import Iterable, Iterator
from datetime import datetime

import click
from rich.table import Table
from rich.text import Text

from export_producers.commands import interrupts, rendering
from export_producers.commands.opening import OpenQueue
from export_producers.durations import age, duration, short
from export_producers.reads.overview_document import ConnectionOverview, Overview, RedisOverview
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean

COLUMNS = ("CONNECTION", "PLATFORM", "OPEN", "SLOTS", "WAITING", "LAST HOUR", "MEDIAN", "OLDEST", "STATE")


@click.pass_obj
def overview(open_queue: OpenQueue, *, as_json: bool) -> None:
    """See `declarations.overview`."""

    async def run() -> Overview:
        async with open_queue() as queue:
            return await queue.reads.overview()

    found = interrupts.run(run())
    if as_json:
        click.echo(rendering.document(found))
        return
    console = rendering.console()
    for line in head(found):
        console.print(Text(clean(line)))
    if found.connections:
        console.print(_table(found))
    for line in parts(found):
        console.print(Text(clean(line)))


def head(found: Overview) -> Iterator[str]:
    """Yields the lines about all exports and the queue."""
    counts = ", ".join(f"{count} {phase}" for phase, count in found.phases.items() if count)
    yield f"exports: {counts or 'none'}"
    for role, queue in found.queue.items():
        since = f", the first for {duration(queue.oldest_due_age_s)}" if queue.due else ""
        yield f"{role} steps: {queue.due} due{since}"
    if not found.complete:
        yield "The numbers of connections are incomplete: a worker is indexing the exports of an earlier version."


def _table(found: Overview) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        grid.add_column(column, overflow="fold")
    for name, connection in found.connections.items():
        grid.add_row(*map(Text, map(clean, row(name, connection, found.now))))
    return grid


def row(name: str, connection: ConnectionOverview, now: datetime) -> list[str]:
    """Returns the cells of one connection."""
    slots, hour = connection.slots, connection.last_hour
    medians = (f"{kind.rpartition('.')[2]} {short(each.p50)}" for kind, each in connection.durations.items())
    return [
        name,
        connection.platform or "not configured",
        str(connection.open),
        f"{slots.used}/{'?' if slots.limit is None else slots.limit}",
        str(connection.waiting + connection.transfers_waiting),
        f"{hour.ended} ended" + (f", {hour.failed} failed" if hour.failed else ""),
        ", ".join(medians),
        "" if connection.oldest_open_at is None else age(connection.oldest_open_at, now),
        "; ".join(_pauses(connection, now)) or "ok",
    ]


def _pauses(connection: ConnectionOverview, now: datetime) -> Iterator[str]:
    if (pause := connection.pause) is not None:
        until = "" if pause.until is None else f" until {isoformat(pause.until)}"
        yield f"paused by an operator{until}" + (f" ({pause.reason})" if pause.reason else "")
    for kind, breaker in connection.breaker:
        if breaker is not None and breaker.until is not None and breaker.until > now:
            calls = "paused" if kind == "platform" else f"failing {kind}s paused"
            yield f"{calls} until {isoformat(breaker.until)} after {breaker.failures} failures"


def parts(found: Overview) -> Iterator[str]:
    """Yields the lines about workers, sinks, triggers and Redis."""
    if not found.workers:
        yield "workers: none is running; start one with: export-worker run"
    for worker in found.workers:
        steps = ", ".join(f"{count} {role} steps" for role, count in sorted(worker.steps.items()))
        problems = _suffix(f"cannot use the store of {name}: {why}" for name, why in worker.store_problems.items())
        yield f"worker {worker.id} ({worker.version}): {steps or 'no role'}{problems}"
    for name, sink in found.sinks.items():
        refused = "" if sink.refused_since is None else f", refused since {isoformat(sink.refused_since)}"
        yield f"sink {name} ({sink.type}): {sink.pending} events pending{refused}, {sink.given_up} given up"
    for name, trigger in found.triggers.items():
        lag = "" if trigger.lag_s is None else f"{duration(trigger.lag_s)} behind, "
        dead = "unknown number of" if trigger.dead_letters is None else trigger.dead_letters
        yield f"trigger {name} ({trigger.type}): {lag}{dead} dead letters"
    yield f"Redis: {_memory(found.redis)}; export-worker {found.version}, namespace {found.namespace}"


def _suffix(texts: Iterable[str]) -> str:
    return "".join(f"; {text}" for text in texts)


def _memory(redis: RedisOverview) -> str:
    if redis.memory is None:
        return "the user may not run INFO"
    limit = f" of {rendering.human_bytes(redis.maxmemory)}" if redis.maxmemory else ""
    persistent = "appends every change to a file" if redis.aof else "keeps its data in memory only, or in snapshots"
    return f"{rendering.human_bytes(redis.memory)}{limit}, {redis.policy}, {persistent}"

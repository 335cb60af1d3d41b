"""`export-worker retry --failed`: retries many failed exports."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from export_producers.bulk.orders import BulkOrder, act, code_of, pieces
from export_producers.client import ExportQueue
from export_producers.commands import interrupts, rendering
from export_producers.commands.listing import check_names, described
from export_producers.commands.opening import OpenQueue
from export_producers.reasons import fix
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Status

LISTED_MAX = 20
"""In a terminal, more exports are shown as one bar instead of a line each."""


class Chosen(NamedTuple):
    """What the command remembers of an export that it retries: there may be a hundred thousand of them."""

    export_id: str
    connection: str
    code: str
    ended_at: datetime | None


def retry_failed(
    open_queue: OpenQueue, order: BulkOrder, limit: int | None, *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Retries the failed exports that match. In a terminal it asks first.

    Args:
        limit: How many exports to retry at most; None for all.
        dry_run: Only list the exports.
        yes: Do not ask.
    """
    left_out: Counter[str] = Counter()
    if dry_run:
        output = _Output("would retry", as_json=as_json)
        interrupts.run(_list(open_queue, order, limit, left_out, output))
        _report_left_out(left_out)
        output.end(order)
        return
    chosen = interrupts.run(_choose(open_queue, order, limit, left_out))
    _report_left_out(left_out)
    if chosen and not yes and sys.stdin is not None and sys.stdin.isatty():
        # Asked outside of the event loop, in which Ctrl-C would wait for the end of the line.
        for line in _summary(chosen, order):
            click.echo(clean(line), err=True)
        click.confirm(f"Retry {_count(len(chosen))}?", abort=True, err=True)
    messages = rendering.console(stderr=True)
    shows_bar = len(chosen) > LISTED_MAX and rendering.redraws(messages)
    lists = not (shows_bar and rendering.redraws(rendering.console()))
    run = _Run(order, _Output("retrying", as_json=as_json, lists=lists), len(chosen), lists=lists)
    try:
        with _bar(messages, len(chosen), shown=shows_bar) as run.advance:
            interrupts.run(run.restart(open_queue, chosen))
    finally:
        run.report_rest()
    run.report_sum(left_out)
    run.output.end(order)


async def _list(
    open_queue: OpenQueue, order: BulkOrder, limit: int | None, left_out: Counter[str], output: "_Output"
) -> None:
    async with open_queue() as queue:
        async for status in _selected(queue, order, limit, left_out):
            output.add(status)


async def _choose(open_queue: OpenQueue, order: BulkOrder, limit: int | None, left_out: Counter[str]) -> list[Chosen]:
    async with open_queue() as queue:
        return [
            Chosen(status.export_id, status.connection, code_of(status), status.finished_at)
            async for status in _selected(queue, order, limit, left_out)
        ]


async def _selected(
    queue: ExportQueue, order: BulkOrder, limit: int | None, left_out: Counter[str]
) -> AsyncIterator[Status]:
    """Yields the exports to retry, newest first.

    Args:
        left_out: Counts the others by error code.
    """
    await check_names(queue, order.where)
    known, selected = await queue.known_connections(), 0
    async for piece in pieces(queue, order):
        for status in piece.statuses:
            if obstacle := order.obstacle(status, known):
                left_out[obstacle] += 1
                continue
            selected += 1
            yield status
            if selected == limit:
                return


@contextmanager
def _bar(console: Console, total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Shows in the terminal how many exports are done. Yields a function that counts one more."""
    count = MofNCompleteColumn(separator=" of ")
    columns = (TextColumn("retrying"), BarColumn(), count, TextColumn("exports, time left:"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


class _Output:
    """Prints exports: each as a line at once, or all as JSON at the end.

    Args:
        lists: Whether to print lines.
    """

    def __init__(self, verb: str, *, as_json: bool, lists: bool = True) -> None:
        self._verb = verb
        self._lists = lists
        self._documents: list[Any] | None = [] if as_json else None
        self._count = 0

    def add(self, status: Status) -> None:
        """Prints one export, or keeps it for the JSON."""
        self._count += 1
        if self._documents is not None:
            self._documents.append(status.model_dump(mode="json"))
        elif self._lists:
            click.echo(clean(f"{self._verb} {status.export_id} ({status.kind})"))

    def end(self, order: BulkOrder) -> None:
        """Prints the JSON, or that no export matched."""
        if self._documents is not None:
            click.echo(dumps(self._documents))
        elif not self._count:
            click.echo(clean(f"no failed export matches{described(replace(order.where, phase=None))}"))


@dataclass(slots=True)
class _Run:
    """Restarts exports one by one, and counts them.

    Args:
        total: How many exports there are.
        lists: Whether to print a line for each export that is not retried.
        advance: Called after each export.
    """

    order: BulkOrder
    output: _Output
    total: int
    lists: bool
    done: int = 0
    restarted: int = 0
    advance: Callable[[], None] = lambda: None

    async def restart(self, open_queue: OpenQueue, chosen: Sequence[Chosen]) -> None:
        """Restarts the exports, and prints each."""
        async with open_queue() as queue:
            for export in chosen:
                if self.done and self.order.per_second is not None:
                    await asyncio.sleep(1 / self.order.per_second)
                await self._restart_one(queue, export)
                self.done += 1
                self.advance()

    async def _restart_one(self, queue: ExportQueue, export: Chosen) -> None:
        restarted = await act(queue, self.order, export.export_id, export.ended_at)
        if restarted is not None:
            self.restarted += 1
            self.output.add(restarted)
        elif self.lists:
            click.echo(
                clean(f"{export.export_id}: not retried; it has been restarted in the meantime, or has expired"),
                err=True,
            )

    def report_rest(self) -> None:
        """Reports how many exports are unchanged, if the run has stopped early."""
        if self.done < self.total:
            left = _count(self.total - self.done)
            click.echo(f"stopped after {self.done} of {self.total}; {left} not retried", err=True)

    def report_sum(self, left_out: Counter[str]) -> None:
        """Reports how many exports were retried, if there were several."""
        if self.total < 2:
            return
        parts = [f"retried {self.restarted} of {_count(self.total)}"]
        if self.restarted < self.total:
            parts.append(f"{self.total - self.restarted} restarted in the meantime, or expired")
        if left_out:
            parts.append(f"left out: {', '.join(f'{number} {code}' for code, number in left_out.most_common())}")
        click.echo(clean("; ".join(parts)), err=True)


def _summary(chosen: Sequence[Chosen], order: BulkOrder) -> list[str]:
    """Returns, in lines, which exports are about to be retried, by connection and error code, and how long it takes."""
    groups = Counter((export.connection, export.code) for export in chosen)
    lines = [f"{number:>7} {code} on {connection}" for (connection, code), number in groups.most_common()]
    if order.per_second is not None:
        lines.append(f"At {order.per_second:g} per second, this takes {len(chosen) / order.per_second:.0f} s.")
    return lines


def _report_left_out(left_out: Counter[str]) -> None:
    """Reports the exports that a retry cannot help, with what to do. To standard error, because stdout may be JSON."""
    if not left_out:
        return
    click.echo(f"left out {_count(left_out.total())}, because a retry alone cannot help:", err=True)
    for code, number in left_out.most_common():
        click.echo(clean(f"{number:>7} {code}: {fix(code)}"), err=True)
    click.echo(
        "To retry them after their cause is fixed, select them with --error CODE or --connection NAME.", err=True
    )


def _count(number: int) -> str:
    return f"{number} export" + ("" if number == 1 else "s")

"""The commands `enqueue --batch`, `batch list`, `batch status` and `batch cancel`."""

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import click

from export_producers.choices import Language
from export_producers.client import ExportQueue
from export_producers.commands import interrupts, rendering
from export_producers.commands.opening import OpenQueue, check_connections
from export_producers.languages.messages import translated
from export_worker.contract.batch import Batch
from export_worker.contract.printable import clean, dumps
from export_worker.contract.request import ExportRequest
from export_worker.contract.trace import TraceContext

NO_WAIT = 0.0
"""The timeout of a call that does not wait."""


@dataclass(frozen=True, slots=True)
class BatchCall:
    """A batch that a command enqueues.

    Args:
        timeout_s: How long to wait until it is completed; None for any time.
    """

    name: str
    requests: Sequence[ExportRequest]
    timeout_s: float | None


def enqueue_batch(opened: ExportQueue, call: BatchCall, *, language: Language, as_json: bool) -> None:
    """Enqueues a batch, and waits for its completion if the caller wants that."""

    def show(batch: Batch) -> None:
        click.echo(translated(language, line(batch)), err=as_json)

    async def run() -> Batch:
        async with opened as queue:
            carrier = {name: os.environ.get(name.upper()) for name in ("traceparent", "tracestate")}
            await check_connections(queue, call.requests[0])
            await queue.enqueue_many(call.requests, batch=call.name, trace=TraceContext.of(carrier))
            if call.timeout_s == NO_WAIT:
                return await queue.batches.status(call.name)
            try:
                return await queue.batches.wait(call.name, call.timeout_s, on_change=show)
            except TimeoutError:
                return await queue.batches.status(call.name)

    batch = interrupts.run(run(), lambda: "The batch continues. If it is not complete, enqueue it again.")
    if as_json:
        click.echo(rendering.document(batch))
    elif call.timeout_s == NO_WAIT:
        show(batch)
        click.echo(translated(language, f"follow it with: export-worker batch status {batch.batch}"))
    if call.timeout_s != NO_WAIT and (batch.state != "completed" or batch.succeeded < batch.accepted):
        sys.exit(1)


def line(batch: Batch) -> str:
    """Returns one line about a batch, in English."""
    accepted = f"batch {batch.batch} is {batch.state}: {batch.accepted} of {batch.total} accepted"
    ended = f"{batch.open} open, {batch.succeeded} succeeded, {batch.failed} failed, {batch.cancelled} cancelled"
    return f"{accepted}; {ended}"


@click.pass_obj
def list_(open_queue: OpenQueue, *, language: Language, as_json: bool) -> None:
    """See `declarations.list_batches`."""

    async def run() -> list[Batch]:
        async with open_queue() as queue:
            return await queue.batches.newest()

    found = interrupts.run(run())
    if as_json:
        click.echo(dumps([batch.model_dump(mode="json") for batch in found]))
        return
    for batch in found:
        click.echo(translated(language, line(batch)))
    if not found:
        click.echo(translated(language, "there is no batch"))


@click.pass_obj
def status(open_queue: OpenQueue, *, batch: str, language: Language, as_json: bool) -> None:
    """See `declarations.batch_status`."""
    _show(open_queue, lambda queue: queue.batches.status(batch), language=language, as_json=as_json)


@click.pass_obj
def cancel(open_queue: OpenQueue, *, batch: str, language: Language, as_json: bool) -> None:
    """See `declarations.cancel_batch`."""
    _show(open_queue, lambda queue: queue.batches.cancel(batch), language=language, as_json=as_json)


def _show(
    open_queue: OpenQueue,
    call: Callable[[ExportQueue], Coroutine[Any, Any, Batch]],
    *,
    language: Language,
    as_json: bool,
) -> None:
    async def run() -> Batch:
        async with open_queue() as queue:
            return await call(queue)

    batch = interrupts.run(run())
    if as_json:
        click.echo(rendering.document(batch))
        return
    click.echo(translated(language, line(batch)))
    if batch.manifest is not None:
        click.echo(clean(batch.manifest))

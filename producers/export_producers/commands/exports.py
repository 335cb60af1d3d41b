"""The commands enqueue, status, list and watch."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from rich.cells import set_cell_size

from export_producers.choices import Language
from export_producers.client import ExportQueue
from export_producers.commands import interrupts, rendering
from export_producers.commands.batches import NO_WAIT, BatchCall, enqueue_batch
from export_producers.commands.dry_run import print_dry_run
from export_producers.commands.following import following
from export_producers.commands.opening import OpenQueue, check_connections
from export_producers.events.deliveries import Delivery, read_deliveries
from export_producers.facts import with_eta
from export_producers.languages.messages import translated
from export_worker.contract.parsing import BATCH_MAX_BYTES, REQUEST_MAX_BYTES, parse_request, parse_requests
from export_worker.contract.printable import clean, dumps
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Phase, Status
from export_worker.contract.trace import TraceContext
from export_worker.errors import FieldProblem, InvalidRequestError


@click.pass_obj
def enqueue(
    open_queue: OpenQueue,
    *,
    file: str,
    idempotency_key: str | None,
    dry_run: bool,
    batch: str | None,
    wait: bool,
    timeout_s: float | None,
    language: Language,
    as_json: bool,
) -> None:
    """See `declarations.enqueue`."""
    _check_options(wait=wait, timeout=timeout_s is not None, dry_run=dry_run)
    if batch is not None and (dry_run or idempotency_key is not None):
        raise click.UsageError("--batch excludes --dry-run and --idempotency-key: the name is the key of the batch")
    opened = open_queue()  # loads the configuration, whose recipes have kinds that the request may name
    if batch is not None:
        order = BatchCall(batch, parse_requests(read_file(file, BATCH_MAX_BYTES)), timeout_s if wait else NO_WAIT)
        enqueue_batch(opened, order, language=language, as_json=as_json)
        return
    request = read_request(file, idempotency_key)
    if dry_run:
        print_dry_run(opened, request, language=language, as_json=as_json)
    else:
        _enqueue_one(opened, request, timeout_s if wait else NO_WAIT, language=language, as_json=as_json)


def _check_options(*, wait: bool, timeout: bool, dry_run: bool) -> None:
    if timeout and not wait:
        raise click.UsageError("--timeout requires --wait")
    if dry_run and wait:
        raise click.UsageError("--dry-run enqueues nothing that --wait can wait for")


def _enqueue_one(
    opened: ExportQueue, request: ExportRequest, timeout_s: float | None, *, language: Language, as_json: bool
) -> None:
    wait = timeout_s != NO_WAIT
    accepted: Accepted | None = None

    async def run() -> Status | None:
        nonlocal accepted
        async with opened as queue:
            await check_connections(queue, request)
            # The names are those of OpenTelemetry ("Environment Variables as Context Propagation Carriers").
            carrier = {name: os.environ.get(name.upper()) for name in ("traceparent", "tracestate")}
            accepted = await queue.enqueue(request, trace=TraceContext.of(carrier))
            _print_accepted(accepted, language, wait=wait, as_json=as_json)
            if not wait:
                return None
            async with aclosing(queue.watch(accepted.export_id)) as statuses:
                return await follow(statuses, timeout_s=timeout_s, language=None if as_json else language)

    status = interrupts.run(
        run(), lambda: interrupts.continues(accepted.export_id) if accepted else interrupts.MAY_BE_ACCEPTED
    )
    if status is None:
        return
    if as_json:
        click.echo(rendering.document(status))
    if not status.phase.terminal:
        still = f"still {status.phase} after {timeout_s:g} s; the export continues"
        click.echo(translated(language, still), err=True)
    if status.phase is not Phase.SUCCEEDED:
        sys.exit(1)


def _print_accepted(accepted: Accepted, language: Language, *, wait: bool, as_json: bool) -> None:
    """Prints the export's id at once, so that it is known if a later call fails.

    With `--json --wait`, stdout has only the last status, so the id is printed on stderr.
    """
    if as_json and not wait:
        click.echo(rendering.document(accepted))
        return
    accepted_text = "accepted before with this idempotency key" if accepted.deduplicated else "accepted"
    first = f"{accepted_text}: export {accepted.export_id} is {accepted.phase}"
    click.echo(translated(language, first), err=as_json)
    if not wait:
        click.echo(translated(language, f"follow it with: export-worker watch {accepted.export_id}"))


def read_request(file: str, idempotency_key: str | None = None) -> ExportRequest:
    """Reads and validates a request.

    Args:
        file: A path, or - for standard input.
        idempotency_key: The key of the command-line option. A different key in the request is an error.

    Raises:
        InvalidRequestError: The file cannot be read, or a field is invalid.
    """
    request = parse_request(read_file(file, REQUEST_MAX_BYTES))
    if idempotency_key is None:
        return request
    if request.idempotency_key not in {None, idempotency_key}:
        problem = FieldProblem("idempotency_key", "differs between the request and --idempotency-key")
        raise InvalidRequestError([problem])
    return parse_request(
        request.model_copy(update={"idempotency_key": idempotency_key}).model_dump_json(exclude_none=True)
    )


def read_file(file: str, most: int) -> bytes:
    """Returns the content of a file, or of standard input if it is -. Of a larger one, one byte more than `most`.

    Raises:
        InvalidRequestError: The file cannot be read.
    """
    try:
        return _read_stdin(most + 1) if file == "-" else _read(Path(file), most + 1)
    except OSError as error:
        raise InvalidRequestError([FieldProblem("FILE", f"cannot read {file} ({error.strerror})")]) from None


def _read_stdin(most: int) -> bytes:
    if sys.stdin is None:
        raise InvalidRequestError([FieldProblem("FILE", "standard input is closed")])
    return sys.stdin.buffer.read(most)


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most)


async def follow(statuses: AsyncIterator[Status], *, timeout_s: float | None, language: Language | None) -> Status:
    """Shows each status until the last one, or until the timeout.

    Args:
        language: That of the statuses; None to print nothing.

    Returns:
        The last status.
    """
    with _display(language) as display:
        # The timeout starts after the first status. So even the shortest timeout returns a status.
        last = await anext(statuses)
        display(last)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async for last in statuses:
                    display(last)
    return last


@contextmanager
def _display(language: Language | None) -> Iterator[Callable[[Status], None]]:
    """Yields a function that shows a status: in a terminal in place of the one before, else in a new line each time."""
    console = rendering.console()
    if language is None:
        yield lambda _: None
    elif not rendering.redraws(console):
        yield lambda status: click.echo(rendering.line(status, language))
    else:
        with following(console, language) as show_in_place:
            yield show_in_place


@click.pass_obj
def status(
    open_queue: OpenQueue, *, export_id: str, timeline: bool, deliveries: bool, language: Language, as_json: bool
) -> None:
    """See `declarations.status`."""

    async def run() -> tuple[Status, list[dict[str, Any]], list[Delivery]]:
        async with open_queue() as queue:
            found = await with_eta(queue.storage, await queue.status(export_id))
            entries = await queue.timeline(export_id) if timeline else []
            return found, entries, await read_deliveries(queue.storage, export_id) if deliveries else []

    found, entries, sent = interrupts.run(run())
    if as_json:
        document = found.model_dump(mode="json")
        document |= {"timeline": entries} if timeline else {}
        document |= {"deliveries": [each.model_dump(mode="json") for each in sent]} if deliveries else {}
        click.echo(dumps(document))
        return
    console = rendering.console()
    console.print(rendering.details(found, language=language))
    if console.is_terminal and entries:
        console.print(rendering.Timeline(entries, language))
        entries = []
    for entry in entries:
        phase = set_cell_size(rendering.phase_name(entry["phase"], language), rendering.PHASE_WIDTH)
        click.echo(clean(f"{entry['at']}  {phase}  {translated(language, entry['note'])}"))
    for each in sent:
        click.echo(rendering.delivery(each, language))
    if deliveries and not sent:
        click.echo(translated(language, "no completion event of this export is stored"))


@click.pass_obj
def watch(open_queue: OpenQueue, *, export_id: str, language: Language, as_json: bool) -> None:
    """See `declarations.watch`."""

    async def run() -> Status | None:
        async with open_queue() as queue, aclosing(queue.watch(export_id)) as statuses:
            if not as_json:
                return await follow(statuses, timeout_s=None, language=language)
            last = None
            async for last in statuses:
                click.echo(rendering.document(last))
            return last

    last = interrupts.run(run(), lambda: interrupts.continues(export_id))
    if last is None or last.phase is not Phase.SUCCEEDED:
        sys.exit(1)

"""`export-worker events`: lists the completion events that sinks have not taken, and delivers events again."""

from datetime import UTC, datetime
from typing import Any

import click

from export_producers.commands import interrupts
from export_producers.commands.opening import OpenQueue
from export_producers.events.deliveries import Delivery
from export_producers.events.delivering import deliver_now
from export_producers.events.listing import EventPage, State, Which, read_events
from export_producers.events.sink_tests import SinkTest, send_test
from export_worker.config import Config, load_config
from export_worker.contract.model import isoformat
from export_worker.contract.names import unknown_name
from export_worker.contract.printable import clean, dumps
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.redis.replay import Replayed
from export_worker.wiring.events import open_replay


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


@click.pass_obj
def pending(open_queue: OpenQueue, *, sink: str | None, limit: int, as_json: bool) -> None:
    """See `declarations.pending`."""
    page = interrupts.run(_listed(open_queue, sink, "pending", limit))
    found = page.deliveries
    if as_json:
        click.echo(dumps([delivery.model_dump(mode="json") for delivery in found]))
        return
    for each in found:
        due = f"next delivery {isoformat(each.due_at)}" if each.due_at else "not due"
        refused = f", after {each.failures} refusals: {each.answer or 'unknown'}" if each.failures else ""
        click.echo(clean(f"{isoformat(each.event_at)}  {each.sink}  {each.event_id}  {due}{refused}"))
    _say_left_out(page)
    if not found:
        click.echo("every event is delivered or given up")


@click.pass_obj
def deliver(open_queue: OpenQueue, *, event_id: str, as_json: bool) -> None:
    """See `declarations.deliver`."""
    config = load_config()

    async def run() -> Replayed | None:
        async with open_queue() as queue:
            return await deliver_now(queue.storage, list(config.sinks), event_id)

    found = interrupts.run(run())
    if found is None:
        message = "is not stored: the id is wrong, its retention has ended, or no sink gets it"
        raise InvalidRequestError([FieldProblem("EVENT_ID", message)])
    text = f"delivering {found.event_id} ({found.type}) to {', '.join(found.sinks)}"
    click.echo(dumps(_document(found)) if as_json else clean(text))


@click.pass_obj
def test(open_queue: OpenQueue, *, sink: str, as_json: bool) -> None:
    """See `declarations.test`."""
    _chosen_sinks(load_config(), sink, "SINK")

    async def run() -> SinkTest:
        async with open_queue() as queue:
            return await send_test(queue.storage, sink)

    found = interrupts.run(run())
    texts = {
        "delivered": f"sink {sink} has taken the event {found.event_id}",
        "refused": f"sink {sink} has refused the event {found.event_id}: {found.answer}",
        "pending": f"no worker has delivered the event {found.event_id} to {sink} yet; it is tried for ten minutes",
    }
    click.echo(found.model_dump_json() if as_json else clean(texts[found.state]))
    if found.state != "delivered":
        click.get_current_context().exit(1)


@click.pass_obj
def undelivered(open_queue: OpenQueue, *, sink: str | None, limit: int, as_json: bool) -> None:
    """See `declarations.undelivered`."""
    page = interrupts.run(_listed(open_queue, sink, "given_up", limit))
    found = [_given_up(delivery) for delivery in page.deliveries]
    if as_json:
        click.echo(dumps(found))
        return
    for item in found:
        line = f"{item['at']}  {item['sink']}  {item['event_id']}  after {item['failures']} attempts: {item['reason']}"
        click.echo(clean(line))
    _say_left_out(page)
    if not found:
        click.echo("no event was given up")


async def _listed(open_queue: OpenQueue, sink: str | None, state: State, limit: int) -> EventPage:
    config = load_config()
    types = {name: config.sinks[name].type for name in _chosen_sinks(config, sink)}
    async with open_queue() as queue:
        return await read_events(queue.storage, Which(types, state), limit)


def _say_left_out(page: EventPage) -> None:
    found, total = len(page.deliveries), page.total or 0
    if total > found:
        click.echo(f"{found} of {total} events; --limit shows more", err=True)


def _given_up(delivery: Delivery) -> dict[str, Any]:
    return {
        "sink": delivery.sink,
        "event_id": delivery.event_id,
        "at": None if delivery.given_up_at is None else isoformat(delivery.given_up_at),
        "failures": delivery.failures,
        "reason": delivery.answer or "unknown",
    }


def _document(item: Replayed) -> dict[str, Any]:
    return {
        "event_id": item.event_id,
        "type": item.type,
        "export_id": item.subject,
        "time": isoformat(item.time),
        "sinks": list(item.sinks),
    }


def _chosen_sinks(config: Config, sink: str | None, parameter: str = "--sink") -> list[str]:
    if sink is None:
        return list(config.sinks)
    if sink not in config.sinks:
        raise InvalidRequestError([FieldProblem(parameter, unknown_name("sink", sink, config.sinks))])
    return [sink]

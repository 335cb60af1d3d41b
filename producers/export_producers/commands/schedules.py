"""The commands `schedules list`, `schedules pause`, `schedules resume` and `schedules run`."""

from datetime import datetime

import click

from export_producers.commands import interrupts
from export_producers.commands.connections import user
from export_producers.commands.opening import OpenQueue
from export_producers.schedules.operating import Schedules
from export_producers.schedules.states import ScheduleState
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Accepted


@click.pass_obj
def list_(open_queue: OpenQueue, *, as_json: bool) -> None:
    """See `declarations.list_schedules`."""

    async def run() -> list[ScheduleState]:
        async with open_queue() as queue:
            return await Schedules(queue).all()

    found = interrupts.run(run())
    if as_json:
        click.echo(dumps([state.model_dump(mode="json") for state in found]))
        return
    for state in found:
        click.echo(clean(_line(state)))
    if not found:
        click.echo("no worker has announced a schedule")


@click.pass_obj
def pause(open_queue: OpenQueue, *, schedule: str, reason: str | None, as_json: bool) -> None:
    """See `declarations.pause_schedule`."""

    async def run() -> ScheduleState:
        async with open_queue() as queue:
            return await Schedules(queue).pause(schedule, reason=reason, by=user())

    _print(interrupts.run(run()), f"schedule {schedule} is paused until `schedules resume {schedule}`", as_json)


@click.pass_obj
def resume(open_queue: OpenQueue, *, schedule: str, as_json: bool) -> None:
    """See `declarations.resume_schedule`."""

    async def run() -> ScheduleState:
        async with open_queue() as queue:
            return await Schedules(queue).resume(schedule)

    state = interrupts.run(run())
    _print(state, f"schedule {schedule} is not paused{_next(state)}", as_json)


@click.pass_obj
def run_(open_queue: OpenQueue, *, schedule: str, time: datetime | None, as_json: bool) -> None:
    """See `declarations.run_schedule`."""

    async def run() -> Accepted:
        async with open_queue() as queue:
            return await Schedules(queue).run(schedule, time)

    accepted = interrupts.run(run())
    click.echo(dumps(accepted.model_dump(mode="json")) if as_json else accepted.export_id)


def _print(state: ScheduleState, text: str, as_json: bool) -> None:  # noqa: FBT001 - as click passes it
    click.echo(dumps(state.model_dump(mode="json")) if as_json else clean(text))


def _line(state: ScheduleState) -> str:
    """Returns one line about a schedule."""
    return f"{state.schedule} ({state.cron}, {state.timezone}) {state.kind} on {state.connection}{_state(state)}"


def _state(state: ScheduleState) -> str:
    parts = [
        _last(state),
        "" if state.has_worker else "; no worker has it",
        "" if state.pause is None else f"; paused{_by(state.pause.by)}{_because(state.pause.reason)}",
        _next(state),
    ]
    return "".join(parts)


def _last(state: ScheduleState) -> str:
    if state.last is None:
        return ""
    export = f" {state.last.export_id}" if state.last.outcome == "fired" else ""
    return f"; last {isoformat(state.last.time)} {state.last.outcome}{export}"


def _next(state: ScheduleState) -> str:
    return "" if state.next_at is None else f"; next {isoformat(state.next_at)}"


def _by(name: str | None) -> str:
    return "" if name is None else f" by {name}"


def _because(reason: str | None) -> str:
    return "" if reason is None else f" ({reason})"

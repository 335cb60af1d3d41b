"""`export-worker dead-letters`: lists the messages that a trigger could not use, tries them again, and drops them."""

import click

from export_producers.commands import interrupts
from export_producers.commands.opening import OpenQueue
from export_producers.triggers.dead_letter_list import DeadLetter, drop_dead_letter, is_entry, read_dead_letters
from export_producers.triggers.dead_letter_retry import try_again
from export_producers.triggers.message import UnusableMessageError
from export_worker.config import load_config
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Accepted
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.wiring.trigger_templates import configured_trigger


@click.pass_obj
def list_(open_queue: OpenQueue, *, trigger: str, limit: int, as_json: bool) -> None:
    """See `declarations.list_dead_letters`."""
    configured_trigger(load_config(), trigger)

    async def run() -> list[DeadLetter]:
        async with open_queue() as queue:
            return await read_dead_letters(queue.storage, trigger, limit)

    found = interrupts.run(run())
    if as_json:
        click.echo(dumps([letter.model_dump(mode="json") for letter in found]))
        return
    for letter in found:
        click.echo(clean(f"{letter.entry}  {isoformat(letter.at)}  {letter.message_id or '-'}  {letter.reason}"))
    if not found:
        click.echo("the trigger has no dead letter")


@click.pass_obj
def again(open_queue: OpenQueue, *, trigger: str, entry: str, as_json: bool) -> None:
    """See `declarations.try_again`."""
    configured = configured_trigger(load_config(), trigger)

    async def run() -> Accepted | None:
        async with open_queue() as queue:
            return await try_again(queue, trigger, _checked(entry), configured)

    try:
        accepted = interrupts.run(run())
    except UnusableMessageError as error:
        raise InvalidRequestError([FieldProblem("message", str(error))]) from None
    if accepted is None:
        raise _missing()
    known = " (it existed already)" if accepted.deduplicated else ""
    click.echo(accepted.model_dump_json() if as_json else f"enqueued {accepted.export_id}{known}")


@click.pass_obj
def drop(open_queue: OpenQueue, *, trigger: str, entry: str) -> None:
    """See `declarations.drop`."""
    configured_trigger(load_config(), trigger)

    async def run() -> bool:
        async with open_queue() as queue:
            return await drop_dead_letter(queue.storage, trigger, _checked(entry))

    if not interrupts.run(run()):
        raise _missing()
    click.echo(f"dropped {entry}")


def _checked(entry: str) -> str:
    if not is_entry(entry):
        raise _missing()
    return entry


def _missing() -> InvalidRequestError:
    return InvalidRequestError([FieldProblem("ENTRY", "the trigger has no such dead letter")])

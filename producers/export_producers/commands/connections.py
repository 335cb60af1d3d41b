"""The commands `connections list`, `connections pause` and `connections resume`."""

import getpass
from datetime import datetime

import click

from export_producers.commands import interrupts
from export_producers.commands.opening import OpenQueue
from export_producers.pauses import ConnectionPause, Pauses
from export_worker.contract.model import isoformat
from export_worker.contract.printable import clean, dumps


@click.pass_obj
def list_(open_queue: OpenQueue, *, as_json: bool) -> None:
    """See `declarations.list_connections`."""

    async def run() -> tuple[dict[str, str], dict[str, ConnectionPause]]:
        async with open_queue() as queue:
            known = await queue.known_connections()
            return known, await Pauses(queue.storage, known).all()

    known, pauses = interrupts.run(run())
    if as_json:
        click.echo(dumps([_document(name, known[name], pauses.get(name)) for name in sorted(known)]))
        return
    for name in sorted(known):
        click.echo(clean(f"{name} ({known[name]}){_paused(pauses.get(name))}"))
    if not known:
        click.echo("no connection is configured here, and no worker has announced one")


@click.pass_obj
def pause(open_queue: OpenQueue, *, connection: str, until: datetime | None, reason: str | None, as_json: bool) -> None:
    """See `declarations.pause`."""

    async def run() -> tuple[str, ConnectionPause]:
        async with open_queue() as queue:
            known = await queue.known_connections()
            paused = await Pauses(queue.storage, known).pause(connection, until=until, reason=reason, by=user())
            return known[connection], paused

    platform, paused = interrupts.run(run())
    if as_json:
        click.echo(dumps(_document(connection, platform, paused)))
    else:
        end = f"until {isoformat(paused.until)}" if paused.until else f"until `connections resume {connection}`"
        click.echo(clean(f"connection {connection} is paused {end}; polls and transfers continue"))


@click.pass_obj
def resume(open_queue: OpenQueue, *, connection: str, as_json: bool) -> None:
    """See `declarations.resume`."""

    async def run() -> tuple[bool, dict[str, str]]:
        async with open_queue() as queue:
            known = await queue.known_connections()
            return await Pauses(queue.storage, known).resume(connection), known

    was_paused, known = interrupts.run(run())
    if as_json:
        click.echo(dumps(_document(connection, known[connection], None)))
    else:
        click.echo(clean(f"connection {connection} {'resumes' if was_paused else 'was not paused'}"))


def _document(connection: str, platform: str, paused: ConnectionPause | None) -> dict[str, object]:
    """Returns the document that the HTTP API returns for a connection."""
    pause_document = None if paused is None else paused.model_dump(mode="json")
    return {"connection": connection, "platform": platform, "pause": pause_document}


def _paused(paused: ConnectionPause | None) -> str:
    if paused is None:
        return ""
    parts = [
        " paused",
        "" if paused.until is None else f" until {isoformat(paused.until)}",
        "" if paused.by is None else f" by {paused.by}",
        "" if paused.reason is None else f": {paused.reason}",
    ]
    return "".join(parts)


def user() -> str | None:
    """Returns the name of the user; None in a container without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None

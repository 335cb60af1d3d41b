"""The commands of `export-worker`, with those of its groups, and the functions that they run."""

from collections.abc import Iterator

import click

from export_producers.commands.running import RunsFunction
from export_worker.cli import cli


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yields every command and group with its path, such as `events replay`."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def targets() -> set[str]:
    """Returns the functions of all commands, as `module:name`."""
    return {command.target for _, command in commands() if isinstance(command, RunsFunction)}

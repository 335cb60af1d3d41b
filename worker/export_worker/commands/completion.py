"""`export-worker completion`: prints the script with which a shell completes the command."""

import click
from click.shell_completion import get_completion_class

COMPLETE_VARIABLE = "_EXPORT_WORKER_COMPLETE"
"""The variable with which the script asks for completions. click derives this name from that of the program."""


def completion(shell: str) -> None:
    """See `declarations.completion`."""
    root = click.get_current_context().find_root()
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click has no completion for {shell}")
    click.echo(found(root.command, {}, root.info_name or "", COMPLETE_VARIABLE).source())

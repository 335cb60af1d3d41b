"""Completes the operations of `call` in a shell: those of the connection's platform."""

import click

from export_producers.commands import completion


def operations(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Returns the names of the operations, and their shorter names. The driver is imported, which takes 0.3 s."""
    platform = completion.platform_of(str(context.params.get("connection")))
    try:
        from export_worker.platforms.registry import operations_of  # noqa: PLC0415 - imports large packages

        found = operations_of(platform)
    except ImportError:  # an extra is missing
        return []
    names = [name for operation in found for name in (operation.name, *operation.aliases)]
    return completion.matching(names, incomplete)

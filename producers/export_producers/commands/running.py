"""Commands that are declared apart from what they do, so that help and completion import no large package."""

import signal
from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from typing import Any

import click

from export_producers.choices import Language
from export_producers.commands.lean_imports import import_lean

LANGUAGE: ContextVar[Language] = ContextVar("language", default="en")
"""The language of the command that runs, for its errors, which are printed after its end."""
OWN_PACKAGES = ("export_producers", "export_worker")
"""No extra installs a module that is missing there."""


class RunsFunction(click.Command):
    """A command whose function is imported when the command runs.

    Args:
        target: The function, as `module:name`. It takes the parameters of the command as keyword arguments.
        stays: The command is a process that runs until it is stopped. Its imports are kept small.
    """

    def __init__(
        self,
        name: str,
        *,
        target: str,
        params: list[click.Parameter],
        help: str | None,  # noqa: A002
        stays: bool = False,
    ) -> None:
        self.target = target
        self._stays = stays
        super().__init__(name, callback=self._run, params=params, help=help)

    def _run(self, **arguments: Any) -> Any:
        module, _, name = self.target.partition(":")
        try:
            import_lean(stays=self._stays)
            function = getattr(import_module(module), name)
            _interruptible()
            LANGUAGE.set(arguments.get("language", "en"))
            return function(**arguments)
        except ModuleNotFoundError as error:  # of the module, or of one that its function imports
            if error.name is None or error.name.startswith(OWN_PACKAGES):
                raise
            from export_worker.contract.extras import missing_package  # noqa: PLC0415 - reads the installation

            # `export-worker dead-letters list` needs what `dead-letters` needs.
            command = [*click.get_current_context().command_path.split()[1:], name][0]
            raise click.UsageError(missing_package(command, error.name)) from None


def _interruptible() -> None:
    """Makes Ctrl-C an exception. During the imports it ends the process, which has nothing to undo yet."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def runs(
    target: str, *, name: str | None = None, group: click.Group | None = None, stays: bool = False
) -> Callable[[Callable[[], None]], RunsFunction]:
    """Makes a command of a declaration, which has its parameters as decorators and its help as docstring.

    Args:
        target: The function that the command runs, as `module:name`.
        name: The name of the command; by default that of the declaration.
        group: The group to which the command belongs.
        stays: See `RunsFunction`.
    """

    def declare(declaration: Callable[[], None]) -> RunsFunction:
        parameters = list(reversed(getattr(declaration, "__click_params__", [])))
        own_name = name or declaration.__name__
        command = RunsFunction(own_name, target=target, params=parameters, help=declaration.__doc__, stays=stays)
        if group is not None:
            group.add_command(command)
        return command

    return declare

"""Parameters that several commands share, and parameter types for click. Imports no large package."""

import math
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from export_producers.choices import LANGUAGES
from export_producers.commands import completion
from export_producers.language_choice import preferred
from export_producers.moments import since, until
from export_worker.contract.names import did_you_mean

Option = Callable[[Callable[[], None]], Callable[[], None]]
"""A decorator that adds an option or an argument to a command."""


class _Text(click.types.StringParamType):
    """Text that is valid UTF-8. A command line may hold other bytes, which neither Redis nor JSON can store."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType`."""
        text = str(super().convert(value, param, ctx))
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("is not valid UTF-8", param, ctx)
        return text


class _Positive(click.FloatRange):
    """A finite number above zero. click's own float types accept `nan` and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType`."""
        try:
            number = float(super().convert(value, param, ctx))
        except click.BadParameter:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"must be a number above 0, not {value}", param, ctx)
        return number


class WholeNumber(click.IntRange):
    """A whole number within limits, one of which may be missing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            limits = f"of at least {self.min}" if self.max is None else f"from {self.min} to {self.max}"
            self.fail(f"must be a whole number {limits}, not {value}", param, ctx)


class Choice(click.Choice[str]):
    """One of some words. A misspelt one is answered with the one that was probably meant."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Returns the message for a value that is no choice."""
        del ctx
        meant = did_you_mean(str(value), self.choices)
        return f"must be one of {', '.join(self.choices)}, not {value}{meant}"


class _NamedArgument(click.Argument):
    """An argument that messages call by its name. click calls it by its choices: `'{bash|zsh|fish}'`."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Returns how a message names the argument."""
        del ctx
        return f"'{(self.name or '').upper()}'"


def word(name: str, choices: Sequence[str]) -> Option:
    """Adds a required argument that is one of some words."""
    return click.argument(name, type=Choice(choices), cls=_NamedArgument)


def future_moment(_: click.Context, option: click.Parameter, value: str | None) -> datetime | None:
    """Returns the date and time of an option; see `until`. The callback of options such as `--until`."""
    try:
        return None if value is None else until(value, datetime.now(UTC))
    except ValueError:
        message = f"{value} is neither a date and time (2026-11-22T03:00:00Z) nor a time from now (30m, 6h, 2d)"
        raise click.BadParameter(message, param=option) from None


def moment(_: click.Context, option: click.Parameter, value: str | None) -> datetime | None:
    """Returns the date and time of an option; see `since`. The callback of options such as `--since`."""
    try:
        return None if value is None else since(value, datetime.now(UTC))
    except ValueError:
        message = f"{value} is neither a date and time (2026-11-22T03:00:00Z) nor a time ago (30m, 6h, 2d)"
        raise click.BadParameter(message, param=option) from None


def language_of_environment() -> str:
    """Returns the language of messages that the environment requests, if we have it; else English."""
    return preferred(next(filter(None, (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), None))


TEXT = _Text()
SECONDS = RATE = _Positive(min=0, min_open=True)

PREVIEW = "export_worker.preview"
"""The key in the context's `meta` of the function that asks a platform what it has of a request."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
export_id = click.argument("export_id", type=TEXT, shell_complete=completion.export_ids)
optional_export_id = click.argument("export_id", type=TEXT, required=False, shell_complete=completion.export_ids)
language = click.option(
    "--lang",
    "language",
    type=Choice(LANGUAGES),
    default=language_of_environment,
    help="The language of the text. [default: that of LANG if it exists, else en]",
)
connection = click.argument("connection", type=TEXT, shell_complete=completion.connections)
schedule = click.argument("schedule", type=TEXT, shell_complete=completion.schedules)

_FILTERS = (
    click.option(
        "--error",
        "code",
        type=TEXT,
        metavar="CODE",
        shell_complete=completion.codes,
        help="Only exports that failed with this code.",
    ),
    click.option(
        "--connection",
        type=TEXT,
        metavar="NAME",
        shell_complete=completion.connections,
        help="Only exports of this connection.",
    ),
    click.option(
        "--kind", type=TEXT, metavar="KIND", shell_complete=completion.kinds, help="Only exports of this kind."
    ),
    click.option(
        "--since",
        type=TEXT,
        callback=moment,
        metavar="WHEN",
        help="Only exports accepted since a time ago such as 6h, or since a date and time.",
    ),
)

_MORE_FILTERS = (
    click.option(
        "--until",
        type=TEXT,
        callback=moment,
        metavar="WHEN",
        help="Only exports accepted before a time ago such as 6h, or before a date and time.",
    ),
    click.option("--requested-by", type=TEXT, metavar="NAME", help="Only exports that NAME has requested."),
    click.option(
        "--search",
        type=TEXT,
        metavar="TEXT",
        help="Only exports with this id (or its first 8 characters), idempotency key, operation id of the platform, or "
        "KEY=VALUE of the metadata.",
    ),
)


def filters(command: Callable[[], None]) -> Callable[[], None]:
    """Adds the options that select exports."""
    return _with(_FILTERS, command)


def more_filters(command: Callable[[], None]) -> Callable[[], None]:
    """Adds the other options that select exports of a list."""
    return _with(_MORE_FILTERS, command)


def _with(options: Sequence[Option], command: Callable[[], None]) -> Callable[[], None]:
    for option in reversed(options):
        command = option(command)
    return command

"""Parameters that several commands share, and parameter types for click. Imports no large package."""

import math
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from export_producers.choices import LANGUAGES
from export_producers.commands import completion
from export_worker.contract.names import did_you_mean

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


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


def since(text: str, now: datetime) -> datetime:
    """Returns the date and time that a text states.

    Args:
        text: An RFC 3339 date and time, in UTC unless it has a time zone, or a time ago such as `30m`.
        now: The current time, with its time zone.

    Raises:
        ValueError: The text has neither form.
    """
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def until(text: str, now: datetime) -> datetime:
    """Returns the date and time in the future that a text states; see `since`. `30m` is in 30 minutes."""
    stated = since(text, now)
    return stated if not re.fullmatch(r"\d{1,9}[smhd]", text) else now + (now - stated)


def future_moment(_: click.Context, option: click.Parameter, value: str | None) -> datetime | None:
    """Returns the date and time of an option; see `until`. The callback of options such as `--until`."""
    try:
        return None if value is None else until(value, datetime.now(UTC))
    except (ValueError, OverflowError):
        message = f"{value} is neither a date and time (2026-11-22T03:00:00Z) nor a time from now (30m, 6h, 2d)"
        raise click.BadParameter(message, param=option) from None


def moment(_: click.Context, option: click.Parameter, value: str | None) -> datetime | None:
    """Returns the date and time of an option; see `since`. The callback of options such as `--since`."""
    try:
        return None if value is None else since(value, datetime.now(UTC))
    except (ValueError, OverflowError):
        message = f"{value} is neither a date and time (2026-11-22T03:00:00Z) nor a time ago (30m, 6h, 2d)"
        raise click.BadParameter(message, param=option) from None


def language_of_environment() -> str:
    """Returns the language of messages that the environment requests, if we have it; else English."""
    wish = next(filter(None, (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return next((language for language in LANGUAGES if wish.startswith(language)), LANGUAGES[0])


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
    type=click.Choice(LANGUAGES),
    default=language_of_environment,
    help="The language of the text. [default: that of LANG if it exists, else en]",
)
connection = click.argument("connection", type=TEXT, shell_complete=completion.connections)

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


def filters(command: Callable[[], None]) -> Callable[[], None]:
    """Adds the options that select exports."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command

"""Types of arguments and options that click does not have."""

import math
from typing import Any

import click


class _Text(click.types.StringParamType):
    """Text. A command line may hold bytes that are none, which neither Redis nor JSON can take."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType`."""
        text = str(super().convert(value, param, ctx))
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("is not valid UTF-8", param, ctx)
        return text


class _Seconds(click.FloatRange):
    """A time above zero; `nan` and `inf` are floats, but no times."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType`."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number", param, ctx)
        return seconds


TEXT = _Text()
SECONDS = _Seconds(min=0, min_open=True)

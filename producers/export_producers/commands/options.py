"""Parameter types for click: text that is valid UTF-8, and a number of seconds."""

import math
from typing import Any

import click


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


class _Seconds(click.FloatRange):
    """A finite number of seconds above zero. click's own float types accept `nan` and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType`."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number", param, ctx)
        return seconds


TEXT = _Text()
SECONDS = _Seconds(min=0, min_open=True)

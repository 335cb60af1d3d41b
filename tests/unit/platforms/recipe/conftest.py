"""Fixtures of the driver of recipes."""

from support.small_api import build, played

__all__ = ["build", "played"]

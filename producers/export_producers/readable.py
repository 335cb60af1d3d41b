"""Reads values that other processes have stored in Redis. Pure.

A value that cannot be read, because it is damaged or of another version, is read as if it was missing: one bad record
must not take a page down that also shows all others.
"""

from datetime import UTC, datetime
from math import isfinite
from typing import Any

from pydantic_core import from_json


class UnreadableRecordError(Exception):
    """The only record that a caller asks for cannot be read. There are no others to show in its place."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} cannot be read: it is damaged, or a newer version of export-worker has written it")


def count_of(stored: object) -> int:
    """Returns a count; 0 if it is missing, or no whole number that Redis can count up to."""
    try:
        count = int(_text(stored))
    except ValueError:
        return 0
    return count if 0 <= count < 2**63 else 0


def score_of(stored: object) -> float:
    """Returns a time in ms; 0 if it is no number."""
    try:
        score = float(_text(stored))
    except ValueError:
        return 0.0
    return score if isfinite(score) else 0.0


def moment_of(stored: object) -> datetime | None:
    """Returns the time that a number of ms states; None if it is no number, or not between the years 1 and 9999."""
    try:
        return datetime.fromtimestamp(float(_text(stored)) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def json_object(text: bytes | str) -> dict[str, Any] | None:
    """Returns a JSON object; None if the text is none."""
    try:
        found = from_json(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _text(stored: object) -> str:
    return stored.decode(errors="replace") if isinstance(stored, bytes) else str(stored)

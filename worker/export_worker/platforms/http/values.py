"""Reads ids, numbers and states of a response, in the forms in which the platforms' servers write them. Pure.

A document says that an id is a text, and a server writes a number, or the other way round. Some servers write each
number with a fraction: `2500.0`. Blanks around a value have no meaning.
"""

import re
from typing import Any

from export_worker.platforms.http.responses import storable_text

_WHOLE = re.compile(r"-?[0-9]{1,19}(?:\.0{1,18})?")
_EXACT_MAX = 2**53
"""Above this limit a float does not stand for one number."""


def whole_number(value: Any) -> int | None:
    """Returns the number that a value states: an integer, a float without a fraction, or a text of either."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        return int(text.partition(".")[0]) if _WHOLE.fullmatch(text) else None
    if isinstance(value, float):
        return int(value) if abs(value) < _EXACT_MAX and value.is_integer() else None
    return value if isinstance(value, int) else None


def count_of(value: Any) -> int | None:
    """Returns the `whole_number` that a value states, if it is not negative."""
    number = whole_number(value)
    return None if number is None or number < 0 else number


def id_text(value: Any, limit_chars: int) -> str | None:
    """Returns an id as a `storable_text` without blanks around it. An id that is a number becomes its digits."""
    number = None if isinstance(value, str) else whole_number(value)
    text = value.strip() if isinstance(value, str) else None if number is None else str(number)
    return storable_text(text, limit_chars)


def state_of(value: str | None) -> str:
    """Returns a status or stage in capital letters without blanks around it, for comparisons."""
    return (value or "").strip().upper()

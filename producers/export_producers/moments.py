"""Times that callers state: a date and time, or a time ago. Pure."""

import re
from datetime import UTC, datetime, timedelta

FORMS = "a date and time (2026-11-22T03:00:00Z) or a time ago (30m, 6h, 2d)"
"""What `since` reads, for messages."""
_AGO = re.compile("([0-9]{1,9})([smhd])")
FIRST_YEAR = 1970
"""Redis has no earlier times, and sums with the earliest ones would leave the years that exist."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def since(text: str, now: datetime) -> datetime:
    """Returns the date and time that a text states.

    Args:
        text: An RFC 3339 date and time, in UTC unless it has a time zone, or a time ago such as `30m`.
        now: The current time, with its time zone.

    Raises:
        ValueError: The text has neither form, or the time is not between the years 1970 and 9999.
    """
    ago = _AGO.fullmatch(text)
    try:
        moment = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) if ago else datetime.fromisoformat(text)
        # Other zones move the first and the last hours out of the years that exist.
        moment = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range") from None
    if moment.year < FIRST_YEAR:
        raise ValueError("out of range")
    return moment


def until(text: str, now: datetime) -> datetime:
    """Returns the date and time in the future that a text states; see `since`. `30m` is in 30 minutes."""
    stated = since(text, now)
    try:
        return now + (now - stated) if _AGO.fullmatch(text) else stated
    except OverflowError:
        raise ValueError("out of range") from None

"""Formats durations and ages for people. Pure."""

from datetime import datetime

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def in_units(seconds: int, most: int) -> list[tuple[int, str]]:
    """Returns a duration in its largest units, `most` of them, e.g. `185` as `[(3, "min"), (5, "s")]`.

    The units are d, h, min and s. A negative duration counts as 0.
    """
    left = max(0, seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return [(count, unit) for count, unit in parts[:most] if count] or [(0, "s")]


def duration(seconds: float) -> str:
    """Formats a duration with its two largest units, e.g. `185` as `3 min 5 s`. A negative duration counts as 0."""
    return " ".join(f"{count} {unit}" for count, unit in in_units(round(seconds), 2))


def short(seconds: float) -> str:
    """Formats a duration with its largest unit only, e.g. `185` as `3 min`."""
    ((count, unit),) = in_units(int(seconds), 1)
    return f"{count} {unit}"


def age(moment: datetime, now: datetime) -> str:
    """Returns how far a time is from now: `3 min ago` or `in 3 min`."""
    seconds = (now - moment).total_seconds()
    return f"in {short(-seconds)}" if seconds <= -1 else f"{short(seconds)} ago"

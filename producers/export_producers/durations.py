"""Formats durations and ages for people. Pure."""

from datetime import datetime

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """Formats a duration with its two largest units, e.g. `185` as `3 min 5 s`. A negative duration counts as 0."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, parts[:2])) or "0 s"


def short(seconds: float) -> str:
    """Formats a duration with its largest unit only, e.g. `185` as `3 min`."""
    whole = max(0, int(seconds))
    return next((f"{whole // size} {unit}" for unit, size in _UNITS if whole >= size), "0 s")


def age(moment: datetime, now: datetime) -> str:
    """Returns how far a time is from now: `3 min ago` or `in 3 min`."""
    seconds = (now - moment).total_seconds()
    return f"in {short(-seconds)}" if seconds <= -1 else f"{short(seconds)} ago"

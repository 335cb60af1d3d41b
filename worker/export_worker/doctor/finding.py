"""What a check has found."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        about: What was looked at, such as `redis` or `connection gio`.
        says: What was found.
        mend: What to do about it; empty when nothing is to be done.
        status: The exit status that an error means: 2 something is set wrong, 4 something cannot be reached.
    """

    about: str
    level: Level
    says: str
    mend: str = ""
    status: int = 0


Findings = AsyncIterator[Finding]


def good(about: str, says: str) -> Finding:
    """All is well."""
    return Finding(about, "ok", says)


def warning(about: str, says: str, mend: str) -> Finding:
    """It works, and could be better."""
    return Finding(about, "warning", says, mend)


def wrong(about: str, says: str, mend: str) -> Finding:
    """It is set wrong."""
    return Finding(about, "error", says, mend, 2)


def unreachable(about: str, says: str, mend: str) -> Finding:
    """It cannot be reached, or gives no usable answer."""
    return Finding(about, "error", says, mend, 4)

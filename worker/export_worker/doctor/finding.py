"""The result of a check."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]

FIX_FIELD = "mend"
"""The name of `Finding.fix` in `doctor --json`, which is public."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        about: What was checked, such as `redis` or `connection gio`.
        says: What was found.
        fix: What to do about it; empty if nothing is to be done.
        status: Exit status of the command for an error: 2 if a setting is wrong, 4 if a service cannot be reached.
    """

    about: str
    level: Level
    says: str
    fix: str = ""
    status: int = 0

    def document(self) -> dict[str, str]:
        """Returns the finding as `doctor --json` prints it; the names of its fields are public."""
        return {"about": self.about, "level": self.level, "says": self.says, FIX_FIELD: self.fix}


Findings = AsyncIterator[Finding]


def good(about: str, says: str) -> Finding:
    """Returns a finding about a service that works."""
    return Finding(about, "ok", says)


def warning(about: str, says: str, fix: str) -> Finding:
    """Returns a finding about a service that works, but not as well as it should."""
    return Finding(about, "warning", says, fix)


def wrong(about: str, says: str, fix: str) -> Finding:
    """Returns a finding about a wrong setting or a missing permission."""
    return Finding(about, "error", says, fix, 2)


def unreachable(about: str, says: str, fix: str) -> Finding:
    """Returns a finding about a service that cannot be reached, or that gives no usable answer."""
    return Finding(about, "error", says, fix, 4)


def split_advice(message: str) -> tuple[str, str]:
    """Returns what an error says, and its advice, which follows the first semicolon."""
    says, _, advice = message.partition("; ")
    return says, advice

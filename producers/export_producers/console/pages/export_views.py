"""What the page of one export shows of its timeline and its duration. Pure."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from export_producers.console.views import SYMBOLS
from export_worker.contract.status import Eta, Phase

MARGIN = 1.1
"""The strip of durations is longer than its longest duration by this factor."""

_WAIT = re.compile(r", retry in [0-9.]+ s")
"""What differs between the notes of equal failures: the backoff."""

Entries = Sequence[Mapping[str, Any]]
"""The entries of a timeline, oldest first."""


@dataclass(frozen=True, slots=True)
class Transition:
    """An entry of a timeline.

    Args:
        times: How often the same was noted in a row.
        last_at: When it was noted last.
        after: Time since the entry before; None for the first one.
    """

    at: datetime
    phase: str
    symbol: str
    note: str
    times: int
    last_at: datetime
    after: timedelta | None


def transitions(entries: Entries) -> list[Transition]:
    """Returns the entries of a timeline. Equal ones in a row become one, also failures with other backoffs."""
    found: list[Transition] = []
    for entry in entries:
        at, phase, note = _at(entry), str(entry["phase"]), str(entry["note"])
        before = found[-1] if found else None
        if before is not None and before.phase == phase and _without_wait(before.note) == _without_wait(note):
            found[-1] = replace(before, note=_without_wait(note), times=before.times + 1, last_at=at)
            continue
        symbol = SYMBOLS[Phase(phase)] if phase in set(Phase) else ""
        after = None if before is None else at - before.last_at
        found.append(Transition(at, phase, symbol, note, 1, at, after))
    return found


def _at(entry: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(entry["at"]))


def _without_wait(note: str) -> str:
    return _WAIT.sub("", note)


@dataclass(frozen=True, slots=True)
class UsualDuration:
    """How long such exports take on the platform, and how long this one does: texts, and positions on a strip.

    Args:
        took: How long this export was on the platform, or has been until now; None if it was not there.
        at_p50, at_p95, at_took: Positions from 0 to 100.
    """

    p50: timedelta
    p95: timedelta
    samples: int
    took: timedelta | None
    at_p50: float
    at_p95: float
    at_took: float

    @property
    def is_slow(self) -> bool:
        """Whether the export takes longer than 95 % of the others."""
        return self.took is not None and self.took > self.p95


def usual_duration(eta: Eta | None, entries: Entries, now: datetime) -> UsualDuration | None:
    """Returns how usual the duration of an export is; None if no duration is known."""
    if eta is None:
        return None
    took = _on_platform(entries, now)
    took_s = 0.0 if took is None else took.total_seconds()
    scale = 100 / (MARGIN * max(eta.p95, took_s, 0.001))
    positions = [round(seconds * scale, 2) for seconds in (eta.p50, eta.p95, took_s)]
    return UsualDuration(timedelta(seconds=eta.p50), timedelta(seconds=eta.p95), eta.samples, took, *positions)


def _on_platform(entries: Entries, now: datetime) -> timedelta | None:
    """Returns how long the last operation has run."""
    since, took = None, None
    for entry in entries:
        is_running = entry["phase"] == Phase.RUNNING
        if is_running and since is None:
            since = _at(entry)
        elif not is_running and since is not None:
            took, since = _at(entry) - since, None
    return took if since is None else max(timedelta(0), now - since)


def last_beginning(entries: Entries) -> tuple[str, str] | None:
    """Returns how a transfer has begun last, after an interruption, and the note about it; None if it has not.

    It is `resumed` if the upload has the parts of before, and `restarted` if the file begins from its first byte.
    """
    for entry in reversed(entries):
        word, _, _ = str(entry["note"]).partition(" ")
        if entry["phase"] == Phase.TRANSFERRING and word in {"restarted", "resumed"}:
            return word, str(entry["note"])
    return None


def copy_command(uri: str) -> str:
    """Returns the call that copies an object of S3 to the current folder."""
    return shlex.join(["aws", "s3", "cp", uri, "."])

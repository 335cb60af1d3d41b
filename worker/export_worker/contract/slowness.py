"""Whether an export runs on its platform for much longer than the last ones of its kind. Pure."""

import re
from collections.abc import Iterable, Sequence

from export_worker.contract.status import Eta

SLOW_FACTOR = 3.0
"""An export is slow when it runs this many times as long as usual: far outside of the spread of normal durations."""
SLOW_MIN_S = 300.0
"""A shorter export is never slow. Where exports take seconds, three times as long is no reason to call a person."""
USUAL_SHARE = 0.9
"""The usual duration is one that this share of the last operations did not exceed. One slow operation, which is then
among the last ones, does not change it."""
DURATIONS_MIN = 5
"""With fewer durations, the usual one cannot be estimated."""

_DURATION = re.compile("[0-9]{1,15}")
"""More digits are longer than any operation."""


def in_seconds(durations_ms: Iterable[bytes | str | int]) -> list[float]:
    """Returns durations as Redis has them, whole numbers of ms, in seconds.

    What is no such number is left out: a damaged list must not keep a worker from claiming its exports.
    """
    return [int(duration) / 1000 for duration in durations_ms if _DURATION.fullmatch(_text(duration))]


def _text(duration: bytes | str | int) -> str:
    return duration.decode(errors="replace") if isinstance(duration, bytes) else str(duration)


def usual_s(durations_s: Sequence[float]) -> float | None:
    """Returns the usual duration of operations, of which the last ones are known; None if too few are known."""
    if len(durations_s) < DURATIONS_MIN:
        return None
    return _at_most_s(durations_s, USUAL_SHARE)


def eta_of(durations_s: Sequence[float]) -> Eta:
    """Returns the usual durations of operations, of which at least one is known."""
    return Eta(p50=_at_most_s(durations_s, 0.5), p95=_at_most_s(durations_s, 0.95), samples=len(durations_s))


def _at_most_s(durations_s: Sequence[float], share: float) -> float:
    """Returns the duration that a share of the known ones, of which there is at least one, did not exceed."""
    return sorted(durations_s)[int(share * (len(durations_s) - 1))]


def is_slow(running_s: float, durations_s: Sequence[float]) -> bool:
    """Whether an operation that still runs is slow, compared with the last ones of its kind that ended."""
    usual = usual_s(durations_s)
    return usual is not None and running_s > max(SLOW_FACTOR * usual, SLOW_MIN_S)

"""Waits that grow exponentially up to a ceiling, with full jitter.

Full jitter (a uniform draw from zero to the ceiling) spreads exports that were accepted together over the whole
interval, so that a thousand of them do not call the platform in the same second.
"""

from dataclasses import dataclass

DOUBLINGS_MAX = 40
"""2**40 seconds exceed every ceiling, and floats are exact up to there."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff.

    Args:
        first_s: Ceiling of the first wait, in seconds.
        max_s: The highest ceiling, in seconds.
    """

    first_s: float
    max_s: float

    def ceiling_s(self, waits: int) -> float:
        """Returns the maximum of the next wait, after this many waits."""
        return min(self.max_s, self.first_s * 2.0 ** min(waits, DOUBLINGS_MAX))

    def wait_s(self, waits: int, draw: float) -> float:
        """Returns the next wait.

        Args:
            waits: Number of waits before this one.
            draw: A random number from 0 to 1.
        """
        return self.ceiling_s(waits) * draw

"""How long to wait: exponential growth to a ceiling, with full jitter.

Full jitter (a uniform draw from zero to the ceiling) spreads exports that were accepted together over the whole
interval, so that a thousand of them do not knock at the platform in the same second.
"""

from dataclasses import dataclass

DOUBLINGS_MAX = 40
"""Two to the fortieth seconds outlast every ceiling, and floats stay exact."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """One policy.

    Args:
        first_s: Ceiling of the first wait, in seconds.
        max_s: No ceiling is higher.
    """

    first_s: float
    max_s: float

    def ceiling_s(self, waits: int) -> float:
        """The longest that the next wait may be, after `waits` waits before it."""
        return min(self.max_s, self.first_s * 2.0 ** min(waits, DOUBLINGS_MAX))

    def wait_s(self, waits: int, draw: float) -> float:
        """The next wait.

        Args:
            waits: How many waits there were before.
            draw: A random number from 0 to 1.
        """
        return self.ceiling_s(waits) * draw

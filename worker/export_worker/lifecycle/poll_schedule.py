"""When to poll an operation: near the times at which similar operations ended, with jitter and a ceiling. Pure.

Without known durations, the waits grow exponentially with full jitter. Such waits suit an operation of unknown length,
but cost many polls or notice the end late. Operations of one kind on one connection take similar times. Once a few
durations are known, each poll is planned for the time at which a further share of the known operations had ended. In an
interval in which no known operation ended, the waits are the longest that `max_s` allows.

Over 20,000 simulated exports with first_s = 2 and max_s = 60 (`make bench-poll`), polls of an operation and the
mean delay after its end:

    durations                           exponential       planned
    steady (300 s ± 5 %)                14.6   19.9 s     8.3    3.8 s
    skewed (log-normal, median 300 s)   18.4   20.1 s    11.0   21.2 s
    two-humped (60 s or 900 s)          20.6   20.2 s    11.3   12.3 s
"""

from collections.abc import Sequence
from dataclasses import dataclass

from export_worker.lifecycle.backoff import Backoff

DURATIONS_MIN = 5
"""With fewer durations, the usual one cannot be estimated."""
QUANTILES = 8
"""Each poll waits for a further eighth of the known ends. A larger number notices ends sooner, but costs more polls."""
JITTER = 0.03
"""A planned wait is longer or shorter by at most this share, so that exports that were submitted together spread."""
GAP_SHARE = 0.17
"""Each known end ahead lengthens the longest wait by this share of `max_s`, up to `max_s`. With fewer known ends ahead,
an end before them is more likely."""
TAIL_SHARE = 0.08
"""After the last known end, each wait is at most this share of the elapsed time. So the delay stays proportional to the
duration."""


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """The waits between the polls of one connection.

    Args:
        first_s: Ceiling of the first wait without known durations. Planned waits are at least this long, before jitter.
        max_s: The longest wait.
    """

    first_s: float
    max_s: float

    def wait_s(self, polls: int, elapsed_s: float, durations_s: Sequence[float], draw: float) -> float:
        """Returns the next wait.

        Args:
            polls: Polls so far.
            elapsed_s: Seconds since the operation was submitted.
            durations_s: How long the last operations of this kind took on this connection.
            draw: A random number from 0 to 1.
        """
        if len(durations_s) < DURATIONS_MIN:
            return Backoff(self.first_s, self.max_s).wait_s(polls, draw)
        ahead_s = sorted(end_s for end_s in durations_s if end_s > elapsed_s + self.first_s / 2)
        # In both directions: a poll may come before an end, too.
        jitter = 1 - JITTER + 2 * JITTER * draw
        if ahead_s:
            # Few polls in the interval in which no known operation ended. The ends after it are polled closely.
            goal_s = min(ahead_s[min(len(durations_s) // QUANTILES, len(ahead_s) - 1)], ahead_s[0] + self.max_s / 4)
            # The jitter applies to the longest wait as well. Otherwise all exports with this wait would poll at once.
            longest_s = self.max_s * min((len(ahead_s) + 1) * GAP_SHARE, 1 / (1 + JITTER))
            wait_s = min(goal_s - elapsed_s, longest_s) * jitter
        else:
            wait_s = min(elapsed_s * TAIL_SHARE, self.max_s) * (0.5 + 0.5 * draw)
        return max(wait_s, min(self.first_s, self.max_s) * (0.5 + 0.5 * draw))

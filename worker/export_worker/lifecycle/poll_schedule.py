"""When to look at a job: near the ends that jobs like it had, with jitter and a ceiling. Pure.

Without experience the waits grow exponentially with full jitter: that suits a job of which nothing is known, and costs
either many polls or a late notice. Jobs of one kind on one connection are alike, though. Once a few have been seen, the
next look comes where a further share of them had ended, so nobody looks where nothing ever ends.

Over 20,000 simulated exports with first_s = 2 and max_s = 60 (`make bench-poll`), polls for an export and mean delay
after its end:

    durations                           exponential       planned
    steady (300 s ± 5 %)                14.6   19.9 s     5.2    3.9 s
    skewed (log-normal, median 300 s)   18.4   20.1 s    10.2   25.0 s
    two-humped (60 s or 900 s)          20.6   20.2 s     8.5   13.4 s
"""

from collections.abc import Sequence
from dataclasses import dataclass

from export_worker.lifecycle.backoff import Backoff

SEEN_MIN = 5
"""With fewer durations there is no telling what is usual."""
SHARE = 8
"""Each look waits for a further eighth of what was seen: more looks notice an end sooner, and cost polls."""
GAP_SHARE = 0.17
"""Part of the ceiling that each end ahead allows a wait to be long, jitter aside. With all 20 ahead: 3.6 ceilings."""
TAIL_SHARE = 0.08
"""Beyond all that was seen, the next wait is this share of the time so far: late notice stays in proportion."""


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """How patient one connection is.

    Args:
        first_s: Ceiling of the first wait when nothing is known; planned looks are no closer than this.
        max_s: No wait is longer, but for those that experience plans.
    """

    first_s: float
    max_s: float

    def wait_s(self, polls: int, elapsed_s: float, seen_s: Sequence[float], draw: float) -> float:
        """The next wait.

        Args:
            polls: Looks so far.
            elapsed_s: Seconds since the job was submitted.
            seen_s: How long the last jobs of this kind took on this connection.
            draw: A random number from 0 to 1.
        """
        if len(seen_s) < SEEN_MIN:
            return Backoff(self.first_s, self.max_s).wait_s(polls, draw)
        ahead_s = sorted(end_s for end_s in seen_s if end_s > elapsed_s + self.first_s / 2)
        # Jitter to both sides, so that exports submitted together spread, and a look may come before an end, too.
        jitter = 0.97 + 0.06 * draw
        if ahead_s:
            # The stretch in which nothing ever ended is slept through; what lies behind it is looked at closely.
            goal_s = min(ahead_s[min(len(seen_s) // SHARE, len(ahead_s) - 1)], ahead_s[0] + self.max_s / 4)
            # The fewer ends lie ahead, the likelier is one in between, where none was seen yet.
            wait_s = min(goal_s - elapsed_s, self.max_s * (len(ahead_s) + 1) * GAP_SHARE) * jitter
        else:
            wait_s = min(elapsed_s * TAIL_SHARE, self.max_s) * (0.5 + 0.5 * draw)
        return max(wait_s, self.first_s * (0.5 + 0.5 * draw))

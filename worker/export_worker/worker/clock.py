"""Sources of time and randomness, injected for tests."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from export_worker.lifecycle.decisions import Moment


@dataclass(frozen=True, slots=True)
class ClockAndRandom:
    """The time and random numbers. A test passes its own.

    Args:
        now: Returns the time, with a zone.
        draw: Returns a random number from 0 to 1.
    """

    now: Callable[[], datetime]
    draw: Callable[[], float]

    def moment(self) -> Moment:
        """Returns the time now and a new random number."""
        return Moment(self.now(), self.draw())

"""The pause after a failed job, in which a worker starts no other job of the connection."""

import math
import time
from collections.abc import Callable

from export_worker.errors import PlatformPausedError


class CoolDown:
    """Pauses submits for some time after a job has failed.

    Args:
        pause_s: Seconds; 0 for no pause.
        clock: Monotonic clock in seconds.
    """

    def __init__(self, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._ends_at = -math.inf

    def start(self) -> None:
        """Starts the pause: a job has failed."""
        self._ends_at = self._clock() + self._pause_s

    def check(self) -> None:
        """Does nothing if there is no pause now.

        Raises:
            PlatformPausedError: There is one. The submit is tried when it ends.
        """
        left_s = self._ends_at - self._clock()
        if left_s > 0:
            raise PlatformPausedError("a job has failed, and the recipe asks for a pause", retry_after_s=left_s)

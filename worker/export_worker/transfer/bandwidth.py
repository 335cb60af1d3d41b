"""Ceilings for bandwidth: so many bytes a second over all transfers that share one, in the order in which they came.

Bytes are paid for when they have come, and what follows them waits. The socket fills meanwhile and slows the sender
down; nothing piles up here, and since nobody reads, no silence is counted as a stall.
"""

import asyncio
import time
from collections.abc import Callable


class BandwidthLimit:
    """One ceiling; shared by the transfers of a process or of a connection.

    Args:
        bytes_per_s: None is no ceiling.
        within: A wider ceiling that holds as well.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        bytes_per_s: float | None = None,
        within: "BandwidthLimit | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._within = within
        self._clock = clock
        self._free_at_s = 0.0

    @property
    def piece_bytes(self) -> int | None:
        """So many may come at once and still look even: a quarter of a second of the lowest ceiling; None for none."""
        wider = None if self._within is None else self._within.piece_bytes
        own = None if self._bytes_per_s is None else max(1, int(self._bytes_per_s / 4))
        return min((piece for piece in (own, wider) if piece is not None), default=None)

    async def spend(self, count_bytes: int) -> None:
        """Wait until so many bytes more are within every ceiling."""
        wait_s = self.book(count_bytes)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def book(self, count_bytes: int) -> float:
        """Take the time that these bytes may take, in every ceiling at once; how long to wait until it is over."""
        wider_s = 0.0 if self._within is None else self._within.book(count_bytes)
        if self._bytes_per_s is None:
            return wider_s
        now_s = self._clock()
        # The time in which the last piece was on its way counts, but no pause earns more than that.
        begun_s = max(self._free_at_s, now_s - count_bytes / self._bytes_per_s)
        self._free_at_s = begun_s + count_bytes / self._bytes_per_s
        return max(wider_s, self._free_at_s - now_s)


UNLIMITED = BandwidthLimit()

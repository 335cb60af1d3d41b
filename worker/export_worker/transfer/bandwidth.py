"""Bandwidth limits, in bytes per second over all transfers that share a limit; and the least that a source must send.

Transfers are served in order of arrival. After each piece that a transfer has read, it waits until the limit allows
these bytes. Meanwhile the socket's buffer fills and slows the sender down, so no bytes accumulate in this process. The
wait does not count as a stall of the source.
"""

import asyncio
import time
from collections.abc import Callable


class BandwidthLimit:
    """One limit, shared by the transfers of a process or of a connection.

    Args:
        bytes_per_s: None for no limit.
        within: A wider limit, which applies in addition.
        min_bytes_per_s: What each source must send at least; see `MinimumRate`. 0 for no minimum.
        clock: Returns seconds that never decrease.
    """

    def __init__(
        self,
        bytes_per_s: float | None = None,
        within: "BandwidthLimit | None" = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        min_bytes_per_s: float = 0.0,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._within = within
        self.min_bytes_per_s = min_bytes_per_s
        self._clock = clock
        self._free_at_s = 0.0

    @property
    def piece_bytes(self) -> int | None:
        """The largest piece that still gives an even rate: a quarter second of the lowest limit. None for no limit."""
        wider = None if self._within is None else self._within.piece_bytes
        own = None if self._bytes_per_s is None else max(1, int(self._bytes_per_s / 4))
        return min((piece for piece in (own, wider) if piece is not None), default=None)

    async def spend(self, count_bytes: int) -> None:
        """Waits until every limit allows these bytes."""
        wait_s = self.book(count_bytes)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def book(self, count_bytes: int) -> float:
        """Reserves the time for these bytes in every limit. Returns the seconds until the reserved time is over."""
        wider_s = 0.0 if self._within is None else self._within.book(count_bytes)
        if self._bytes_per_s is None:
            return wider_s
        now_s = self._clock()
        # The time in which these bytes were received counts, but a longer pause before them does not.
        start_s = max(self._free_at_s, now_s - count_bytes / self._bytes_per_s)
        self._free_at_s = start_s + count_bytes / self._bytes_per_s
        return max(wider_s, self._free_at_s - now_s)


UNLIMITED = BandwidthLimit()

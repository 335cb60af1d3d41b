"""Interrupts a download whose source hardly sends anything: it would use a slot of the worker for days.

A server that sends one byte now and then never exceeds a limit of the pauses between reads.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from export_worker.errors import DownloadInterruptedError

WINDOW_S = 120.0
"""Time over which the rate is averaged: longer than any pause that a download may have."""
COMPUTING_S = 60.0
"""A longer wait for a download that the platform computes while it is read counts as computing, not as sending."""

T = TypeVar("T")


class MinimumRate:
    """The minimum rate of one download.

    Only the time counts in which the worker waits for the source. The time that S3, transforms and bandwidth limits
    take does not count.

    Args:
        bytes_per_s: The source must send so much, averaged over `WINDOW_S`. With 0, any rate is accepted.
        is_computed: Long waits do not count, because the platform computes the download while it is read.
    """

    def __init__(self, bytes_per_s: float, *, is_computed: bool = False) -> None:
        self._window_s = WINDOW_S
        self._quota_bytes = bytes_per_s * WINDOW_S
        self._is_computed = is_computed
        self._received_bytes = 0
        self._waited_s = 0.0
        self._waits_since_s = 0.0
        self._timeout: asyncio.Timeout | None = None

    def count(self, count_bytes: int) -> None:
        """Counts bytes that were received. May be called during `wait_for`."""
        self._received_bytes += count_bytes
        if self._received_bytes < self._quota_bytes:
            return
        self._received_bytes, self._waited_s = 0, 0.0
        if self._timeout is not None and not self._timeout.expired():
            self._waits_since_s = asyncio.get_running_loop().time()
            self._timeout.reschedule(self._waits_since_s + self._window_s)

    async def wait_for(self, receiving: Awaitable[T]) -> T:
        """Waits for bytes of the source, and returns them or their number. The caller counts them.

        Raises:
            DownloadInterruptedError: The source has sent too little. `receiving` is cancelled then.
        """
        if not self._quota_bytes:
            return await receiving
        if self._is_computed:
            return await self._wait_after_computing(receiving)
        self._waits_since_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(self._waits_since_s + self._window_s - self._waited_s) as self._timeout:
                return await receiving
        except TimeoutError:
            if self._timeout is None or not self._timeout.expired():
                raise
            raise self._interrupted() from None
        finally:
            self._timeout = None
            self._waited_s += asyncio.get_running_loop().time() - self._waits_since_s

    async def _wait_after_computing(self, receiving: Awaitable[T]) -> T:
        """Waits without a timeout: how long the platform computes is known only when the wait is over."""
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        received = await receiving
        waited_s = loop.time() - since_s
        self._waited_s += waited_s if waited_s < COMPUTING_S else 0.0
        if self._waited_s > self._window_s:
            raise self._interrupted()
        return received

    def _interrupted(self) -> DownloadInterruptedError:
        return DownloadInterruptedError(
            f"the source sent {self._received_bytes} bytes in {self._window_s:g} s; transfer.min_kib_per_s requires "
            f"{self._quota_bytes:.0f}"
        )

"""How late this process runs its own timers. All bytes between workers and services pass through it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from export_worker.redis.cancellation import cancel_and_wait

INTERVAL_S = 0.05


@dataclass
class Lag:
    """Each timer that was late, with its time on the system clock, and by how many seconds it was late."""

    late: list[tuple[float, float]] = field(default_factory=list)

    @asynccontextmanager
    async def measure(self) -> AsyncIterator["Lag"]:
        """Measures until the context ends."""
        measuring = asyncio.create_task(self._measure())
        try:
            yield self
        finally:
            await cancel_and_wait(measuring)

    async def _measure(self) -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(INTERVAL_S)
            late_s = time.monotonic() - before_s - INTERVAL_S
            if late_s > INTERVAL_S / 5:
                self.late.append((time.time(), late_s))

    def between(self, start_s: float, end_s: float) -> float:
        """Returns the seconds by which timers were late in a time, altogether."""
        return sum(late_s for at_s, late_s in self.late if start_s <= at_s <= end_s)

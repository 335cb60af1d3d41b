"""Steps that a worker keeps: the commit of the step before claims them.

An export that is submitted to a platform that has finished at once, or whose files are ready, has a next step that is
due at once. Without this, the entry of the step is enqueued, all workers are notified, and one of them claims it. If
the worker has room, the commit claims the step in the same write. `lua/keep.lua` decides whether others wait.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from export_worker.lifecycle.export import Export
from export_worker.redis.claims import FENCE_BITS, ClaimedStep
from export_worker.redis.file_lists import is_apart


@dataclass(frozen=True, slots=True)
class Keep:
    """A request to claim the next step of an export in the commit of the step before, if it is due at once.

    Args:
        version: A random number that no earlier claim had. A repeated commit must have the same one.
        is_last_slot: The worker has no other free slot for steps of this role, so the export must not be kept if
            anything else waits for one.
        since_s: When it was made, on the monotonic clock. The lease begins then or later.
    """

    is_last_slot: bool
    version: int
    since_s: float

    @classmethod
    def now(cls, *, is_last_slot: bool) -> Self:
        """Returns a request that is made now."""
        return cls(is_last_slot, secrets.randbits(FENCE_BITS), time.monotonic())

    def arguments(self, limits: Mapping[str, float] | None, *, lease_ms: int) -> dict[str, object] | None:
        """Returns the argument of the commit; None if the worker does not know the limits of the connection."""
        if limits is None:
            return None
        return {
            "version": str(self.version),
            "lease_ms": lease_ms,
            "interval_ms": limits["interval_ms"],
            "is_last_slot": self.is_last_slot,
        }


def kept_step(claimed: ClaimedStep, export: Export, keep: Keep, timeline: tuple[bytes, ...] | None) -> ClaimedStep:
    """Returns the step after `claimed`, as the commit of `claimed` has claimed it.

    Args:
        timeline: The timeline after the commit; None if it is not known.
    """
    return ClaimedStep(
        export,
        keep.version,
        claimed.step + 1,
        export.role,
        durations_s=claimed.durations_s,
        trace=claimed.trace,
        trace_context=claimed.trace_context,
        timeline=timeline,
        requested_by=claimed.requested_by,
        kept=True,
        has_lists=is_apart(export),
        since_s=keep.since_s,
    )

"""The sweep: enqueues exports whose queue entry is lost, removes expired exports, and repairs the indexes of exports.

The first and the last are a safety net. A queue entry is due again when a lease ends; the sweep is for a Redis that
has lost the queue but not the records, and for exports that wait longer than the payload of a queue entry is kept. One
worker sweeps at a time.
"""

from datetime import datetime, timedelta

from arq.connections import ArqRedis

from export_worker.contract.facets import FACETS
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.past import TIMELINE_MAX
from export_worker.contract.queue_jobs import JOB_TTL_MS, STEP_FUNCTION
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.redis.claims import Timings
from export_worker.redis.lock import TimedLock
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script

OVERDUE_MAX = 500
"""Overdue exports that one sweep examines, so that the script holds Redis for a few milliseconds at most."""
EXPIRED_MAX = 1000
"""Expired exports that one sweep removes from the indexes."""
REPAIR_PIECE = 200
"""Exports that one call of the repair examines: it holds Redis for 5 ms."""
REPAIR_PIECES_MAX = 20
"""Pieces that one sweep repairs. A repair examines a million exports in 20 minutes, and takes 2% of Redis."""
REPAIR_KEPT_MS = 86_400_000
"""How long a repair that is not continued is remembered."""


class Sweeper:
    """Sweeps one namespace.

    Args:
        owner: This worker's name.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, owner: str, timings: Timings) -> None:
        self._keys = keys
        self._lock = TimedLock(redis, keys.sweep, owner, timings.grace_s)
        self._timings = timings
        self._overdue, self._forget, self._repair = (
            Script(redis, script(*names))
            for names in (("sweep",), ("indexes", "forget"), ("indexes", "past", "repair_indexes"))
        )

    async def sweep(self, now: datetime) -> list[str]:
        """Enqueues overdue exports, removes expired ones and repairs indexes, unless another worker has just done this.

        Returns:
            The ids of the exports whose queue entry was lost.
        """
        if not await self._lock.take(now):
            return []
        await self._remove_expired(now)
        lost = await self._enqueue_overdue(now)
        await self._repair_indexes()
        return lost

    async def _enqueue_overdue(self, now: datetime) -> list[str]:
        arguments = {
            "prefix": self._keys.prefix,
            "now_ms": epoch_ms(now),
            "now": isoformat(now),
            "overdue_ms": epoch_ms(now - timedelta(seconds=self._timings.grace_s)),
            "max": OVERDUE_MAX,
            "next_sweep_ms": epoch_ms(now + timedelta(seconds=self._timings.lease_s)),
            "payload_ttl_ms": JOB_TTL_MS,
            "step_function": STEP_FUNCTION,
            "timeline_max": TIMELINE_MAX,
        }
        answer = await self._overdue.document([self._keys.open], arguments)
        lost: list[str] = answer.get("lost", [])
        return lost

    async def _remove_expired(self, now: datetime) -> None:
        """Removes exports whose retention has passed from the indexes. Their records expire by themselves."""
        keys = self._keys
        await self._forget.word(
            [keys.ended, keys.created, *map(keys.phase, Phase)],
            {
                "prefix": keys.prefix,
                "until_ms": epoch_ms(now - timedelta(seconds=self._timings.retention_s)),
                "max": EXPIRED_MAX,
                "facets": FACETS,
            },
        )

    async def _repair_indexes(self) -> None:
        """Adds what the indexes lack, such as exports that were stored by a version without these indexes."""
        keys = self._keys
        for _ in range(REPAIR_PIECES_MAX):
            answer = await self._repair.word(
                [keys.created, keys.phase(Phase.FAILED), keys.index_repair],
                {"prefix": keys.prefix, "piece": REPAIR_PIECE, "kept_ms": REPAIR_KEPT_MS},
            )
            if answer == "complete":
                return

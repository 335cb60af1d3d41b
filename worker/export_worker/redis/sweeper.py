"""The sweep: enqueues exports whose queue entry is lost, removes expired ones, and migrates those of version 0.2.

It also compares the counters of 4,000 exports with their rows, and open batches with their exports. The first and the
last two are a safety net. An entry is due again when a lease ends; the sweep is for a Redis that has lost the queue but
not the records. One worker sweeps at a time.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from arq.connections import ArqRedis

from export_worker.contract.batch_keys import BatchKeys
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.past import TIMELINE_MAX
from export_worker.contract.redis_keys import Keys
from export_worker.redis.claims import Timings
from export_worker.redis.lock import TimedLock
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script

OVERDUE_MAX = 500
"""Overdue exports that one sweep examines, so that the script holds Redis for a few milliseconds at most."""
EXPIRED_MAX = 1000
"""Entries of the log of ended exports that one call reads to remove expired exports: it holds Redis for 5 ms."""
MIGRATED_MAX = 200
"""Exports that one call of the migration moves: it holds Redis for 5 ms."""
AUDIT_WAIT_MS = 60_000
"""Between two comparisons of the counters of 4,000 exports, which hold Redis for some milliseconds each."""
BATCHES_MAX = 10
"""Open batches that one sweep compares with their exports."""
BATCH_EXPORTS_MAX = 200
"""Open exports of a batch that one sweep examines: with those of all batches, it holds Redis for 3 ms."""
CALLS_MAX = 20
"""Calls that one sweep makes to remove expired exports, as many to migrate, and as many to correct counters. A million
exports are migrated in 20 minutes, which takes 2% of Redis."""


class Sweeper:
    """Sweeps one namespace.

    Args:
        owner: This worker's name.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, owner: str, timings: Timings) -> None:
        self._keys = keys
        self._lock = TimedLock(redis, keys.sweep, owner, timings.grace_s)
        self._timings = timings
        self._first_batch = 0
        self._overdue, self._forget, self._migrate, self._audit, self._batches = (
            Script(redis, script(*names))
            for names in (
                ("sweep",),
                ("indexes", "forget"),
                ("indexes", "migrate_indexes"),
                ("indexes", "audit_tally"),
                ("indexes", "past", "batches", "audit_batches"),
            )
        )

    async def sweep(self, now: datetime) -> list[str]:
        """Enqueues overdue exports, removes expired ones and migrates, unless another worker has just done this.

        Returns:
            The ids of the exports whose queue entry was lost.
        """
        if not await self._lock.take(now):
            return []
        await self._remove_expired(now)
        lost = await self._enqueue_overdue(now)
        await self._migrate_indexes()
        await self._compare_counters(now)
        await self._compare_batches(now)
        return lost

    async def _enqueue_overdue(self, now: datetime) -> list[str]:
        arguments = {
            "prefix": self._keys.prefix,
            "now_ms": epoch_ms(now),
            "now": isoformat(now),
            "overdue_ms": epoch_ms(now - timedelta(seconds=self._timings.grace_s)),
            "max": OVERDUE_MAX,
            "next_sweep_ms": epoch_ms(now + timedelta(seconds=self._timings.lease_s)),
            "timeline_max": TIMELINE_MAX,
        }
        answer = await self._overdue.document([self._keys.open], arguments)
        lost: list[str] = answer.get("lost", [])
        return lost

    async def _remove_expired(self, now: datetime) -> None:
        """Removes exports whose retention has passed from the indexes. Their records expire by themselves."""
        keys = self._keys
        await _repeat(
            self._forget,
            [keys.ended_hours, keys.numbers],
            {
                "prefix": keys.prefix,
                "now_ms": epoch_ms(now),
                "until_ms": epoch_ms(now - timedelta(seconds=self._timings.retention_s)),
                "max": EXPIRED_MAX,
            },
        )

    async def _compare_counters(self, now: datetime) -> None:
        """Corrects the counters of some exports, if Redis has lost them."""
        keys = self._keys
        arguments = {"prefix": keys.prefix, "now_ms": epoch_ms(now), "wait_ms": AUDIT_WAIT_MS}
        await _repeat(self._audit, [keys.numbers, keys.chunks], arguments)

    async def _compare_batches(self, now: datetime) -> None:
        """Counts ends of exports of some batches that a worker of an earlier version has not counted."""
        arguments = {
            "prefix": self._keys.prefix,
            "now_ms": epoch_ms(now),
            "first": self._first_batch,
            "batches_max": BATCHES_MAX,
            "exports_max": BATCH_EXPORTS_MAX,
        }
        answer = await self._batches.word([BatchKeys(self._keys).open], arguments)
        self._first_batch = self._first_batch + BATCHES_MAX if answer == "more" else 0

    async def _migrate_indexes(self) -> None:
        """Gives numbers to exports that version 0.2 has accepted, and removes its sorted sets."""
        keys = self._keys
        await _repeat(self._migrate, [keys.created, keys.ended], {"prefix": keys.prefix, "piece": MIGRATED_MAX})


async def _repeat(script: Script, keys: Sequence[str], arguments: Mapping[str, object]) -> None:
    """Calls a script until it has no more to do."""
    for _ in range(CALLS_MAX):
        if await script.word(keys, arguments) == "complete":
            return

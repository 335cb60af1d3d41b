"""The sweep: enqueues exports whose queue entry is lost, and removes exports whose retention has passed.

This is a safety net. A queue entry is due again when a lease ends; the sweep is for a Redis that has lost the queue but
not the records, and for exports that wait longer than the payload of a queue entry is kept. One worker sweeps at a
time.
"""

from datetime import datetime, timedelta

from arq.connections import ArqRedis

from export_worker.contract.model import epoch_ms
from export_worker.contract.queue_jobs import ARQ_JOB_PREFIX, JOB_TTL_MS, job_payload
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.status import Phase
from export_worker.redis.claims import Timings
from export_worker.redis.client import commands
from export_worker.redis.lua import script
from export_worker.redis.record_store import timeline_entry
from export_worker.redis.scripts import Script

OVERDUE_MAX = 500
"""Overdue exports that one sweep examines, so that it ends well before the next one."""
EXPIRED_MAX = 1000
"""Expired exports that one sweep removes from the indexes."""


class Sweeper:
    """Sweeps one namespace.

    Args:
        owner: This worker's name.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, owner: str, timings: Timings) -> None:
        self._client = redis
        self._redis = commands(redis)
        self._keys = keys
        self._owner = owner
        self._timings = timings
        self._requeue_script = Script(redis, script("requeue"))

    async def sweep(self, now: datetime) -> list[str]:
        """Enqueues overdue exports and removes expired ones, unless another worker has just done this.

        Returns:
            The ids of the exports whose queue entry was lost.
        """
        lease_ms = int(self._timings.grace_s * 1000)
        if not await self._redis.set(self._keys.sweep, self._owner, nx=True, px=lease_ms):
            return []
        await self._remove_expired(now)
        late = now - timedelta(seconds=self._timings.grace_s)
        overdue = await self._redis.zrangebyscore(self._keys.open, "-inf", epoch_ms(late), start=0, num=OVERDUE_MAX)
        return [export_id for item in overdue if await self._requeue(export_id := item.decode(), now)]

    async def _requeue(self, export_id: str, now: datetime) -> bool:
        """Enqueues an export if it has no queue entry. Returns whether its entry was lost."""
        step, phase, connection = await self._redis.hmget(self._keys.export(export_id), "step", "phase", "connection")
        if step is None or phase is None or connection is None:
            await self._redis.zrem(self._keys.open, export_id)
            return False
        known_phase = Phase(phase.decode())
        role: Role = "transfer" if known_phase is Phase.TRANSFERRING else "control"
        answer = await self._requeue_script.word(
            self._requeue_keys(export_id, int(step), connection.decode(), role),
            self._requeue_arguments(export_id, int(step), known_phase, now) | {"wake": self._keys.wake(role)},
        )
        return answer == "lost"

    def _requeue_keys(self, export_id: str, step: int, connection: str, role: Role) -> list[str]:
        keys = self._keys
        return [
            keys.export(export_id),
            keys.open,
            keys.timeline(export_id),
            keys.queue(role),
            keys.parked(connection) if role == "control" else keys.waiting(connection),
            keys.aside(role),
            ARQ_JOB_PREFIX + keys.job_id(export_id, step),
        ]

    def _requeue_arguments(self, export_id: str, step: int, phase: Phase, now: datetime) -> dict[str, object]:
        return {
            "export_id": export_id,
            "now_ms": epoch_ms(now),
            "step": str(step),
            "job_id": self._keys.job_id(export_id, step),
            "payload": job_payload(export_id, step, epoch_ms(now)),
            "payload_ttl_ms": JOB_TTL_MS,
            "note": timeline_entry(now, phase, step, "enqueued again: its queue entry was lost"),
            "next_sweep_ms": epoch_ms(now + timedelta(seconds=self._timings.lease_s)),
        }

    async def _remove_expired(self, now: datetime) -> None:
        """Removes exports whose retention has passed from the indexes. Their records expire by themselves."""
        keys = self._keys
        until_ms = epoch_ms(now - timedelta(seconds=self._timings.retention_s))
        expired = await self._redis.zrangebyscore(keys.ended, "-inf", until_ms, start=0, num=EXPIRED_MAX)
        if expired:
            async with self._client.pipeline(transaction=True) as pipe:
                for index in (keys.ended, keys.created, *map(keys.phase, Phase)):
                    pipe.zrem(index, *expired)
                await pipe.execute()

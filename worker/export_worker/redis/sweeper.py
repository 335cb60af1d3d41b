"""The sweep: brings back what fell out of the queue, and forgets what has outlived its retention.

A backstop. Queue entries come back by themselves when a lease ends; the sweep is for a Redis that lost the queue but
not the records, and for what waits longer than a queue entry's payload lives. One worker at a time does it.
"""

from datetime import datetime, timedelta

from arq.connections import ArqRedis

from export_worker.contract.model import epoch_ms
from export_worker.contract.queue_jobs import JOB_TTL_MS, job_payload
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.status import Phase
from export_worker.redis.claims import Timings
from export_worker.redis.client import commands
from export_worker.redis.lua import script
from export_worker.redis.record_store import timeline_entry

REVIVE_MAX = 500
"""Overdue exports looked at in one sweep, so that a sweep ends well before the next one."""
FORGET_MAX = 1000


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
        self._revive_script = redis.register_script(script("revive"))

    async def sweep(self, now: datetime) -> list[str]:
        """Bring back overdue exports and forget expired ones, unless another worker has just done so.

        Returns:
            The ids of the exports that were brought back.
        """
        lease_ms = int(self._timings.grace_s * 1000)
        if not await self._redis.set(self._keys.sweep, self._owner, nx=True, px=lease_ms):
            return []
        await self._forget(now)
        late = now - timedelta(seconds=self._timings.grace_s)
        overdue = await self._redis.zrangebyscore(self._keys.open, "-inf", epoch_ms(late), start=0, num=REVIVE_MAX)
        return [export_id for item in overdue if await self._revive(export_id := item.decode(), now)]

    async def _revive(self, export_id: str, now: datetime) -> bool:
        keys, now_ms = self._keys, epoch_ms(now)
        step, phase, connection = await self._redis.hmget(keys.export(export_id), "step", "phase", "connection")
        if step is None or phase is None or connection is None:
            await self._redis.zrem(keys.open, export_id)
            return False
        role: Role = "transfer" if phase.decode() == Phase.TRANSFERRING else "control"
        revived = await self._revive_script(
            keys=[
                keys.export(export_id),
                keys.open,
                keys.timeline(export_id),
                keys.queue(role),
                (keys.parked if role == "control" else keys.waiting)(connection.decode()),
                keys.aside(role),
            ],
            args=[
                export_id,
                int(step),
                now_ms,
                keys.job_id(export_id, int(step)),
                job_payload(export_id, int(step), now_ms),
                JOB_TTL_MS,
                timeline_entry(now, Phase(phase.decode()), int(step), "taken up again: its queue entry was lost"),
                epoch_ms(now + timedelta(seconds=self._timings.lease_s)),
                keys.wake(role),
            ],
        )
        return bool(revived)

    async def _forget(self, now: datetime) -> None:
        """Clear the indexes of exports whose retention has passed; their records expire by themselves."""
        keys = self._keys
        until_ms = epoch_ms(now - timedelta(seconds=self._timings.retention_s))
        gone = await self._redis.zrangebyscore(keys.ended, "-inf", until_ms, start=0, num=FORGET_MAX)
        if gone:
            async with self._client.pipeline(transaction=True) as pipe:
                for index in (keys.ended, keys.created, *map(keys.phase, Phase)):
                    pipe.zrem(index, *gone)
                await pipe.execute()

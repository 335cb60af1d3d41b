"""What is left of exports that have ended: nothing may be, but for the records and what stands in S3."""

import asyncio
from typing import Any

from export_worker.contract.queue_jobs import ARQ_JOB_PREFIX
from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import close_redis, open_redis
from support.worker_site import Site


async def in_redis(site: Site, timeout_s: float = 40.0) -> list[str]:
    """Keys of open work: leases and queue entries, slots, the open set, events that wait; looked at until none is left.

    Args:
        timeout_s: An event that its dispatcher has died with comes again after 30 s.
    """
    client = open_redis(site.redis_url)
    try:
        async with asyncio.timeout(timeout_s):
            while await _left(client, site.namespace):
                await asyncio.sleep(0.2)
    except TimeoutError:
        pass
    try:
        return await _left(client, site.namespace)
    finally:
        await close_redis(client)


async def _left(client: Any, namespace: str) -> list[str]:
    keys = Keys(namespace)
    patterns = (
        *(keys.queue(role) for role in ("control", "transfer")),
        keys.open,
        keys.slots("*"),
        keys.parked("*"),
        keys.outbox("*"),
        f"{ARQ_JOB_PREFIX}{namespace}:*",
    )
    return sorted([key.decode() for pattern in patterns for key in await client.keys(pattern)])

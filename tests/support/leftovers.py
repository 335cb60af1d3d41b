"""Finds what ended exports have left behind. Only their records, and their objects in S3, may be left."""

import asyncio
from typing import Any

from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import close_redis, open_redis
from support.worker_site import Site


async def in_redis(site: Site, timeout_s: float = 40.0) -> list[str]:
    """Returns the keys of open work: leases, queue entries, slots, the set of open exports, undelivered events.

    It reads them again until none is left, or until the timeout.

    Args:
        site: The Redis and the namespace.
        timeout_s: The default is longer than 30 s, after which an event is delivered again if its dispatcher died.
    """
    client = open_redis(site.redis_url)
    try:
        async with asyncio.timeout(timeout_s):
            while await _open_keys(client, site.namespace):
                await asyncio.sleep(0.2)
    except TimeoutError:
        pass
    try:
        return await _open_keys(client, site.namespace)
    finally:
        await close_redis(client)


async def _open_keys(client: Any, namespace: str) -> list[str]:
    keys = Keys(namespace)
    patterns = (
        *(keys.queue(role) for role in ("control", "transfer")),
        keys.open,
        keys.slots("*"),
        keys.parked("*"),
        keys.outbox("*"),
    )
    return sorted([key.decode() for pattern in patterns for key in await client.keys(pattern)])

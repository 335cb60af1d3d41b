"""Fills a Redis with very many exports."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from urllib.parse import urlsplit

from export_producers.client import ExportQueue
from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.redis.client import close_redis, open_redis
from support.export_copies import Original, random_values, write, write_originals
from support.redis_site import QueueSite

NAMESPACE = "exports"
CONNECTIONS = ("gio", "gio-eu", "ta", "sensors", "rest")
KEPT = timedelta(days=7)
OPEN = timedelta(hours=6)
"""Open exports were accepted within this time, ended ones within the time for which they are kept."""
ENDED_SHARES = {Phase.SUCCEEDED: 0.75, Phase.FAILED: 0.25}
"""So many failed exports that a bulk run has a hundred thousand of them."""
OPEN_SHARES = {Phase.QUEUED: 0.5, Phase.RUNNING: 0.48, Phase.TRANSFERRING: 0.02}


async def fill(redis_url: str, exports: int, are_open: int) -> None:
    """Writes exports until there are so many, unless the Redis has them already."""
    redis = open_redis(redis_url)
    keys = Keys(NAMESPACE)
    async with ExportQueue(redis_url, namespace=NAMESPACE) as queue:
        site = QueueSite(redis, queue, keys)
        if await site.redis.zcard(keys.created) < exports:
            originals = await write_originals(site, CONNECTIONS)
            await site.redis.hset(keys.connections, mapping=dict.fromkeys(CONNECTIONS, "growingio"))
            await site.redis.hset(keys.limits, mapping=dict.fromkeys(CONNECTIONS, 100))
            server = urlsplit(redis_url)
            write(str(server.hostname), server.port or 6379, _copies(originals, exports, are_open, epoch_ms(site.now)))
        assert await site.redis.zcard(keys.created) >= exports
        assert (await queue.reads.overview()).complete
    await close_redis(redis)


def _copies(originals: dict[Phase, list[Original]], exports: int, are_open: int, now_ms: int) -> Iterator[bytes]:
    draw = Random(17)
    kept_ms, open_ms = (span / timedelta(milliseconds=1) for span in (KEPT, OPEN))
    for number in range(1000, 1000 + exports):
        is_open = number - 1000 < are_open
        shares = OPEN_SHARES if is_open else ENDED_SHARES
        (phase,) = draw.choices(list(shares), list(shares.values()))
        created_ms = now_ms - 60_000 - int(draw.random() * (open_ms if is_open else kept_ms))
        yield draw.choice(originals[phase]).copy(random_values(draw, number, created_ms))

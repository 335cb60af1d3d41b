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
from export_worker.telemetry.queue_stats import TALLY_BYTES, counts_by_phase
from support.export_copies import Original, Values, first_number, index_command, random_values, write, write_originals
from support.redis_site import QueueSite

NAMESPACE = "exports"
CONNECTIONS = ("gio", "gio-eu", "ta", "sensors", "rest")
KEPT = timedelta(days=7)
OPEN = timedelta(hours=6)
"""Open exports were accepted within this time, ended ones within the time for which they are kept."""
ENDED_SHARES = {Phase.SUCCEEDED: 0.75, Phase.FAILED: 0.25}
"""So many failed exports that a bulk run has a hundred thousand of them."""
INDEXED_AT_ONCE = 200
"""Exports that one command adds to the indexes: some milliseconds of Redis."""
OPEN_SHARES = {Phase.QUEUED: 0.5, Phase.RUNNING: 0.48, Phase.TRANSFERRING: 0.02}


async def fill(redis_url: str, exports: int, are_open: int) -> None:
    """Writes exports until there are so many, unless the Redis has them already."""
    redis = open_redis(redis_url)
    keys = Keys(NAMESPACE)
    async with ExportQueue(redis_url, namespace=NAMESPACE) as queue:
        site = QueueSite(redis, queue, keys)
        if await stored(site) < exports:
            originals = await write_originals(site, CONNECTIONS)
            await site.redis.hset(keys.connections, mapping=dict.fromkeys(CONNECTIONS, "growingio"))
            await site.redis.hset(keys.limits, mapping=dict.fromkeys(CONNECTIONS, 100))
            server = urlsplit(redis_url)
            first, now_ms = await first_number(site), epoch_ms(site.now)
            write(str(server.hostname), server.port or 6379, _copies(originals, exports, are_open, first, now_ms))
        assert await stored(site) >= exports
        assert (await queue.reads.overview()).complete
    await close_redis(redis)


async def stored(site: QueueSite) -> int:
    """Returns the number of exports in a namespace."""
    return sum(counts_by_phase(await site.redis.getrange(site.keys.tally, 0, TALLY_BYTES - 1)).values())


def _copies(
    originals: dict[Phase, list[Original]], exports: int, are_open: int, first: int, now_ms: int
) -> Iterator[bytes]:
    """Yields the commands that write the copies, in the order of their acceptance."""
    draw = Random(17)
    kept_ms, open_ms = (int(span / timedelta(milliseconds=1)) for span in (KEPT, OPEN))
    times = sorted(
        (now_ms - 60_000 - draw.randrange(open_ms if number < are_open else kept_ms), number < are_open)
        for number in range(exports)
    )
    batch = list[tuple[Original, Values]]()
    for place, (created_ms, is_open) in enumerate(times):
        shares = OPEN_SHARES if is_open else ENDED_SHARES
        (phase,) = draw.choices(list(shares), list(shares.values()))
        original = draw.choice(originals[phase])
        values = random_values(draw, first + place, 1000 + place, created_ms)
        batch.append((original, values))
        yield original.copy(values)
        if len(batch) == INDEXED_AT_ONCE or place == exports - 1:
            yield index_command(Keys(NAMESPACE), batch)
            batch.clear()

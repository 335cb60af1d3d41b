"""The order of the events that were given up, also of those that a worker of version 0.2 has given up."""

from collections.abc import Sequence

from export_producers.events.deliveries import given_up_at
from export_producers.readable import json_object
from export_producers.storage import Storage
from export_worker.contract.model import epoch_ms

INDEX_MAX = 1000
"""Events of each sink that one call adds to the index, or removes from it."""
INDEX_TTL_MS = 7 * 86_400_000
"""The retention that workers have by default. A worker that gives an event up sets its own."""


async def index_given_up(storage: Storage, sinks: Sequence[str]) -> None:
    """Repairs the index of events that were given up, which workers of version 0.2 do not know.

    Needs one round trip, and three more while such workers run.
    """
    keys = storage.keys
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        for sink in sinks:
            pipe.hlen(keys.undelivered(sink))
            pipe.zcard(keys.given_up(sink))
        counts = iter(await pipe.execute())
    differing = [sink for sink, notes, indexed in zip(sinks, counts, counts, strict=True) if notes != indexed]
    for sink in differing:
        await _repair(storage, sink)


async def _repair(storage: Storage, sink: str) -> None:
    notes, index = storage.keys.undelivered(sink), storage.keys.given_up(sink)
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        pipe.hrandfield(notes, INDEX_MAX)
        pipe.zrange(index, 0, INDEX_MAX - 1)
        listed, indexed = await pipe.execute()
    ids = list({*(listed or ()), *indexed})
    if not ids:
        return
    async with storage.calls() as redis:
        texts = await redis.hmget(notes, *ids)
    scores = {each: _given_up_ms(text) for each, text in zip(ids, texts, strict=True) if text is not None}
    async with storage.calls(), storage.client.pipeline(transaction=True) as pipe:
        if len(scores) < len(ids):
            pipe.zrem(index, *(each for each in ids if each not in scores))
        if scores:
            pipe.zadd(index, scores)
            pipe.pexpire(index, INDEX_TTL_MS)
        await pipe.execute()


def _given_up_ms(note: bytes) -> int:
    at = given_up_at((json_object(note) or {}).get("at"))
    return 0 if at is None else epoch_ms(at)

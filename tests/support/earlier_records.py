"""Stores ended exports as versions without packed records did: as a hash, a timeline and an event."""

import json

from export_worker.contract.past import unpack
from export_worker.contract.past_documents import event_of_past, record_fields
from support.redis_site import QueueSite


async def store_as_earlier(site: QueueSite, export_id: str) -> str:
    """Rewrites an export that has ended, and returns its id."""
    keys, redis = site.keys, site.redis
    past = unpack(export_id, await redis.get(keys.past(export_id)))
    kept_ms = await redis.pttl(keys.past(export_id))
    status, timeline = await site.queue.status(export_id), await site.queue.timeline(export_id)
    event = event_of_past(past, keys.namespace)
    beside = {
        "status": status.model_dump_json(exclude={"request", "requested_by", "trace_id"}),
        "phase": past.header.phase,
        **({"message": keys.prefix + past.header.identity} if past.header.identity else {}),
    }
    await redis.hset(keys.export(export_id), mapping={**record_fields(past), **beside})
    await redis.rpush(keys.timeline(export_id), *map(json.dumps, timeline))
    await redis.set(keys.event(event.id), event.model_dump_json())
    for key in (keys.export(export_id), keys.timeline(export_id), keys.event(event.id)):
        await redis.pexpire(key, kept_ms)
    await redis.delete(keys.past(export_id))
    return export_id


async def remove_event(site: QueueSite, event_id: str) -> None:
    """Removes an event, as when its retention has passed."""
    await site.redis.delete(site.keys.event(event_id), site.keys.past(event_id.partition(".")[0]))

"""Checks the result of a soak test: no export is lost, none ran twice, and none has left anything."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from export_worker.contract.event import Event
from export_worker.contract.status import Phase, Status
from export_worker.redis.client import close_redis, open_redis
from export_worker.simulator.files import digest
from export_worker.simulator.world import World
from support import leftovers
from support.worker_site import Site


@dataclass(frozen=True)
class Verdict:
    """The result of the checks.

    Args:
        problems: One line for each.
        operations: The number of operations on the platform, over all exports.
        submitted_again: The number of exports whose timeline notes a second submit.
        deliveries: The number of delivered completion events.
    """

    problems: list[str]
    operations: int
    submitted_again: int
    deliveries: int


async def judge(site: Site, world: World, ids: list[str]) -> Verdict:
    """Checks every export, and what is left in Redis and S3."""
    left = await leftovers.in_redis(site)
    async with site.queue() as queue:
        statuses = [await queue.status(export_id) for export_id in ids]
        notes = {export_id: [entry["note"] for entry in await queue.timeline(export_id)] for export_id in ids}
    again = [status for status in statuses if any("submitted again" in note for note in notes[status.export_id])]
    events = await _events(site)
    problems = [
        *(f"left in Redis: {key}" for key in left),
        *_lost(statuses),
        *_duplicate_operations(len(world.jobs) - len(ids), again),
        *_wrong_events(ids, events),
        *await asyncio.to_thread(lambda: list(_wrong_objects(site, world, statuses))),
    ]
    return Verdict(problems, len(world.jobs), len(again), len(events))


async def _events(site: Site) -> list[Event]:
    client = open_redis(site.redis_url)
    try:
        entries: list[Any] = await client.xrange(site.stream)
    finally:
        await close_redis(client)
    return [Event.model_validate_json(fields[b"event"]) for _, fields in entries]


def _lost(statuses: list[Status]) -> Iterator[str]:
    for status in statuses:
        if status.phase is not Phase.SUCCEEDED:
            yield f"export {status.export_id} is {status.phase}: {status.error}"


def _duplicate_operations(surplus: int, again: list[Status]) -> Iterator[str]:
    """Yields a problem if the timelines do not note all surplus operations."""
    if surplus > sum(status.counters.submits - 1 for status in again):
        yield f"{surplus} surplus operations, but {len(again)} exports were submitted again"


def _wrong_events(ids: list[str], events: list[Event]) -> Iterator[str]:
    event_ids = Counter(subject for subject, _ in {(event.subject, event.id) for event in events})
    for export_id in ids:
        if event_ids[export_id] != 1:
            yield f"export {export_id} has {event_ids[export_id]} event ids"
    if unknown := set(event_ids) - set(ids):
        yield f"events of unknown exports: {unknown}"


def _wrong_objects(site: Site, world: World, statuses: list[Status]) -> Iterator[str]:
    objects = site.objects()
    for status in statuses:
        own = {key.rsplit("/", 1)[-1]: key for key in objects if f"/{status.export_id}/" in key}
        job = world.jobs.find(status.operation_id or "")
        if job is None or len(status.objects) != 1:
            yield f"export {status.export_id} has operation {status.operation_id} and {len(status.objects)} objects"
            continue
        name = status.objects[0].file_name
        if set(own) != {name, "manifest.json", "_SUCCESS"}:
            yield f"export {status.export_id} stored {sorted(own)}"
        elif sha256(objects[own[name]]).hexdigest() != digest(job.files[0].spec):
            yield f"export {status.export_id} has wrong bytes"
    if len(objects) != 3 * len(statuses):
        yield f"{len(objects)} objects"
    yield from (f"open upload of {upload['Key']}" for upload in site.open_uploads())

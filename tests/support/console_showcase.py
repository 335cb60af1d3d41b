"""Fills a namespace as an operator may find it on a working day, for the journeys and the pictures of the console."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from export_worker.contract.parsing import parse_request
from export_worker.contract.redis_keys import HOUR_S
from export_worker.contract.status import Progress
from export_worker.contract.worker_record import WorkerRecord
from export_worker.errors import PlatformNotFoundError, PlatformUnavailableError, StepError
from export_worker.redis.claims import ClaimedStep, ConnectionLimits, PlatformSignal
from support.redis_site import MANY, QueueSite

CONNECTIONS = {"gio": "growingio", "gio-nightly": "growingio", "sensors": "sensorsdata", "ta": "thinkingdata"}
SEGMENTS = ("qgQMXnD3", "k81mPqRz", "Yw02bTnA", "eA1vNt01", "mgGJj3GA", "klGvyp7E")
MIB = 1024 * 1024


@dataclass(frozen=True)
class Day:
    """The exports that journeys look for.

    Args:
        order_42: The export with `order=42` in its metadata. It waits for a slot.
    """

    order_42: str


async def showcase(site: QueueSite) -> Day:
    """Makes exports that run, wait, have failed and have succeeded, on four connections with two days of statistics."""
    site.limits = dict.fromkeys(CONNECTIONS, MANY) | {"gio-nightly": ConnectionLimits(1, 1_000_000.0)}
    await site.redis.hset(site.keys.connections, mapping=CONNECTIONS)
    await site.redis.hset(site.keys.limits, mapping={"gio": "8", "gio-nightly": "1", "sensors": "4", "ta": "4"})
    await site.redis.hset(site.keys.sinks, mapping={"stream": "redis-stream"})
    await _statistics(site)
    for number in range(4):
        await _ended(site, "gio", _segment(number), order=str(31 + number))
    await _ended(site, "sensors", {"kind": "sensorsdata.user_group_users", "group_id": 42}, order="35")
    missing = PlatformNotFoundError("the tag tag_of_last_year does not exist")
    await _ended(site, "gio", {"kind": "growingio.tag_users", "tag_key": "tag_of_last_year"}, missing, order="36")
    await _down(site)
    await _running(site)
    order_42 = await _nightly(site)
    await _transferring(site)
    await _workers(site)
    return Day(order_42)


def _segment(number: int) -> dict[str, Any]:
    return {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": SEGMENTS[number % len(SEGMENTS)]}


async def _enqueue(site: QueueSite, connection: str, export: Mapping[str, Any], **metadata: str) -> str:
    request = {"connection": connection, "export": export, "metadata": metadata}
    accepted = await site.queue.enqueue(parse_request(json.dumps(request)))
    site.catch_up()
    return accepted.export_id


async def _ended(
    site: QueueSite, connection: str, export: Mapping[str, Any], error: StepError | None = None, **metadata: str
) -> None:
    await _enqueue(site, connection, export, **metadata)
    if error is not None:
        await site.fail(await site.one(), error)
        return
    await site.submit(await site.one())
    await site.ready(await site.one())
    await site.succeed(await site.one("transfer"))


async def _down(site: QueueSite) -> None:
    """Lets the platform of `ta` fail several checks, so that workers pause it."""
    cluster = {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_name": "recent_7_days_consume"}
    for number in range(3):
        await _enqueue(site, "ta", cluster, order=str(37 + number))
    steps = await site.claim()
    for claimed in steps:
        await site.fail(claimed, PlatformUnavailableError("HTTP 503"), PlatformSignal(check="down"))
    breaker = site.keys.breaker("ta")
    until_ms = site.now_ms + 240_000
    await site.redis.hset(breaker, mapping={"failures": "6", "until": str(until_ms)})


async def _running(site: QueueSite) -> None:
    """Makes two exports that the platform works on."""
    for number in (4, 5):
        await _enqueue(site, "gio", _segment(number), order=str(36 + number))
        await site.submit(await site.one())
        claimed = await site.one()
        await site.commit(claimed, site.pending(claimed, draw=1.0, stage="DATA_READY"))


async def _nightly(site: QueueSite) -> str:
    """Makes an export that has the only slot, and some that wait for it. Returns the last one."""
    for number in range(3):
        await _enqueue(site, "gio-nightly", _segment(number), batch="nightly")
    first = await site.one()
    await site.submit(first)
    claimed = await site.one()
    await site.commit(claimed, site.pending(claimed, draw=1.0, stage="EXPORTING"))
    durations_ms = [90_000 + 4_000 * number for number in range(20)]
    await site.redis.rpush(site.keys.durations("gio-nightly", "growingio.segment_users"), *durations_ms)
    found = await _enqueue(site, "gio-nightly", _segment(3), order="42")
    await site.claim()
    return found


async def _transferring(site: QueueSite) -> None:
    """Makes an export whose transfer is half done."""
    await _enqueue(site, "sensors", {"kind": "sensorsdata.user_group_users", "group_id": 7}, order="43")
    await site.submit(await site.one())
    await site.ready(await site.one())
    claimed: ClaimedStep = await site.one("transfer")
    progress = Progress(
        percent=46.0,
        bytes_done=212 * MIB,
        bytes_total=460 * MIB,
        files_done=0,
        files_total=1,
        bytes_per_s=9 * MIB,
    )
    await site.renew(claimed, progress)


async def _workers(site: QueueSite) -> None:
    now = datetime.now(UTC)
    for owner, running in (("worker-7c9f-control", {"control": 3}), ("worker-58d1-transfer", {"transfer": 1})):
        record = WorkerRecord(
            owner=owner, version="0.1.0", started_at=now - timedelta(hours=31), seen_at=now, running=running
        )
        await site.redis.zadd(site.keys.workers, {owner: site.now_ms})
        await site.redis.set(site.keys.worker(owner), record.model_dump_json())


async def _statistics(site: QueueSite) -> None:
    """Counts ended exports of the two days before: more by day than by night."""
    now = datetime.now(UTC)
    async with site.redis.pipeline(transaction=False) as pipe:
        for back in range(1, 48):
            hour = now - timedelta(seconds=back * HOUR_S)
            busy = 6 + 30 * (7 <= (hour.hour + 8) % 24 <= 21) + (back * 7) % 11
            for place, name in enumerate(CONNECTIONS):
                counts = {"ended:succeeded": busy // (place + 1), "ended:failed": (back * (place + 3)) % 13 // 10}
                pipe.hset(site.keys.hour(name, hour), mapping=counts)
        await pipe.execute()

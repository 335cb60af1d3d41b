"""Schedules with real workers: one export for each time, whichever worker is killed, and whenever."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from export_producers.client import ExportQueue
from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase, Status
from export_worker.redis.client import close_redis, commands, open_redis
from export_worker.simulator.world import World
from support import worker_site
from support.crashes import killed_at
from support.worker_site import Site

EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
NEW_YEAR = "0 0 1 1 *"
"""A time that does not come during the test: what is fired was missed before."""


def scheduled(site: Site, cron: str = NEW_YEAR) -> None:
    request = {"connection": "gio", "export": EXPORT, "metadata": {"day": "{date-1}"}}
    site.settings |= {"schedules": {"nightly": {"cron": cron, "timezone": "Asia/Shanghai", "request": request}}}


async def forget_times_since(site: Site, moment: datetime) -> None:
    """Makes the times since then times that no worker has fired."""
    client, key = open_redis(site.redis_url), Keys(site.namespace).schedule("nightly")
    try:
        await commands(client).hset(key, mapping={"after_ms": str(epoch_ms(moment))})
    finally:
        await close_redis(client)


async def first_export(queue: ExportQueue) -> Status:
    async with asyncio.timeout(30):
        while not (found := await queue.list_exports()):
            await asyncio.sleep(0.02)
    return found[0]


@pytest.mark.parametrize("point", ["redis:fire#1:before", "redis:fire#1:after"])
async def test_time_is_fired_once_although_its_worker_is_killed(site: Site, world: World, point: str) -> None:
    missed = datetime.now(UTC) - timedelta(minutes=5)
    scheduled(site, f"{missed.minute} * * * *")
    async with worker_site.worker(site), site.queue() as queue:
        assert await queue.list_exports() == []  # a schedule that is new catches up nothing
    await forget_times_since(site, missed - timedelta(minutes=2))

    assert await killed_at(site, point)
    async with worker_site.worker(site, count=2), site.queue() as queue:
        export_id = (await first_export(queue)).export_id
        status = await queue.wait(export_id, 30)
        exports = await queue.list_exports()
        why = await queue.explain(export_id)

    assert [each.export_id for each in exports] == [export_id]
    assert (status.phase, status.requested_by, len(world.jobs)) == (Phase.SUCCEEDED, "schedule:nightly", 1)
    in_shanghai = missed + timedelta(hours=8)
    assert status.metadata == {"day": (in_shanghai - timedelta(days=1)).date().isoformat()}, why

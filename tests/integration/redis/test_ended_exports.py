"""An ended export stays ended, whatever the queue says. Only a requested retry starts it again."""

import pytest
from structlog.testing import capture_logs

from export_worker.contract.redis_keys import Role
from export_worker.lifecycle import endings
from export_worker.lifecycle.observations import Pending
from support.earlier_records import store_as_earlier
from support.redis_site import QueueSite
from support.scripted_worker import Parts, ScriptedDriver

ROLES: tuple[Role, ...] = ("control", "transfer")


async def ended_export(site: QueueSite) -> tuple[str, str]:
    """Returns the id of a cancelled export, and the queue entry that its step would have."""
    export_id = await site.enqueue()
    claimed = await site.one()
    await site.commit(claimed, endings.after_cancel(claimed.export, site.moment()))
    step = int((await site.record(export_id))["step"])
    return export_id, site.keys.job_id(export_id, step)


async def add_everywhere(site: QueueSite, export_id: str, job_id: str) -> None:
    """Adds the entry to every set from which a worker could take it."""
    due_ms = site.now_ms - 60_000
    places = [
        *(site.keys.queue(role) for role in ROLES),
        *(site.keys.aside(role) for role in ROLES),
        site.keys.parked("gio"),
        site.keys.waiting("gio"),
    ]
    for place in places:
        await site.redis.zadd(place, {job_id: due_ms})
    await site.redis.zadd(site.keys.open, {export_id: due_ms})


async def test_sweep_does_not_enqueue_an_ended_export(queue_site: QueueSite) -> None:
    export_id, _ = await ended_export(queue_site)
    before = await queue_site.queue.timeline(export_id)
    await queue_site.redis.zadd(queue_site.keys.open, {export_id: queue_site.now_ms - 60_000})
    queue_site.later(60)
    assert await queue_site.sweep() == []
    assert await queue_site.redis.zcard(queue_site.keys.queue("control")) == 0
    assert await queue_site.redis.zscore(queue_site.keys.open, export_id) is None
    assert await queue_site.queue.timeline(export_id) == before


@pytest.mark.parametrize("role", ROLES)
async def test_claim_removes_the_entry_of_an_ended_export(queue_site: QueueSite, role: Role) -> None:
    export_id, job_id = await ended_export(queue_site)
    await add_everywhere(queue_site, export_id, job_id)
    assert await queue_site.claim(role=role) == []
    assert await queue_site.redis.zscore(queue_site.keys.queue(role), job_id) is None
    assert await queue_site.redis.zscore(queue_site.keys.aside(role), job_id) is None
    assert (await queue_site.queue.status(export_id)).phase == "cancelled"


async def test_entries_of_an_ended_export_are_gone_after_claims_and_a_sweep(queue_site: QueueSite) -> None:
    export_id, job_id = await ended_export(queue_site)
    await add_everywhere(queue_site, export_id, job_id)
    for _ in range(3):
        for role in ROLES:
            assert await queue_site.claim(role=role) == []
        queue_site.later(60)
        assert await queue_site.sweep() == []
    left = [key async for key in queue_site.redis.scan_iter(f"*{job_id}*")]
    assert left == []
    for role in ROLES:
        assert await queue_site.redis.zcard(queue_site.keys.queue(role)) == 0


ENTRIES = ["{id}:{step}", "{id}:0", "{id}:99", "{id}", "nothing", "{id}:{step}:x", "missing:0", "", ":", "{id}:-1"]


@pytest.mark.parametrize("entry", ENTRIES)
async def test_no_entry_makes_a_worker_crash(queue_site: QueueSite, entry: str) -> None:
    """Whatever a queue holds, the worker runs no step of an ended export, and logs no error."""
    export_id, job_id = await ended_export(queue_site)
    wrong = queue_site.keys.prefix + entry.format(id=export_id, step=job_id.rpartition(":")[2])
    for role in ROLES:
        await queue_site.redis.zadd(queue_site.keys.queue(role), {wrong: queue_site.now_ms - 1000})
    good = await queue_site.enqueue()
    with capture_logs() as logs:
        assert await queue_site.ids() == [good]
        assert await queue_site.claim(role="transfer") == []
    assert [line for line in logs if line["log_level"] in {"error", "critical"}] == []


async def test_step_of_a_damaged_record_that_has_ended_restores_the_end(queue_site: QueueSite) -> None:
    """The index says that the export is open, its state that it has ended: the worker saves the end again."""
    export_id, job_id = await ended_export(queue_site)
    await store_as_earlier(queue_site, export_id)
    await queue_site.redis.hset(queue_site.keys.export(export_id), "phase", "running")
    await add_everywhere(queue_site, export_id, job_id)
    parts = Parts(queue_site, ScriptedDriver(lambda polls: Pending("RUNNING")), lambda: queue_site.now)
    with capture_logs() as logs:
        for claimed in await queue_site.claim():
            await parts.runner.run(claimed)
    assert [line for line in logs if line["log_level"] in {"error", "critical"}] == []
    assert (await queue_site.queue.status(export_id)).phase == "cancelled"
    assert await queue_site.redis.zscore(queue_site.keys.queue("control"), job_id) is None

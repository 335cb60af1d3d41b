"""Deadlines: they end every wait of an export, and expired exports bypass all limits."""

from datetime import UTC, datetime

from export_worker.contract.model import epoch_ms
from export_worker.lifecycle import transitions
from export_worker.redis.claims import ConnectionLimits, Timings
from support.redis_site import QueueSite

BREAKER = Timings(lease_s=15.0, breaker_first_s=5.0, breaker_max_s=60.0, breaker_threshold=3)


async def test_sweep_makes_a_parked_export_due_at_its_deadline(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6, deadline_s=3600.0)}
    await queue_site.enqueue()
    held = await queue_site.one()
    with_deadline, without_deadline = await queue_site.enqueue(deadline_s=40.0), await queue_site.enqueue()
    assert await queue_site.claim() == []
    accepted_ms = epoch_ms((await queue_site.queue.status(with_deadline)).created_at)
    # At that time the sweep enqueues the export, which then waits for nothing.
    assert await queue_site.redis.zscore(queue_site.keys.open, with_deadline) == accepted_ms + 40_000
    queue_site.later(46)
    await queue_site.renew(held)
    await queue_site.sweep()
    assert await queue_site.ids() == [with_deadline]
    queue_site.later(3600)
    await queue_site.renew(held)
    await queue_site.sweep()
    assert without_deadline in await queue_site.ids()


async def test_deadline_ends_the_wait_for_an_open_breaker(queue_site: QueueSite) -> None:
    queue_site.timings = BREAKER
    await queue_site.running()
    for _ in range(3):
        queue_site.later(61)
        await queue_site.down(await queue_site.one())
    # Enqueue uses the real clock, which is behind the clock of this site.
    ahead_s = (queue_site.now - datetime.now(UTC)).total_seconds()
    export_id = await queue_site.enqueue(deadline_s=ahead_s + 10.0)
    assert await queue_site.claim() == []
    due_ms = await queue_site.due_ms(export_id, 0)
    assert due_ms is not None
    assert queue_site.now_ms < due_ms <= queue_site.now_ms + 11_000
    queue_site.later(11)
    (claimed,) = await queue_site.claim()
    assert (claimed.export.export_id, claimed.probe) == (export_id, False)


async def expired(site: QueueSite) -> str:
    """Returns an export that is not submitted and past its deadline. It is the first in the queue."""
    export_id = await site.enqueue(deadline_s=0.5)
    site.later(1)
    return export_id


async def test_expired_export_takes_no_slot(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    late, next_one = await expired(queue_site), await queue_site.enqueue()
    assert await queue_site.ids() == [late, next_one]
    assert await queue_site.members(queue_site.keys.slots("gio")) == [next_one]


async def test_expired_export_counts_no_request(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(10, 1.0)}
    late = await expired(queue_site)
    assert await queue_site.ids() == [late]
    assert await queue_site.redis.exists(queue_site.keys.rate("gio")) == 0


async def test_expired_export_is_no_probe(queue_site: QueueSite) -> None:
    late, next_one = await expired(queue_site), await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.breaker("gio"), "until", queue_site.now_ms - 1)
    steps = await queue_site.claim()
    assert [(claimed.export.export_id, claimed.probe) for claimed in steps] == [(late, False), (next_one, True)]


async def test_deadline_of_a_restarted_export_counts_from_the_restart(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6, deadline_s=100.0)}
    export_id = await queue_site.ended()
    queue_site.later(1000)
    await queue_site.queue.retry(export_id, "submit")
    claimed = await queue_site.one()
    await queue_site.commit(claimed, transitions.restart(claimed.export, "submit", queue_site.moment()))
    assert int((await queue_site.record(export_id))["going"]) == queue_site.now_ms

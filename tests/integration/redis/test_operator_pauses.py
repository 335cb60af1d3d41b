"""Pauses of connections that an operator requests: submits stop, polls and transfers continue."""

from datetime import timedelta

import pytest

from export_producers.pauses import Pauses
from export_worker.errors import InvalidRequestError
from export_worker.redis.claims import ConnectionLimits
from support.redis_site import UNAVAILABLE, QueueSite, notices


def pauses_of(site: QueueSite) -> Pauses:
    return Pauses(site.queue.storage, {"gio": "growingio", "ta": "thinkingdata"})


async def test_paused_connection_submits_nothing_and_its_polls_and_transfers_continue(queue_site: QueueSite) -> None:
    running = await queue_site.running()
    await pauses_of(queue_site).pause("gio", reason="maintenance", by="anna")
    queue_site.catch_up()
    waiting = [await queue_site.enqueue() for _ in range(3)]
    poll = await queue_site.one()
    assert poll.export.export_id == running
    await queue_site.ready(poll)
    assert await queue_site.ids(role="transfer") == [running]
    assert await queue_site.claim() == []
    parked = [queue_site.keys.job_id(export_id, 0) for export_id in waiting]
    assert await queue_site.members(queue_site.keys.parked("gio")) == parked


async def test_other_connections_submit_while_one_is_paused(queue_site: QueueSite) -> None:
    queue_site.limits = {name: ConnectionLimits(8, 1e6) for name in ("gio", "ta")}
    await pauses_of(queue_site).pause("ta")
    export_id = await queue_site.enqueue()
    assert await queue_site.ids() == [export_id]


async def test_resume_wakes_workers_and_starts_as_many_exports_as_there_are_slots(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(2, 1e6)}
    pauses = pauses_of(queue_site)
    await pauses.pause("gio")
    enqueued = [await queue_site.enqueue() for _ in range(5)]
    assert await queue_site.claim() == []
    async with notices(queue_site) as received:
        assert await pauses.resume("gio")
    assert len(received) == 1
    queue_site.catch_up()
    assert await queue_site.ids() == enqueued[:2]
    assert await queue_site.members(queue_site.keys.parked("gio")) == [
        queue_site.keys.job_id(export_id, 0) for export_id in enqueued[2:]
    ]
    assert not await pauses.resume("gio")


async def test_pause_ends_by_itself_at_its_time_and_leaves_no_key(queue_site: QueueSite) -> None:
    await pauses_of(queue_site).pause("gio", until=queue_site.now + timedelta(minutes=10), reason="r")
    export_id = await queue_site.enqueue()
    assert await queue_site.claim() == []
    queue_site.later(599)
    assert await queue_site.claim() == []
    queue_site.later(2)
    assert await queue_site.ids() == [export_id]
    assert not await queue_site.redis.exists(queue_site.keys.paused, queue_site.keys.pauses)


async def test_export_with_a_slot_waits_in_the_queue_and_is_submitted_after_the_pause(queue_site: QueueSite) -> None:
    """Were it parked, its own slot could be the last one, and nothing would end its wait."""
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.store.release(claimed, queue_site.now)
    pauses = pauses_of(queue_site)
    await pauses.pause("gio")
    assert await queue_site.redis.zscore(queue_site.keys.slots("gio"), export_id) is not None
    assert await queue_site.claim() == []
    assert await queue_site.members(queue_site.keys.parked("gio")) == []
    await pauses.resume("gio")
    queue_site.later(2)
    assert await queue_site.ids() == [export_id]


async def test_cancelled_and_expired_exports_end_during_a_pause(queue_site: QueueSite) -> None:
    await pauses_of(queue_site).pause("gio")
    cancelled, expired = await queue_site.enqueue(), await queue_site.enqueue(deadline_s=60)
    assert await queue_site.claim() == []
    await queue_site.cancel(cancelled)
    assert await queue_site.ids() == [cancelled]
    queue_site.later(61)
    assert expired in await queue_site.ids()


async def test_sweep_during_a_pause_submits_nothing(queue_site: QueueSite) -> None:
    await pauses_of(queue_site).pause("gio")
    export_id = await queue_site.enqueue()
    assert await queue_site.claim() == []
    queue_site.later(120)
    await queue_site.sweep()
    assert await queue_site.claim() == []
    assert await queue_site.members(queue_site.keys.parked("gio")) == [queue_site.keys.job_id(export_id, 0)]


async def test_failed_submit_is_retried_after_the_pause(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    pauses = pauses_of(queue_site)
    await pauses.pause("gio")
    await queue_site.fail(claimed, UNAVAILABLE)
    queue_site.later(60)
    assert await queue_site.claim() == []
    await pauses.resume("gio")
    queue_site.later(2)
    assert await queue_site.ids() == [export_id]


async def test_pause_of_unknown_connection_and_past_end_are_refused(queue_site: QueueSite) -> None:
    pauses = pauses_of(queue_site)
    with pytest.raises(InvalidRequestError, match="unknown connection 'gioo'; did you mean gio"):
        await pauses.pause("gioo")
    with pytest.raises(InvalidRequestError, match="until"):
        await pauses.pause("gio", until=queue_site.now - timedelta(hours=1))
    with pytest.raises(InvalidRequestError, match="reason"):
        await pauses.pause("gio", reason="r" * 201)
    assert await pauses.all() == {}


async def test_pauses_are_listed_until_they_end(queue_site: QueueSite) -> None:
    pauses = pauses_of(queue_site)
    until = queue_site.now.replace(microsecond=0) + timedelta(minutes=5)
    await pauses.pause("gio", until=until, reason="platform maintenance", by="anna")
    await pauses.pause("ta")
    found = await pauses.all()
    assert {name: (pause.until, pause.reason, pause.by) for name, pause in found.items()} == {
        "gio": (until, "platform maintenance", "anna"),
        "ta": (None, None, None),
    }
    await pauses.resume("gio")
    assert list(await pauses.all()) == ["ta"]


async def test_explain_says_who_has_paused_the_connection_and_until_when(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await pauses_of(queue_site).pause("gio", until=queue_site.now + timedelta(minutes=5), reason="maintenance")
    assert await queue_site.claim() == []
    explained = await queue_site.queue.explain(export_id)
    assert "paused by an operator until" in explained
    assert "maintenance" in explained

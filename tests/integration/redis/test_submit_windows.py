"""Submit windows of connections: outside of them submits wait, and polls and transfers continue."""

from datetime import UTC, datetime, timedelta

import pytest

from export_producers.facts import with_eta
from export_producers.pauses import Pauses
from export_producers.reasons import WaitsForWindow
from export_worker.contract.model import epoch_ms
from export_worker.lifecycle.windows import Windows
from export_worker.redis.claims import ConnectionLimits
from export_worker.redis.transfers import TransferProgress
from export_worker.telemetry.queue_stats import QueueStats
from support.redis_site import QueueSite

MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
SIX = MIDNIGHT + timedelta(hours=6)
DEADLINE_S = 30 * 86_400.0


def at_night(site: QueueSite, slots: int = 8) -> None:
    """Sets the time to midnight, at which connection `gio` submits nothing until 06:00."""
    windows = Windows.read("UTC", ["06:00-23:00"], [])
    site.limits = {"gio": ConnectionLimits(slots, 1e6, DEADLINE_S, windows), "ta": ConnectionLimits(8, 1e6, DEADLINE_S)}
    site.now = MIDNIGHT


@pytest.fixture
async def running(queue_site: QueueSite) -> str:
    """The id of an export that was submitted by day."""
    return await queue_site.running()


async def test_submits_wait_for_the_window_and_polls_transfers_and_other_connections_continue(
    queue_site: QueueSite, running: str
) -> None:
    waiting = [await queue_site.enqueue() for _ in range(3)]
    other = await queue_site.enqueue("ta")
    at_night(queue_site)
    claimed = {step.export.export_id: step for step in await queue_site.claim()}
    assert set(claimed) == {running, other}
    await queue_site.ready(claimed[running])
    assert await queue_site.ids(role="transfer") == [running]
    # The slot that is free now makes one waiting export due.
    assert await queue_site.claim() == []
    assert await queue_site.members(queue_site.keys.parked("gio")) == [
        queue_site.keys.job_id(export_id, 0) for export_id in waiting
    ]
    assert await queue_site.redis.zscore(queue_site.keys.closed, "gio") == epoch_ms(SIX)
    queue_site.now = SIX - timedelta(milliseconds=1)
    assert waiting[0] not in await queue_site.ids()
    queue_site.now = SIX
    assert set(waiting) <= set(await queue_site.ids())
    assert not await queue_site.redis.exists(queue_site.keys.closed)


async def test_readers_know_the_next_window_until_it_begins(queue_site: QueueSite) -> None:
    keys = queue_site.keys
    export_id = await queue_site.enqueue()
    status = await queue_site.queue.status(export_id)
    await queue_site.redis.rpush(keys.durations("gio", status.kind), 60_000)
    for now, expected in ((MIDNIGHT, SIX), (SIX, None)):
        at_night(queue_site)
        queue_site.now = now
        await queue_site.claim()
        known = await with_eta(queue_site.queue.storage, status)
        assert known.eta is not None
        assert known.eta.submits_from == expected
        overview = await queue_site.queue.reads.overview()
        assert overview.connections["gio"].closed_until == expected
        stats = QueueStats(queue_site.redis, keys, ["gio", "ta"], [], TransferProgress(queue_site.redis, keys).read)
        assert (await stats.read(now)).closed == {"gio": expected is not None, "ta": False}
        explained = (await queue_site.queue.explanation(export_id)).reason
        assert isinstance(explained, WaitsForWindow) == (expected is not None)


async def test_window_starts_as_many_exports_as_there_are_slots(queue_site: QueueSite) -> None:
    waiting = [await queue_site.enqueue() for _ in range(5)]
    at_night(queue_site, slots=2)
    assert await queue_site.claim() == []
    queue_site.now = SIX
    assert await queue_site.ids() == waiting[:2]


async def test_slot_that_becomes_free_outside_of_the_window_stays_free(queue_site: QueueSite, running: str) -> None:
    waiting = await queue_site.enqueue()
    at_night(queue_site, slots=1)
    await queue_site.ready(await queue_site.one())
    assert await queue_site.claim() == []
    queue_site.now = SIX
    assert await queue_site.ids() == [waiting]


async def test_pause_that_ends_outside_of_the_window_submits_nothing(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    at_night(queue_site)
    pauses = Pauses(queue_site.queue.storage, {"gio": "growingio"})
    await pauses.pause("gio")
    assert await queue_site.claim() == []
    await pauses.resume("gio")
    assert await queue_site.claim() == []
    await pauses.pause("gio", until=SIX + timedelta(hours=1))
    queue_site.now = SIX
    assert await queue_site.claim() == []
    queue_site.now = SIX + timedelta(hours=1)
    assert await queue_site.ids() == [export_id]


async def test_deadline_and_cancellation_end_exports_outside_of_the_window(queue_site: QueueSite) -> None:
    cancelled, late = await queue_site.enqueue(), await queue_site.enqueue(deadline_s=1)
    at_night(queue_site)
    await queue_site.queue.cancel(cancelled)
    steps = await queue_site.claim()
    assert {step.export.export_id: (step.slotless, step.cancel) for step in steps} == {
        cancelled: (True, True),
        late: (True, False),
    }


async def test_export_with_a_slot_waits_for_the_window_in_the_queue(queue_site: QueueSite) -> None:
    """Were it parked, its own slot could be the last one, and nothing would end its wait."""
    export_id = await queue_site.enqueue()
    await queue_site.store.release(await queue_site.one(), queue_site.now)
    at_night(queue_site, slots=1)
    assert await queue_site.claim() == []
    assert await queue_site.members(queue_site.keys.parked("gio")) == []
    queue_site.now = SIX
    assert await queue_site.ids() == [export_id]


async def test_worker_without_the_setting_ends_the_wait(queue_site: QueueSite) -> None:
    """An operator has removed the windows, and has restarted the workers."""
    export_id = await queue_site.enqueue()
    at_night(queue_site)
    assert await queue_site.claim() == []
    queue_site.limits = {"ta": ConnectionLimits(8, 1e6)}
    assert await queue_site.claim() == []
    queue_site.limits = {"gio": ConnectionLimits(8, 1e6, DEADLINE_S)}
    assert await queue_site.ids() == [export_id]


@pytest.mark.parametrize("is_paused", [False, True])
async def test_slots_that_become_free_during_a_hold_change_no_turn(
    queue_site: QueueSite, running: str, *, is_paused: bool
) -> None:
    waiting = [await queue_site.enqueue() for _ in range(4)]
    at_night(queue_site, slots=1)
    pauses = Pauses(queue_site.queue.storage, {"gio": "growingio"})
    if is_paused:
        queue_site.now = SIX
        await pauses.pause("gio")
    await queue_site.ready(await queue_site.one())
    assert await queue_site.claim() == []
    queue_site.now = SIX
    await pauses.resume("gio")
    assert await queue_site.ids() == waiting[:1]


async def test_window_that_opens_during_a_pause_changes_no_turn(queue_site: QueueSite) -> None:
    waiting = [await queue_site.enqueue() for _ in range(4)]
    at_night(queue_site, slots=1)
    assert await queue_site.claim() == []
    pauses = Pauses(queue_site.queue.storage, {"gio": "growingio"})
    await pauses.pause("gio")
    queue_site.now = SIX
    assert [await queue_site.claim() for _ in range(2)] == [[], []]
    await pauses.resume("gio")
    assert await queue_site.ids() == waiting[:1]

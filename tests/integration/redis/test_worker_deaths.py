"""Deaths of workers in one step are counted, the waits before the next claim grow, and the seventh ends the export."""

import re

import pytest

from export_worker.contract.redis_keys import Role
from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode
from export_worker.lifecycle.endings import WORKER_DEATHS_MAX
from export_worker.redis.claims import ClaimedStep, ConnectionLimits
from export_worker.redis.record_store import SPARE_S
from export_worker.transfer.export_writer import ExportWriter
from support.redis_site import QueueSite
from support.scripted_worker import Parts, ScriptedDriver, export_writer

DIED = r"worker stopped responding, number (\d) in this step; the next worker may claim it after ([\d.]+) s"
RESUMED = "resumed: its previous worker stopped responding"
WAITS_S = (0, 1, 2, 4, 8, 16)
"""The longest wait after the first death, after the second, and so on. The shortest one is half of it."""
POLL_S = 0.5


async def next_claim(site: QueueSite, role: Role = "control") -> tuple[ClaimedStep, float]:
    """Claims until the only step is claimed. Returns it, and how long that took (seconds)."""
    waited_s = 0.0
    while not (steps := await site.claim(role=role)):
        site.later(POLL_S)
        waited_s += POLL_S
        assert waited_s < 120
    return steps[0], waited_s


async def die(site: QueueSite, role: Role = "control") -> tuple[ClaimedStep, float]:
    """The worker that holds the only step dies. Returns the next claim, and the wait after the end of the lease."""
    site.later(site.timings.lease_s)
    return await next_claim(site, role)


async def die_often(site: QueueSite, times: int, role: Role = "control") -> ClaimedStep:
    """Claims the only step, and lets its workers die. Returns the last claim."""
    claimed = await site.one(role)
    for _ in range(times):
        claimed, _ = await die(site, role)
    return claimed


def worker_of(site: QueueSite, writer: ExportWriter | None = None) -> Parts:
    """Returns the parts of a worker that has the time of the site."""
    return Parts(site, ScriptedDriver(), lambda: site.now, writer)


async def test_waits_grow_with_each_death_and_the_timeline_says_each(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.one()
    waits_s = []
    for deaths in range(1, WORKER_DEATHS_MAX):
        claimed, wait_s = await die(queue_site)
        waits_s.append(wait_s)
        assert (claimed.deaths, claimed.claims) == (deaths, deaths + 1)
    assert all(most_s / 2 <= wait_s <= most_s + POLL_S for wait_s, most_s in zip(waits_s, WAITS_S, strict=True))
    notes = await queue_site.notes(export_id)
    assert notes.count(RESUMED) == WORKER_DEATHS_MAX - 1
    noted = [re.fullmatch(DIED, note) for note in notes if note.startswith("worker stopped responding")]
    named = [(int(found[1]), float(found[2])) for found in noted if found]
    assert [deaths for deaths, _ in named] == [2, 3, 4, 5, 6]
    assert all(WAITS_S[deaths - 1] / 2 <= wait_s <= WAITS_S[deaths - 1] for deaths, wait_s in named)


async def test_steps_that_died_together_are_claimed_at_different_times(queue_site: QueueSite) -> None:
    ids = {await queue_site.enqueue(), await queue_site.enqueue()}
    for deaths in range(2):
        assert {step.export.export_id for step in await queue_site.claim()} == ids, f"after {deaths} death(s)"
        queue_site.later(queue_site.timings.lease_s)
    claims: list[int] = []
    while sum(claims) < len(ids):
        claims.append(len(await queue_site.claim()))
        queue_site.later(0.1)
    assert max(claims) == 1


@pytest.mark.parametrize("role", ["control", "transfer"])
async def test_seventh_death_ends_the_export_without_another_call(
    queue_site: QueueSite, s3_url: str, bucket: str, role: Role
) -> None:
    export_id = await (queue_site.enqueue() if role == "control" else queue_site.transferring())
    await die_often(queue_site, WORKER_DEATHS_MAX - 1, role)
    last, wait_s = await die(queue_site, role)
    assert (last.deaths, wait_s) == (WORKER_DEATHS_MAX, 0)
    with export_writer(s3_url, bucket) as writer:
        parts = worker_of(queue_site, writer)
        await parts.runner.run(last)
    status = await queue_site.queue.status(export_id)
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert (status.error.code, status.error.retryable) == (ErrorCode.WORKER_DIED, True)
    assert parts.driver.submits == 0
    assert "lost" not in await queue_site.record(export_id)
    assert (await queue_site.notes(export_id))[-1].startswith("failed: worker_died: 7 workers stopped responding")


async def test_step_that_kills_seven_workers_bypasses_the_limits_of_its_connection(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await die_often(queue_site, WORKER_DEATHS_MAX - 1)
    queue_site.limits = {"gio": ConnectionLimits(0, 0.001)}
    last, wait_s = await die(queue_site)
    assert (last.deaths, wait_s) == (WORKER_DEATHS_MAX, 0)


async def test_cancelled_step_that_kills_seven_workers_ends_as_cancelled(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await die_often(queue_site, WORKER_DEATHS_MAX - 1)
    await queue_site.cancel(export_id)
    last, _ = await die(queue_site)
    await worker_of(queue_site).runner.run(last)
    assert (await queue_site.queue.status(export_id)).phase is Phase.CANCELLED


async def test_cancellation_ends_the_wait_after_a_death(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await die_often(queue_site, 3)
    queue_site.later(queue_site.timings.lease_s)
    assert await queue_site.claim() == []
    await queue_site.cancel(export_id)
    claimed = await queue_site.one()
    assert (claimed.cancel, claimed.deaths) == (True, 4)


async def test_next_step_starts_without_deaths(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.submit(await die_often(queue_site, 3))
    assert (await queue_site.one()).deaths == 0
    claimed, wait_s = await die(queue_site)
    assert (claimed.deaths, wait_s) == (1, 0)


async def test_retry_by_hand_starts_without_deaths(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    last = await die_often(queue_site, WORKER_DEATHS_MAX)
    await worker_of(queue_site).runner.run(last)
    await queue_site.queue.retry(export_id)
    queue_site.catch_up()
    claimed = await queue_site.one()
    assert (claimed.retry, claimed.deaths) == ("submit", 0)


async def test_release_and_hand_back_are_no_deaths(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.one()
    claimed, _ = await die(queue_site)
    for _ in range(2 * WORKER_DEATHS_MAX):
        await queue_site.store.release(claimed, queue_site.now)
        claimed = await queue_site.one()
        await queue_site.store.hand_back(claimed, queue_site.now)
        claimed = await queue_site.one()
        assert claimed.deaths == 1


async def test_outage_of_redis_is_no_death(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    held = await queue_site.one()
    queue_site.alone = True
    queue_site.later(100)
    assert await queue_site.claim() == []
    queue_site.later(SPARE_S - 1)
    assert await queue_site.renew(held) == "renewed"
    assert "lost" not in await queue_site.record(export_id)


async def test_worker_that_was_only_slow_keeps_its_step_and_is_not_counted(queue_site: QueueSite) -> None:
    """Its lease has ended and its death is counted, but nothing has claimed the step when it renews."""
    export_id = await queue_site.enqueue()
    held = await die_often(queue_site, 2)
    queue_site.later(queue_site.timings.lease_s)
    assert await queue_site.claim() == []
    assert (await queue_site.record(export_id))["lost"] == "3"
    assert await queue_site.renew(held) == "renewed"
    record = await queue_site.record(export_id)
    assert (record["lost"], record.get("released")) == ("2", None)
    queue_site.later(queue_site.timings.lease_s - 1)
    assert await queue_site.claim() == []
    await queue_site.submit(held)


async def test_stored_file_ends_the_count_of_a_transfer(queue_site: QueueSite) -> None:
    await queue_site.transferring()
    claimed = await die_often(queue_site, 4, "transfer")
    await queue_site.store.checkpoint(claimed, queue_site.file_stored(claimed), queue_site.now)
    claimed, wait_s = await die(queue_site, "transfer")
    assert (claimed.deaths, wait_s) == (1, 0)


async def test_transfers_that_wait_for_a_free_slot_count_one_death(queue_site: QueueSite) -> None:
    ids = [await queue_site.transferring() for _ in range(3)]
    assert len(await queue_site.claim(role="transfer")) == len(ids)
    queue_site.later(queue_site.timings.lease_s)
    # One slot: the claim puts all three into the row of their connection, and takes one.
    for _ in ids:
        (claimed,) = await queue_site.claim(1, "transfer")
        assert claimed.deaths == 1

"""The clock of Redis is set back: the time of all processes is not, and locks end as if it had not been."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from export_worker.doctor.redis import check_redis
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.clock import SharedClock, set_clock
from export_worker.redis.lock import TimedLock
from support.redis_clock import MovableRedis
from support.redis_site import QueueSite, open_site

HOUR_S = 3600


@pytest.fixture
async def site(movable_redis: MovableRedis, namespace: str) -> AsyncIterator[QueueSite]:
    """A namespace in a Redis whose clock the test sets."""
    client = open_redis(movable_redis.url)
    async with open_site(client, movable_redis.url, namespace) as opened:
        yield opened
    await close_redis(client)


async def producers_ms(site: QueueSite) -> float:
    """Returns the time (ms) that a process sees which starts now and claims nothing."""
    clock = SharedClock()
    await set_clock(clock, site.redis, site.keys)
    return clock().timestamp() * 1000


async def offset_ms(site: QueueSite) -> float:
    return float(await site.redis.hget(site.keys.clock, "offset"))


async def test_time_never_goes_back_for_workers_and_producers(site: QueueSite, movable_redis: MovableRedis) -> None:
    last_ms = (await site.claimed()).time_ms
    for ahead_s in (-HOUR_S, -2 * HOUR_S, 5, 0, -1):
        movable_redis.set_clock(ahead_s)
        before_claim_ms = await producers_ms(site)
        claimed = await site.claimed()
        assert last_ms <= before_claim_ms + 1
        assert last_ms <= claimed.time_ms
        assert before_claim_ms == pytest.approx(claimed.time_ms, abs=1000)
        assert await producers_ms(site) == pytest.approx(claimed.time_ms, abs=1000)
        last_ms = claimed.time_ms


async def test_claim_reports_once_by_how_much_the_clock_was_set_back(
    site: QueueSite, movable_redis: MovableRedis
) -> None:
    assert (await site.claimed()).set_back_ms == 0
    movable_redis.set_clock(-HOUR_S)
    set_back = [(await site.claimed()).set_back_ms for _ in range(3)]
    assert set_back == [pytest.approx(HOUR_S * 1000, abs=10_000), 0, 0]


@pytest.mark.parametrize(("passed_s", "smaller_ms"), [(1.0, 50), (2.0, 100), (3600.0, 100)])
async def test_offset_becomes_smaller_by_a_twentieth_of_the_time_since_the_last_claim(
    queue_site: QueueSite, passed_s: float, smaller_ms: int
) -> None:
    time_ms = (await queue_site.claimed()).time_ms
    kept = {"seen": str(time_ms - int(passed_s * 1000)), "offset": "3600000"}
    await queue_site.redis.hset(queue_site.keys.clock, mapping=kept)
    await queue_site.claimed()
    assert await offset_ms(queue_site) == pytest.approx(3_600_000 - smaller_ms, abs=10)


async def test_offset_ends_at_zero(queue_site: QueueSite) -> None:
    await queue_site.redis.hset(queue_site.keys.clock, mapping={"seen": "0", "offset": "99.5"})
    await queue_site.claimed()
    assert await offset_ms(queue_site) == 0


async def test_worker_holds_a_step_while_the_clock_goes_back_and_another_resumes_it_when_its_lease_ends(
    site: QueueSite, movable_redis: MovableRedis
) -> None:
    await site.enqueue()
    held = await site.one()
    movable_redis.set_clock(-HOUR_S)
    site.later(10)
    assert await site.claim() == []
    assert await site.renew(held) == "renewed"
    site.later(16)
    assert (await site.one()).claims == 2


async def test_doctor_reports_that_exports_use_a_later_time_than_redis(
    site: QueueSite, movable_redis: MovableRedis
) -> None:
    await site.claimed()
    before = [finding.says async for finding in check_redis(site.redis, site.keys, movable_redis.url)]
    movable_redis.set_clock(-100)
    await site.claimed()
    after = [finding.says async for finding in check_redis(site.redis, site.keys, movable_redis.url)]
    assert not any("was set back" in says for says in before)
    (reported,) = (says for says in after if "was set back" in says)
    assert re.search(r"(9\d|10\d) s ahead", reported)


@pytest.mark.parametrize("hold_s", [5.0, 3600.0])
async def test_lock_ends_in_time_although_the_clock_goes_back(
    site: QueueSite, movable_redis: MovableRedis, hold_s: float
) -> None:
    first, second = (TimedLock(site.redis, site.keys.sweep, owner, hold_s) for owner in ("w1", "w2"))
    assert await first.take(site.now)
    movable_redis.set_clock(-HOUR_S)
    site.later(hold_s - 1)
    assert not await second.take(site.now)
    site.later(1)
    taken = await asyncio.gather(first.take(site.now), second.take(site.now))
    assert sorted(taken) == [False, True]


async def test_lock_of_an_earlier_version_is_held_until_its_key_expires(queue_site: QueueSite) -> None:
    lock = TimedLock(queue_site.redis, queue_site.keys.sweep, "w1", 5.0)
    await queue_site.redis.set(queue_site.keys.sweep, "host-1-abc", px=100_000)
    assert not await lock.take(queue_site.now)
    await queue_site.redis.delete(queue_site.keys.sweep)
    assert await lock.take(queue_site.now)


async def test_sweep_restores_lost_entries_although_the_clock_was_set_back_during_the_last_sweep(
    site: QueueSite, movable_redis: MovableRedis
) -> None:
    export_id = await site.enqueue()
    assert await site.sweep() == []
    movable_redis.set_clock(-HOUR_S)
    await site.redis.delete(site.keys.queue("control"))
    site.later(30)
    # Not `site.sweep`, which removes the lock.
    assert await site.sweeper("w2").sweep(site.now) == [export_id]

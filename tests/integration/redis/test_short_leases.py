"""Short leases: what counts as an outage of Redis, and what is only the wait between two claims of an idle worker."""

import pytest

from export_worker.redis.claims import Timings
from export_worker.redis.record_store import SILENCE_MIN_S
from export_worker.worker.claim_loop import QUEUE_POLL_S
from support.redis_site import QueueSite


@pytest.mark.parametrize(("lease_s", "poll_s"), [(2.0, 1.0), (3.0, 1.0), (3.0, 1.6), (3.0, 2.9), (6.0, 2.9)])
async def test_idle_worker_takes_over_the_step_of_a_dead_worker(
    queue_site: QueueSite, lease_s: float, poll_s: float
) -> None:
    queue_site.timings = Timings(lease_s=lease_s)
    await queue_site.enqueue()
    await queue_site.one()
    # From now on the idle worker is the only one that claims.
    queue_site.alone = True
    waited_s = 0.0
    while not (steps := await queue_site.claim()):
        queue_site.later(poll_s)
        waited_s += poll_s
        assert waited_s <= lease_s + poll_s
    assert [step.claims for step in steps] == [2]


@pytest.mark.parametrize("lease_s", [3.0, 6.0])
async def test_leases_do_not_expire_during_an_outage_of_three_polls(queue_site: QueueSite, lease_s: float) -> None:
    queue_site.timings = Timings(lease_s=lease_s)
    await queue_site.enqueue()
    held = await queue_site.one()
    queue_site.alone = True
    queue_site.later(max(SILENCE_MIN_S, lease_s))
    assert await queue_site.claim() == []
    await queue_site.submit(held)


def test_outage_is_at_least_three_missed_polls_of_all_workers() -> None:
    assert SILENCE_MIN_S >= 3 * QUEUE_POLL_S

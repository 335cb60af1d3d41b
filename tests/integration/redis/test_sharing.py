"""Operations that exports share, as their records see them."""

import pytest

from export_worker.contract.status import Phase
from export_worker.lifecycle import endings, transitions
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.sharing import Sharing
from support.redis_site import QueueSite


async def step_of(site: QueueSite, export_id: str) -> ClaimedStep:
    """Claims all due steps, and returns that of one export."""
    return next(claimed for claimed in await site.claim() if claimed.export.export_id == export_id)


@pytest.mark.parametrize("sharers", [1, 2])
async def test_retried_export_does_not_cancel_an_operation_that_others_may_use(
    queue_site: QueueSite, sharers: int
) -> None:
    sharing = Sharing(queue_site.redis, queue_site.keys)
    leader, *_ = [await queue_site.enqueue(share=True) for _ in range(sharers)]
    await queue_site.submit(await step_of(queue_site, leader))
    await queue_site.cancel(leader)
    cancelled = await step_of(queue_site, leader)
    assert await sharing.pass_on(cancelled, queue_site.now) is (sharers > 1)
    await queue_site.commit(cancelled, endings.after_cancel(cancelled.export, queue_site.moment()))

    await queue_site.queue.retry(leader, "poll")
    queue_site.catch_up()
    restarted = await step_of(queue_site, leader)
    await queue_site.commit(restarted, transitions.restart(restarted.export, "poll", queue_site.moment()))
    await queue_site.cancel(leader)
    again = await step_of(queue_site, leader)
    assert again.export.phase is Phase.RUNNING
    assert await sharing.pass_on(again, queue_site.now)

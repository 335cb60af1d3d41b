"""An export that waits after a failed operation: it has no slot, and its cancellation and deadline end it."""

from dataclasses import replace

from export_worker.lifecycle import transitions
from export_worker.lifecycle.decisions import OperationRetry, Policy
from export_worker.lifecycle.export import Running
from export_worker.lifecycle.observations import OperationFailed
from export_worker.redis.claims import ClaimedStep, ConnectionLimits
from support.export_states import POLICY
from support.redis_site import QueueSite

RETRYING = replace(POLICY, operation_retry=OperationRetry(times=1, after_s=600.0), deadline_s=86_400.0)


async def report_error(site: QueueSite, poll: ClaimedStep, policy: Policy = RETRYING) -> None:
    """Saves that the platform has reported the operation of an export as failed."""
    state = poll.export.state
    assert isinstance(state, Running)
    decision = transitions.after_poll(
        poll.export, state, OperationFailed("ERROR", "out of memory"), site.moment(), policy
    )
    await site.commit(poll, decision)


async def test_slot_is_free_during_the_wait_and_the_export_is_submitted_again_after_it(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    failed = await queue_site.running()
    queue_site.catch_up()
    poll = await queue_site.one()
    waiting = await queue_site.enqueue()
    assert await queue_site.claim() == []
    await report_error(queue_site, poll)
    assert await queue_site.redis.zcard(queue_site.keys.slots("gio")) == 0
    assert await queue_site.ids() == [waiting]
    queue_site.later(601)
    assert failed not in await queue_site.ids()
    assert await queue_site.members(queue_site.keys.parked("gio")) == [queue_site.keys.job_id(failed, 2)]


async def test_cancellation_that_arrives_during_the_poll_or_the_wait_ends_the_export(queue_site: QueueSite) -> None:
    for cancel_first in (True, False):
        export_id = await queue_site.running()
        queue_site.catch_up()
        poll = await queue_site.one()
        if cancel_first:
            await queue_site.cancel(export_id)
            await report_error(queue_site, poll)
        else:
            await report_error(queue_site, poll)
            assert await queue_site.claim() == []
            await queue_site.cancel(export_id)
        step = await queue_site.one()
        assert (step.export.export_id, step.cancel, step.slotless) == (export_id, True, True)
        queue_site.later(1)


async def test_deadline_ends_the_export_during_the_wait(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(8, 1e6, 300.0)}
    await queue_site.running()
    queue_site.catch_up()
    await report_error(queue_site, await queue_site.one(), replace(RETRYING, deadline_s=300.0))
    queue_site.later(301)
    assert [step.slotless for step in await queue_site.claim()] == [True]

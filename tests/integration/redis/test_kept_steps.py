"""Steps that a worker keeps: the commit claims the next step, unless others would wait for it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import LeaseLostError
from export_worker.lifecycle import transitions
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.export import Running
from export_worker.lifecycle.observations import Ready, Submitted
from export_worker.redis.claims import ClaimedStep, ConnectionLimits, PlatformSignal
from export_worker.redis.kept_steps import Keep
from support.redis_site import FILE, MANY, POLICY, QueueSite

UP = PlatformSignal("up")
FREE, LAST = False, True
"""Whether the slot is the last one of the worker."""


def next_decision(site: QueueSite, claimed: ClaimedStep) -> Decision:
    """Returns the decision of a submit or a poll whose next step is due at once."""
    export, moment = claimed.export, site.moment()
    if isinstance(export.state, Running):
        return transitions.after_poll(export, export.state, Ready("FINISH", (FILE,)), moment, POLICY)
    return transitions.after_submit(export, Submitted("op1", "FINISH", done=True), moment, POLICY)


async def keep(site: QueueSite, claimed: ClaimedStep, how: Keep | bool) -> ClaimedStep | None:
    """Commits a step, and requests to keep the export for the next one."""
    request = how if isinstance(how, Keep) else Keep.now(is_last_slot=how)
    following = await site.store.commit(claimed, next_decision(site, claimed), site.now, UP, request)
    assert not isinstance(following, bytes)
    return following


async def kept(site: QueueSite, claimed: ClaimedStep, how: Keep | bool = FREE) -> ClaimedStep:
    following = await keep(site, claimed, how)
    assert following is not None
    return following


async def test_export_is_kept_from_submit_to_transfer_with_one_claim(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    poll = await kept(queue_site, await queue_site.one())
    transfer = await kept(queue_site, poll)

    assert [(poll.step, poll.role), (transfer.step, transfer.role)] == [(1, "control"), (2, "transfer")]
    assert poll.version != transfer.version
    # No other worker claims a kept step while its lease lasts.
    assert await queue_site.claim() == await queue_site.claim(role="transfer") == []
    await queue_site.succeed(await stored(queue_site, transfer))
    assert (await queue_site.queue.status(export_id)).phase is Phase.SUCCEEDED
    assert await queue_site.members(queue_site.keys.open) == []


async def stored(site: QueueSite, transfer: ClaimedStep) -> ClaimedStep:
    return await site.store.checkpoint(transfer, site.file_stored(transfer), site.now)


async def test_kept_step_of_dead_worker_is_claimed_when_its_lease_ends(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    poll = await kept(queue_site, await queue_site.one())
    queue_site.later(queue_site.timings.lease_s)

    again = await queue_site.one()

    assert (again.step, again.claims, again.deaths) == (poll.step, 2, 1)
    with pytest.raises(LeaseLostError):
        await keep(queue_site, poll, FREE)


async def test_kept_step_can_be_renewed_handed_back_and_released(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    poll = await kept(queue_site, await queue_site.one())
    assert await queue_site.renew(poll) == "renewed"
    await queue_site.store.hand_back(poll, queue_site.now)
    poll = await queue_site.one()
    assert poll.claims == 1
    transfer = await kept(queue_site, poll)
    await queue_site.store.release(transfer, queue_site.now)
    assert (await queue_site.one("transfer")).claims == 2


async def test_repeated_commit_whose_answer_was_lost_answers_that_the_step_is_kept(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    submit, how = await queue_site.one(), Keep.now(is_last_slot=False)
    first = await kept(queue_site, submit, how)
    again = await kept(queue_site, submit, how)
    assert replace(again, since_s=0.0) == replace(first, since_s=0.0)


async def cancelled(site: QueueSite, claimed: ClaimedStep) -> None:
    await site.cancel(claimed.export.export_id)


async def rate_in_use(site: QueueSite, _: ClaimedStep) -> None:
    await site.redis.set(site.keys.rate("gio"), site.now_ms + 600)


async def failing_polls(site: QueueSite, _: ClaimedStep) -> None:
    await site.redis.hset(site.keys.breaker("gio", "poll"), "failures", 1)


async def offered(site: QueueSite, _: ClaimedStep) -> None:
    await site.redis.zadd(site.keys.aside("control"), {"other": site.now_ms + 1000})


async def due(site: QueueSite, _: ClaimedStep) -> None:
    await site.enqueue("other")


Hinder = Callable[[QueueSite, ClaimedStep], Awaitable[None]]


@pytest.mark.parametrize(
    ("hinder", "how"),
    [(cancelled, FREE), (rate_in_use, FREE), (failing_polls, FREE), (offered, LAST), (due, LAST)],
    ids=["cancelled", "rate", "failing calls", "offered entry", "due entry"],
)
async def test_poll_is_not_kept_if_another_would_wait(queue_site: QueueSite, hinder: Hinder, how: Keep | bool) -> None:
    queue_site.limits = {"gio": MANY, "other": MANY}
    await queue_site.enqueue()
    submit = await queue_site.one()
    await hinder(queue_site, submit)

    assert await keep(queue_site, submit, how) is None
    export_id = submit.export.export_id
    assert await queue_site.due_ms(export_id, 1) == queue_site.now_ms
    assert "claims" not in await queue_site.record(export_id)


@pytest.mark.parametrize("hinder", [offered, due])
async def test_poll_is_kept_although_others_are_due_if_a_slot_is_free_for_them(
    queue_site: QueueSite, hinder: Hinder
) -> None:
    await queue_site.enqueue()
    submit = await queue_site.one()
    await hinder(queue_site, submit)
    await kept(queue_site, submit, FREE)


async def test_transfer_does_not_take_the_last_slot_while_a_transfer_waits_for_its_turn(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": MANY, "other": MANY}
    await queue_site.transferring("other")
    # Without a free slot, the claim moves the entry into the row of its connection.
    await queue_site.claim(0, "transfer")
    await queue_site.running("gio")
    poll = await queue_site.one()
    assert await queue_site.members(queue_site.keys.ring) == ["other"]

    assert await keep(queue_site, poll, LAST) is None
    first, second = await queue_site.claim(1, "transfer"), await queue_site.claim(1, "transfer")
    assert [step.export.request.connection for step in (*first, *second)] == ["other", "gio"]


async def test_each_kept_step_counts_one_request(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(10, 10.0)}
    await queue_site.enqueue()
    submit = await queue_site.one()
    poll = await kept(queue_site, submit)
    transfer = await kept(queue_site, poll)
    assert transfer.kept
    rate = float(await queue_site.redis.get(queue_site.keys.rate("gio")))
    assert rate - queue_site.now_ms == pytest.approx(300, abs=1)


async def test_slot_of_connection_is_free_for_parked_export_when_transfer_is_kept(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    first, second = await queue_site.enqueue(), await queue_site.enqueue()
    poll = await kept(queue_site, await queue_site.one())
    assert await queue_site.ids() == []
    assert (await kept(queue_site, poll)).export.export_id == first
    assert await queue_site.ids() == [second]

"""The order in which exports of one connection get a slot or a transfer worker: priorities, and turns of requesters."""

import asyncio
from typing import Any

import pytest

from export_worker.contract.redis_keys import Role
from export_worker.lifecycle import endings
from export_worker.redis.claims import ClaimedStep, ConnectionLimits
from support.redis_site import MANY, QueueSite, request_of

ONE_SLOT = {"gio": ConnectionLimits(1, 1e6)}


async def enqueue(site: QueueSite, requester: str, count: int = 1, **more: Any) -> list[str]:
    """Enqueues exports of one requester, and returns their ids."""
    ids = []
    for _ in range(count):
        ids.append((await site.queue.enqueue(request_of(**more), requested_by=requester)).export_id)
        await asyncio.sleep(0.001)  # so that the next one is due later
    site.catch_up()
    return ids


async def end(site: QueueSite, claimed: ClaimedStep) -> None:
    """Ends an export, which frees its slot."""
    await site.commit(claimed, endings.after_cancel(claimed.export, site.moment()))


async def served(site: QueueSite, count: int) -> list[str]:
    """Returns which exports get the only slot of the connection, one after the other."""
    found = []
    for _ in range(count):
        claimed = await site.one()
        found.append(claimed.export.export_id)
        await end(site, claimed)
    return found


async def test_slots_go_to_priorities_first_and_then_in_turns_of_requesters(queue_site: QueueSite) -> None:
    queue_site.limits = ONE_SLOT
    await enqueue(queue_site, "other")
    holder = await queue_site.one()
    low = await enqueue(queue_site, "crm", 2, priority="low")
    first = await enqueue(queue_site, "night", 4)
    second = await enqueue(queue_site, "crm", 2)
    high = await enqueue(queue_site, "night", 1, priority="high")
    assert await queue_site.claim() == []  # all are parked now
    await end(queue_site, holder)

    order = await served(queue_site, 9)
    assert [order[0], order[7:]] == [high[0], low]
    assert {order[1], order[2]} == {first[0], second[0]}
    assert {order[3], order[4]} == {first[1], second[1]}
    assert order[5:7] == first[2:]


async def test_requester_that_comes_later_is_next_however_many_exports_another_one_has(queue_site: QueueSite) -> None:
    queue_site.limits = ONE_SLOT
    many = await enqueue(queue_site, "night", 20)
    assert await served(queue_site, 5) == many[:5]
    (late,) = await enqueue(queue_site, "crm")
    await served(queue_site, 1)  # was due before: a slot was free for it
    assert late in await served(queue_site, 2)
    assert await served(queue_site, 13) == many[7:20] or await queue_site.claim() == []


async def test_export_that_returns_to_its_row_keeps_its_turn(queue_site: QueueSite) -> None:
    queue_site.limits = ONE_SLOT
    holder, *waiting = await enqueue(queue_site, "night", 4)
    claimed = await queue_site.one()
    assert claimed.export.export_id == holder
    keys = queue_site.keys
    turns = keys.turns(keys.parked_row("gio"))
    before = await queue_site.redis.zrange(turns, 0, -1, withscores=True)
    queue_site.later(60)
    await queue_site.renew(claimed)
    assert await queue_site.sweep() == []  # the sweep enqueues what is parked: a slot may be free
    assert await queue_site.claim() == []
    assert await queue_site.redis.zrange(turns, 0, -1, withscores=True) == before
    await end(queue_site, claimed)
    assert await served(queue_site, 3) == waiting


async def test_row_forgets_requesters_when_there_are_too_many_or_the_row_is_empty(queue_site: QueueSite) -> None:
    queue_site.limits = ONE_SLOT
    await enqueue(queue_site, "night")
    claimed = await queue_site.one()
    (second,) = await enqueue(queue_site, "night")
    keys = queue_site.keys
    shares, turns = f"{keys.prefix}shares:parked:gio", keys.turns(keys.parked_row("gio"))
    await queue_site.redis.hset(shares, mapping={"2": 7, **{f"2:{number}": 9 for number in range(2000)}})
    assert await queue_site.claim() == []
    assert await queue_site.redis.hgetall(shares) == {b"0": b"0", b"1": b"0", b"2": b"7", b"3": b"0", b"2:night": b"7"}
    assert all([0 < await queue_site.redis.pttl(key) <= 86_400_000 for key in (shares, turns)])
    await end(queue_site, claimed)
    assert await queue_site.ids() == [second]
    assert await queue_site.redis.exists(shares, turns) == 0


async def test_exports_that_an_earlier_version_has_parked_are_served_too(queue_site: QueueSite) -> None:
    queue_site.limits = ONE_SLOT
    _, *waiting = await enqueue(queue_site, "night", 3)
    claimed = await queue_site.one()
    assert await queue_site.claim() == []
    keys = queue_site.keys
    await queue_site.redis.delete(keys.turns(keys.parked_row("gio")))
    await end(queue_site, claimed)
    assert await served(queue_site, 2) == waiting
    assert await queue_site.redis.keys(f"{keys.prefix}*:parked:gio") == []


async def test_due_steps_are_claimed_by_priority_and_turns_when_there_is_room_for_some(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": MANY}
    low = await enqueue(queue_site, "crm", 1, priority="low")
    many = await enqueue(queue_site, "night", 3)
    one = await enqueue(queue_site, "crm")
    high = await enqueue(queue_site, "night", 1, priority="high")
    assert await queue_site.ids(1) == high
    assert sorted(await queue_site.ids(2)) == sorted([many[0], *one])
    assert await queue_site.ids(2) == many[1:]
    assert await queue_site.ids(2) == low


async def test_due_steps_of_every_requester_are_claimed_soon_when_one_step_is_claimed_at_a_time(
    queue_site: QueueSite,
) -> None:
    queue_site.limits = {"gio": MANY}
    many = await enqueue(queue_site, "night", 40)
    (late,) = await enqueue(queue_site, "crm")
    order = [export_id for _ in range(41) for export_id in await queue_site.ids(1)]
    assert sorted(order) == sorted([*many, late])
    assert order.index(late) < 40  # by chance: it is the last one once in 2 ** 40 runs


async def test_transfers_wait_by_priority_too_and_begun_ones_are_first(queue_site: QueueSite) -> None:
    begun, normal, high = [
        await transferring(queue_site, requester, priority)
        for requester, priority in (("night", "low"), ("night", "normal"), ("crm", "high"))
    ]
    (first,) = await queue_site.claim(1, "transfer")
    (second,) = await queue_site.claim(1, "transfer")
    (third,) = await queue_site.claim(1, "transfer")
    assert [each.export.export_id for each in (first, second, third)] == [high, normal, begun]
    again = await transferring(queue_site, "crm", "high")
    await queue_site.store.release(third, queue_site.now)
    assert [await queue_site.ids(1, "transfer") for _ in range(2)] == [[begun], [again]]


async def transferring(site: QueueSite, requester: str, priority: str) -> str:
    (export_id,) = await enqueue(site, requester, priority=priority)
    await site.submit(await site.one())
    await site.ready(await site.one())
    return export_id


async def test_explanation_says_the_order(queue_site: QueueSite) -> None:
    queue_site.limits = ONE_SLOT
    await enqueue(queue_site, "night", 3)
    (low,) = await enqueue(queue_site, "crm", priority="low")
    await queue_site.one()
    assert await queue_site.claim() == []
    assert await queue_site.queue.explain(low) == (
        "Waiting for a free slot of connection gio (max_in_flight). Exports ahead of it: 2. "
        "Exports running on the platform: 1. Its priority is low. Exports with a higher one are first. "
        "Within a priority, those who request exports take turns."
    )


@pytest.mark.parametrize("role", ["control", "transfer"])
async def test_damaged_priority_counts_as_normal(queue_site: QueueSite, role: Role) -> None:
    queue_site.limits = ONE_SLOT
    (export_id,) = (
        await enqueue(queue_site, "night") if role == "control" else [await transferring(queue_site, "a", "low")]
    )
    await queue_site.redis.hset(queue_site.keys.export(export_id), "priority", "begun\x00")
    assert await queue_site.ids(role=role) == [export_id]

"""Claims of a worker that has no free slot, and of one that keeps a slot free for other connections."""

import pytest

from export_worker.contract.redis_keys import Role
from export_worker.redis.claims import ClaimRoom, ConnectionLimits
from support.redis_site import MANY, QueueSite, ids_of

FULL = ClaimRoom(steps=0, slotless=8, search=100)
"""All slots of the worker are in use."""


async def claimed_when_full(site: QueueSite, role: Role = "control", room: ClaimRoom = FULL) -> list[str]:
    return ids_of((await site.claimed_in(room, role)).steps)


async def in_transfer(site: QueueSite, deadline_s: float, connection: str = "gio") -> str:
    """Returns an export whose transfer is due and waits for a slot. Nothing else may be due in the control queue."""
    export_id = await site.enqueue(connection, deadline_s=deadline_s)
    await site.submit(await site.one())
    await site.ready(await site.one())
    return export_id


async def test_full_worker_claims_only_the_exports_past_their_deadline(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    late = await queue_site.enqueue(deadline_s=5.0)
    await queue_site.enqueue()
    assert await claimed_when_full(queue_site) == []
    queue_site.later(6)
    assert await claimed_when_full(queue_site) == [late]
    assert len(await queue_site.claim()) == 2


async def test_full_worker_ends_a_transfer_that_waits_in_the_row_of_its_connection(queue_site: QueueSite) -> None:
    await in_transfer(queue_site, 3600.0)
    late = await in_transfer(queue_site, 15.0)
    assert await claimed_when_full(queue_site, "transfer") == []
    assert len(await queue_site.members(queue_site.keys.waiting("gio"))) == 2
    queue_site.later(15.1)
    assert await claimed_when_full(queue_site, "transfer") == [late]
    assert await claimed_when_full(queue_site, "transfer") == []


async def test_full_worker_ends_a_parked_export_at_its_deadline(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    await queue_site.enqueue()
    await queue_site.one()
    late = await queue_site.enqueue(deadline_s=15.0)
    assert await queue_site.claim() == []
    assert len(await queue_site.members(queue_site.keys.parked("gio"))) == 1
    queue_site.later(14)
    assert await claimed_when_full(queue_site) == []
    queue_site.later(1.1)
    assert await claimed_when_full(queue_site) == [late]


async def test_full_worker_ends_a_cancelled_export(queue_site: QueueSite) -> None:
    first = await in_transfer(queue_site, 3600.0)
    assert await claimed_when_full(queue_site, "transfer") == []
    await queue_site.cancel(first)
    (claimed,) = (await queue_site.claimed_in(FULL, "transfer")).steps
    assert (claimed.export.export_id, claimed.cancel, claimed.slotless) == (first, True, True)


async def test_claimed_steps_leave_no_deadline_behind(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    await queue_site.enqueue()
    held = await queue_site.one()
    await queue_site.enqueue()
    assert await queue_site.claim() == []
    assert len(await queue_site.members(queue_site.keys.deadlines("control"))) == 1
    await queue_site.submit(held)
    await queue_site.ready(await queue_site.one())
    await queue_site.one()
    assert await queue_site.members(queue_site.keys.deadlines("control")) == []


async def test_no_more_slotless_steps_are_claimed_than_there_is_room_for(queue_site: QueueSite) -> None:
    late = [await queue_site.enqueue(deadline_s=1.0) for _ in range(5)]
    queue_site.later(2)
    two = ClaimRoom(steps=3, slotless=2, search=100)
    assert await claimed_when_full(queue_site, room=two) == late[:2]
    next_one = await queue_site.enqueue()
    assert await claimed_when_full(queue_site, room=ClaimRoom(steps=3, slotless=0, search=100)) == [next_one]
    assert await claimed_when_full(queue_site, room=two) == late[2:4]
    assert await claimed_when_full(queue_site, room=two) == late[4:]


async def test_search_finds_an_expired_export_behind_many_others(queue_site: QueueSite) -> None:
    for _ in range(30):
        await queue_site.enqueue()
    late = await queue_site.enqueue(deadline_s=1.0)
    queue_site.later(2)
    found: list[str] = []
    for _ in range(200):
        found = found or await claimed_when_full(queue_site, room=ClaimRoom(steps=0, slotless=8, search=10))
    assert found == [late]


@pytest.mark.parametrize("free", [1, 2])
async def test_connection_gets_no_more_slots_than_it_may_have(queue_site: QueueSite, free: int) -> None:
    queue_site.limits = {"gio": MANY, "other": MANY}
    for _ in range(4):
        await in_transfer(queue_site, 3600.0)
    three = ClaimRoom(steps=1 + free, slotless=8, running={"gio": 3 - free}, per_connection=3)
    first = (await queue_site.claimed_in(three, "transfer")).steps
    assert len(first) == free
    full = ClaimRoom(steps=1, slotless=8, running={"gio": 3}, per_connection=3)
    assert await claimed_when_full(queue_site, "transfer", full) == []
    other = await in_transfer(queue_site, 3600.0, "other")
    assert await claimed_when_full(queue_site, "transfer", full) == [other]

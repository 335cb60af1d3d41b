"""What a worker can do nothing for is offered to the others at once, and later to anybody again."""

import pytest

from export_worker.contract.redis_keys import Role
from export_worker.redis.record_store import OFFERED_TO_OTHERS_S
from support.redis_site import MANY, QueueSite, ids_of, notices


def of_worker(site: QueueSite, owner: str, *connections: str) -> None:
    """Whoever claims from now on."""
    site.owner, site.limits = owner, dict.fromkeys(connections, MANY)


@pytest.fixture
async def strange(queue_site: QueueSite) -> str:
    """An export whose connection w1 does not know."""
    export_id = await queue_site.enqueue("other")
    assert await queue_site.claim() == []
    return export_id


async def test_who_knows_the_connection_has_it_at_once(queue_site: QueueSite, strange: str) -> None:
    of_worker(queue_site, "w2", "gio", "other")
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.claims) == (strange, 1)
    await queue_site.submit(claimed)
    assert "refused" not in await queue_site.record(strange)
    assert await queue_site.members(queue_site.keys.aside("control")) == []


async def test_others_are_told(queue_site: QueueSite) -> None:
    await queue_site.enqueue("other")
    async with notices(queue_site) as heard:
        assert await queue_site.claim() == []
        assert await queue_site.claim() == []
    assert len(heard) == 1, "once, and not those who have seen it"


async def test_it_is_anybody_s_when_none_of_the_others_took_it(queue_site: QueueSite, strange: str) -> None:
    of_worker(queue_site, "w2", "gio")
    assert await queue_site.claim() == []
    queue_site.later(OFFERED_TO_OTHERS_S - 0.1)
    assert await queue_site.claim() == []
    queue_site.later(0.2)
    assert (await queue_site.one()).export.export_id == strange


async def test_the_next_due_moment_is_told(queue_site: QueueSite, strange: str) -> None:
    assert strange
    assert (await queue_site.claimed()).next_due_ms == queue_site.now_ms + OFFERED_TO_OTHERS_S * 1000


@pytest.mark.parametrize("role", ["control", "transfer"])
async def test_the_sweep_finds_nothing_lost(queue_site: QueueSite, role: Role) -> None:
    export_id = await (queue_site.enqueue() if role == "control" else queue_site.transferring())
    queue_site.limits = {}
    assert await queue_site.claim(role=role) == []
    queue_site.later(OFFERED_TO_OTHERS_S - 1)
    assert await queue_site.sweep() == []
    of_worker(queue_site, "w2", "gio")
    assert await queue_site.ids(role=role) == [export_id]


async def test_nothing_is_lost_while_nobody_has_room_for_it(queue_site: QueueSite, strange: str) -> None:
    queue_site.later(90)
    assert await queue_site.claim(0) == []
    assert await queue_site.sweep() == []
    assert await queue_site.notes(strange) == ["accepted"]
    assert await queue_site.ids() == [strange]


async def test_a_cancel_needs_nobody_who_knows_it(queue_site: QueueSite, strange: str) -> None:
    await queue_site.cancel(strange)
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.cancel) == (strange, True)
    queue_site.later(OFFERED_TO_OTHERS_S)
    assert await queue_site.claim() == [], "whoever has it has it alone"


async def test_what_cannot_be_read_goes_to_each_of_the_others_once(queue_site: QueueSite) -> None:
    odd = await queue_site.enqueue()
    key = queue_site.keys.export(odd)
    kept = await queue_site.redis.hget(key, "request")
    await queue_site.redis.hset(key, "request", '{"of": "tomorrow"}')
    for owner in ("w1", "w2", "w1", "w2"):
        of_worker(queue_site, owner, "gio")
        assert await queue_site.claim() == []
    assert (await queue_site.record(odd))["refused"] == "|w1||w2|"
    await queue_site.redis.hset(key, "request", kept)
    of_worker(queue_site, "w3", "gio")
    assert await queue_site.ids() == [odd]


async def test_an_export_that_waits_so_is_explained(queue_site: QueueSite, strange: str) -> None:
    said = await queue_site.queue.explain(strange)
    assert said.startswith("The last worker that claimed it does not know connection other, or runs an older version.")


async def test_a_step_that_was_never_begun_is_given_back_as_it_was(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    async with notices(queue_site) as heard:
        await queue_site.store.hand_back(await queue_site.one(), queue_site.now)
    assert len(heard) == 1
    assert await queue_site.members(queue_site.keys.slots("gio")) == []
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.claims) == (export_id, 1)
    assert await queue_site.notes(export_id) == ["accepted"]


async def test_one_that_others_had_begun_still_counts_them(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.claim()
    queue_site.later(15)
    await queue_site.store.hand_back(await queue_site.one(), queue_site.now)
    (claimed,) = await queue_site.claim()
    assert (claimed.claims, ids_of([claimed])) == (2, [claimed.export.export_id])


async def test_what_stands_in_the_queue_too_is_not_taken_from_its_holder(queue_site: QueueSite, strange: str) -> None:
    """As a producer leaves it that is of a version before this: its cancel knows the queue alone."""
    site, job_id = queue_site, queue_site.keys.job_id(strange, 0)
    await site.redis.hset(site.keys.export(strange), "cancel", site.now_ms)
    await site.redis.zadd(site.keys.queue("control"), {job_id: site.now_ms})
    claimed = await site.one()
    of_worker(site, "w2", "gio", "other")
    assert await site.claim() == []
    assert await site.members(site.keys.aside("control")) == []
    assert await site.store.renew(claimed, site.now) == "cancel"

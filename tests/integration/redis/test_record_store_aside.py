"""A step that a worker cannot run is offered to other workers at once, and after a while to every worker again."""

import pytest

from export_worker.contract.redis_keys import Role
from export_worker.redis.record_store import OFFERED_TO_OTHERS_S
from support.redis_site import MANY, QueueSite, ids_of, notices


def of_worker(site: QueueSite, owner: str, *connections: str) -> None:
    """Sets the worker that claims from now on."""
    site.owner, site.limits = owner, dict.fromkeys(connections, MANY)


@pytest.fixture
async def offered(queue_site: QueueSite) -> str:
    """An export whose connection w1 does not know."""
    export_id = await queue_site.enqueue("other")
    assert await queue_site.claim() == []
    return export_id


async def test_worker_that_knows_the_connection_claims_the_offered_step_at_once(
    queue_site: QueueSite, offered: str
) -> None:
    of_worker(queue_site, "w2", "gio", "other")
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.claims) == (offered, 1)
    await queue_site.submit(claimed)
    assert "refused" not in await queue_site.record(offered)
    assert await queue_site.members(queue_site.keys.aside("control")) == []


async def test_offered_step_wakes_other_workers_once(queue_site: QueueSite) -> None:
    await queue_site.enqueue("other")
    async with notices(queue_site) as received:
        assert await queue_site.claim() == []
        assert await queue_site.claim() == []
    assert len(received) == 1, "the second claim of the same worker wakes no other"


async def test_every_worker_may_claim_the_step_after_the_offer_expires(queue_site: QueueSite, offered: str) -> None:
    of_worker(queue_site, "w2", "gio")
    assert await queue_site.claim() == []
    queue_site.later(OFFERED_TO_OTHERS_S - 0.1)
    assert await queue_site.claim() == []
    queue_site.later(0.2)
    assert (await queue_site.one()).export.export_id == offered


async def test_claim_returns_when_the_offer_expires_as_the_next_due_time(queue_site: QueueSite, offered: str) -> None:
    assert offered
    assert (await queue_site.claimed()).next_due_ms == queue_site.now_ms + OFFERED_TO_OTHERS_S * 1000


@pytest.mark.parametrize("role", ["control", "transfer"])
async def test_sweep_does_not_requeue_an_offered_step(queue_site: QueueSite, role: Role) -> None:
    export_id = await (queue_site.enqueue() if role == "control" else queue_site.transferring())
    queue_site.limits = {}
    assert await queue_site.claim(role=role) == []
    queue_site.later(OFFERED_TO_OTHERS_S - 1)
    assert await queue_site.sweep() == []
    of_worker(queue_site, "w2", "gio")
    assert await queue_site.ids(role=role) == [export_id]


async def test_offered_step_is_kept_while_no_worker_has_capacity(queue_site: QueueSite, offered: str) -> None:
    queue_site.later(90)
    assert await queue_site.claim(0) == []
    assert await queue_site.sweep() == []
    assert await queue_site.notes(offered) == ["accepted"]
    assert await queue_site.ids() == [offered]


async def test_any_worker_may_cancel_an_export_of_an_unknown_connection(queue_site: QueueSite, offered: str) -> None:
    await queue_site.cancel(offered)
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.cancel) == (offered, True)
    queue_site.later(OFFERED_TO_OTHERS_S)
    assert await queue_site.claim() == [], "only one worker holds the step"


async def test_unreadable_step_is_offered_to_each_other_worker_once(queue_site: QueueSite) -> None:
    odd = await queue_site.enqueue()
    key = queue_site.keys.export(odd)
    request = await queue_site.redis.hget(key, "request")
    await queue_site.redis.hset(key, "request", '{"of": "tomorrow"}')
    for owner in ("w1", "w2", "w1", "w2"):
        of_worker(queue_site, owner, "gio")
        assert await queue_site.claim() == []
    assert (await queue_site.record(odd))["refused"] == "|w1||w2|"
    await queue_site.redis.hset(key, "request", request)
    of_worker(queue_site, "w3", "gio")
    assert await queue_site.ids() == [odd]


async def test_explain_names_the_unknown_connection_of_an_offered_step(queue_site: QueueSite, offered: str) -> None:
    sentence = await queue_site.queue.explain(offered)
    assert sentence.startswith(
        "The last worker that claimed this export does not know connection other, runs an older version, "
        "or cannot use its store."
    )


async def test_handed_back_step_is_claimed_as_if_for_the_first_time(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    async with notices(queue_site) as received:
        await queue_site.store.hand_back(await queue_site.one(), queue_site.now)
    assert len(received) == 1
    assert await queue_site.members(queue_site.keys.slots("gio")) == []
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.claims) == (export_id, 1)
    assert await queue_site.notes(export_id) == ["accepted"]


async def test_handed_back_step_keeps_the_count_of_earlier_claims(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.claim()
    queue_site.later(15)
    await queue_site.store.hand_back(await queue_site.one(), queue_site.now)
    (claimed,) = await queue_site.claim()
    assert (claimed.claims, ids_of([claimed])) == (2, [claimed.export.export_id])


async def test_offered_step_that_is_in_the_queue_as_well_is_not_claimed_twice(
    queue_site: QueueSite, offered: str
) -> None:
    """An older producer leaves the step so: its cancel adds it to the queue and does not end the offer."""
    site, job_id = queue_site, queue_site.keys.job_id(offered, 0)
    await site.redis.hset(site.keys.export(offered), "cancel", site.now_ms)
    await site.redis.zadd(site.keys.queue("control"), {job_id: site.now_ms})
    claimed = await site.one()
    of_worker(site, "w2", "gio", "other")
    assert await site.claim() == []
    assert await site.members(site.keys.aside("control")) == []
    assert await site.renew(claimed) == "cancel_requested"

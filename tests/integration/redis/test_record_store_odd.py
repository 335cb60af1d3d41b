"""Damaged records, and records of another version: other exports are not affected, and the records are not lost."""

import pytest

from export_worker.redis.claims import ConnectionLimits
from export_worker.redis.record_store import OFFERED_TO_OTHERS_S
from support.redis_site import QueueSite


@pytest.mark.parametrize("request_", ['{"deadline_s": null}', '{"deadline_s": "1"}', '{"deadline_s', '["deadline_s"]'])
async def test_claim_takes_other_exports_beside_a_malformed_request(queue_site: QueueSite, request_: str) -> None:
    odd = await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(odd), "request", request_)
    good = await queue_site.enqueue()
    assert await queue_site.ids() == [good]


@pytest.mark.parametrize("field", ["request", "status", "state", "trace"])
async def test_claim_takes_other_exports_beside_a_record_that_is_not_utf_8(queue_site: QueueSite, field: str) -> None:
    damaged, good = await queue_site.enqueue(), await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(damaged), field, b'{"a": "\xff\xfe"}')
    # A trace that cannot be read is no reason to refuse its export.
    assert await queue_site.ids() == ([damaged, good] if field == "trace" else [good])


async def test_claim_postpones_a_record_on_which_the_script_fails_and_takes_the_others(queue_site: QueueSite) -> None:
    odd, good = await queue_site.enqueue(), await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(odd), "claims", "many")
    assert await queue_site.ids() == [good]
    queue_site.later(10)
    assert await queue_site.ids() == [], "the damaged entry is postponed"


async def test_unreadable_record_is_handed_back_unchanged_for_other_workers(queue_site: QueueSite) -> None:
    """The record is of a newer producer or worker. Another export uses the slot meanwhile."""
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    odd, good = await queue_site.enqueue(), await queue_site.enqueue()
    key = queue_site.keys.export(odd)
    kept = await queue_site.redis.hget(key, "request")
    await queue_site.redis.hset(key, "request", '{"connection": "gio", "of": "tomorrow"}')
    for _ in range(3):
        assert odd not in await queue_site.ids()
        queue_site.later(OFFERED_TO_OTHERS_S)
    assert await queue_site.redis.hget(key, "claims") is None
    assert await queue_site.notes(odd) == ["accepted"]
    await queue_site.redis.hset(key, "request", kept)
    await queue_site.redis.delete(queue_site.keys.export(good), queue_site.keys.slots("gio"))
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.claims) == (odd, 1), "no worker may assume that it was submitted"


async def test_unreadable_record_holds_no_slot(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    odd = await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(odd), "request", "{}")
    assert await queue_site.ids() == []
    good = await queue_site.enqueue()
    assert await queue_site.ids() == [good]

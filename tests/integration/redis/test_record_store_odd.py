"""Records that are not as they should be, or of another version: they harm nobody else, and are not lost."""

import pytest

from export_worker.redis.claims import ConnectionLimits
from export_worker.redis.record_store import OFFERED_TO_OTHERS_S
from support.redis_site import QueueSite


@pytest.mark.parametrize("request_", ['{"deadline_s": null}', '{"deadline_s": "1"}', '{"deadline_s', '["deadline_s"]'])
async def test_an_odd_request_stops_no_other(queue_site: QueueSite, request_: str) -> None:
    odd = await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(odd), "request", request_)
    good = await queue_site.enqueue()
    assert await queue_site.ids() == [good]


async def test_a_script_that_fails_on_one_record_takes_the_others(queue_site: QueueSite) -> None:
    odd, good = await queue_site.enqueue(), await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(odd), "claims", "many")
    assert await queue_site.ids() == [good]
    queue_site.later(10)
    assert await queue_site.ids() == [], "it is put off"


async def test_what_this_version_cannot_read_is_left_to_others_as_it_was(queue_site: QueueSite) -> None:
    """A newer producer's request, or a newer worker's state; other exports have the slot meanwhile."""
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
    assert (claimed.export.export_id, claimed.claims) == (odd, 1), "nobody may think that it was submitted"


async def test_it_holds_no_slot(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(1, 1e6)}
    odd = await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(odd), "request", "{}")
    assert await queue_site.ids() == []
    good = await queue_site.enqueue()
    assert await queue_site.ids() == [good]

"""Damaged records in Redis: one of them takes no page down, and the others are shown."""

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis
from pydantic import ValidationError

from export_producers.bulk.runs import Bulks
from export_worker.contract.slowness import in_seconds
from export_worker.contract.status import Phase
from support.console_world import CONNECTION, SINK, TRIGGER, World, fill
from support.earlier_records import remove_event, store_as_earlier
from support.gateway_site import GatewaySite, open_gateway

GARBAGE = b"\xff{"
PAGES = (
    "/console/",
    "/console/exports",
    "/console/failures?since=24h",
    "/console/events?state=given_up",
    "/console/events?state=pending",
    "/console/triggers",
    "/console/connections",
    f"/console/connections/{CONNECTION}",
    "/console/workers",
    "/console/activity",
    "/console/new",
    "/v1/overview",
    "/v1/stats",
    "/v1/connections",
    "/v1/exports?limit=50",
)


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace, connections=(CONNECTION, "ta")) as gateway:
        yield gateway


async def damage(console: GatewaySite, world: World, value: bytes) -> None:
    """Replaces values that the pages read by one value, in records of every kind."""
    redis, keys = console.site.redis, console.site.keys
    failed, running = world.exports[Phase.FAILED], world.exports[Phase.RUNNING]
    await redis.hset(keys.pauses, mapping={"ta": value, CONNECTION: value})
    await redis.hset(keys.limits, CONNECTION, value)
    await redis.hset(keys.breaker(CONNECTION), mapping={"until": value, "pauses": value})
    await redis.lpush(keys.durations(CONNECTION, "growingio.tag_users"), value)
    await redis.lpush(keys.delivered(SINK), value)
    for prefix in (keys.hour("x", console.site.now), keys.recent("x", console.site.now)):
        hours = await redis.keys(prefix.replace(":x:", f":{CONNECTION}:").rpartition(":")[0] + ":*")
        for hour in hours:
            await redis.hset(hour, mapping=dict.fromkeys(await redis.hkeys(hour), value))
    await store_as_earlier(console.site, failed)
    await redis.hset(keys.export(failed), mapping={"request": value, "step": value})
    await redis.hset(keys.export(running), "status", value)
    await redis.rpush(keys.timeline(failed), value)
    for stored in (keys.undelivered(SINK), keys.refusals(SINK), keys.answers(SINK)):
        await redis.hset(stored, mapping=dict.fromkeys(await redis.hkeys(stored), value))
    await redis.hset(keys.triggers, TRIGGER, value)
    await redis.set(keys.worker("w1"), value)


@pytest.mark.parametrize("value", [GARBAGE, b"{}", b"-1", b"9" * 400, b"[]"])
async def test_damaged_record_takes_no_page_down(console: GatewaySite, value: bytes) -> None:
    world = await fill(console.site, "text")
    await damage(console, world, value)
    failed = world.exports[Phase.FAILED]
    one = f"/console/exports/{failed}", f"/v1/exports/{failed}/timeline", f"/v1/exports/{failed}/explain"
    for path in (*PAGES, *one, f"/v1/exports/{failed}/deliveries"):
        response = await console.call("GET", path)
        assert response.status == 200, (path, response.body)
    listed = (await console.call("GET", "/v1/exports")).json["exports"]
    assert {each["export_id"] for each in listed} == set(world.exports.values()) - {world.exports[Phase.RUNNING]}
    assert "All is well" not in (await console.call("GET", "/console/")).body.decode()


async def test_failed_export_whose_status_is_damaged_is_left_out(console: GatewaySite) -> None:
    world = await fill(console.site, "text")
    await store_as_earlier(console.site, world.exports[Phase.FAILED])
    await console.site.redis.hset(console.site.keys.export(world.exports[Phase.FAILED]), "status", GARBAGE)
    for path in ("/console/failures", "/v1/failures", "/v1/exports?phase=failed"):
        assert (await console.call("GET", path)).status == 200, path


async def test_bulk_run_of_another_version_stays_free_for_a_gateway_of_that_version(console: GatewaySite) -> None:
    storage, bulk_id = console.site.queue.storage, "f" * 32
    stored = {"order": '{"action":"dance"}', "progress": "{}"}
    await console.site.redis.hset(storage.keys.bulk(bulk_id), mapping=stored)
    with pytest.raises(ValidationError):
        await Bulks(storage, "g1").claim(bulk_id)
    left = await console.site.redis.hgetall(storage.keys.bulk(bulk_id))
    assert {name.decode(): value.decode() for name, value in left.items()} == stored


async def test_page_of_the_only_damaged_record_states_its_own_error(console: GatewaySite) -> None:
    world, site = await fill(console.site, "text"), console.site
    await site.redis.hset(site.keys.bulk(world.bulk_id), "order", GARBAGE)
    await remove_event(site, world.event_id)
    await site.redis.set(site.keys.event(world.event_id), GARBAGE)
    delivered = await console.call("POST", f"/v1/events/{world.event_id}/deliver")
    assert (delivered.status, delivered.json["code"]) == (502, "unreadable_record")
    for path in (f"bulk/{world.bulk_id}", f"events/{world.event_id}"):
        answer = await console.call("GET", f"/v1/{path}")
        assert (answer.status, answer.json["code"]) == (502, "unreadable_record")
        page = await console.call("GET", f"/console/{path}")
        assert (page.status, b"unreadable_record" in page.body) == (502, True)


def test_damaged_duration_is_left_out() -> None:
    """A worker reads the durations of a kind with each claim."""
    assert in_seconds([b"1500", b"", GARBAGE, b"-1", b"9" * 400, "2000", 62_000]) == [1.5, 2.0, 62.0]

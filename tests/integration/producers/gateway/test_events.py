"""`/v1/events`: which events sinks have not taken, and deliveries on request."""

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis

from export_worker.redis.outbox import Outbox
from support.gateway_site import GatewaySite, open_gateway


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as opened:
        await opened.site.redis.hset(opened.site.keys.sinks, mapping={"stream": "redis-stream", "hook": "webhook"})
        yield opened


async def test_refused_event_is_pending_with_its_answer_until_it_is_taken(gateway: GatewaySite) -> None:
    site = gateway.site
    export_id = await site.ended()
    outbox = Outbox(site.redis, site.keys)
    (taken,) = await outbox.take("stream", site.now)
    await outbox.postpone("stream", taken, site.now, 60, "HTTP 503")
    found = (await gateway.call("GET", "/v1/events?sink=stream")).json
    (pending,) = found["deliveries"]
    assert found["total"] == 1
    assert (pending["event_id"], pending["sink"], pending["state"]) == (f"{export_id}.1", "stream", "pending")
    assert (pending["failures"], pending["answer"]) == (1, "HTTP 503")
    assert pending["refused_since"] is not None
    assert (await gateway.call("GET", "/v1/events?state=given_up")).json == {"deliveries": [], "total": 0}
    delivered = await gateway.call("POST", f"/v1/events/{pending['event_id']}/deliver")
    assert (delivered.status, delivered.json["export_id"]) == (202, export_id)
    assert "stream" in delivered.json["sinks"]
    site.catch_up()
    (again,) = await outbox.take("stream", site.now)
    assert (again.event_id, again.failures) == (pending["event_id"], 0)
    await outbox.acknowledge("stream", again.event_id)
    assert (await gateway.call("GET", "/v1/events?sink=stream")).json["total"] == 0


async def test_given_up_event_is_listed_and_delivered_on_request(gateway: GatewaySite) -> None:
    site = gateway.site
    await site.ended()
    outbox = Outbox(site.redis, site.keys)
    (taken,) = await outbox.take("stream", site.now)
    await outbox.give_up("stream", taken, site.now, "HTTP 410")
    (given_up,) = (await gateway.call("GET", "/v1/events?state=given_up&sink=stream")).json["deliveries"]
    assert (given_up["state"], given_up["answer"]) == ("given_up", "HTTP 410")
    assert (await gateway.call("POST", f"/v1/events/{taken.event_id}/deliver")).status == 202
    site.catch_up()
    assert [delivery.event_id for delivery in await outbox.take("stream", site.now)] == [taken.event_id]


async def test_page_of_events_is_limited_and_has_the_total(gateway: GatewaySite) -> None:
    for _ in range(3):
        await gateway.site.ended()
    found = (await gateway.call("GET", "/v1/events?sink=stream&limit=2")).json
    assert (len(found["deliveries"]), found["total"]) == (2, 3)


@pytest.mark.parametrize("query", ["sink=stram", "state=sent", "limit=0", "sinks=stream"])
async def test_wrong_parameter_is_refused(gateway: GatewaySite, query: str) -> None:
    assert (await gateway.call("GET", f"/v1/events?{query}")).status == 400


async def test_unknown_event_is_not_found(gateway: GatewaySite) -> None:
    assert (await gateway.call("POST", "/v1/events/none.1/deliver")).status == 404

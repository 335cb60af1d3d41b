"""`/v1/events`: which events sinks have not taken, and deliveries on request."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.events import delivering, listing, sink_tests
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_worker.contract.event import SinkTestEvent
from export_worker.redis.outbox import Delivery, Outbox
from export_worker.sinks.base import SinkError, SinkRefusedError
from support.earlier_records import remove_event
from support.event_sinks import ScriptedSink, dispatcher_of, running
from support.gateway_site import OPTIONS, REQUEST, GatewaySite, open_gateway
from support.redis_site import MANY, REFUSED, QueueSite


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
    assert (await gateway.call("GET", "/v1/events?state=given_up")).json == {
        "deliveries": [],
        "next_cursor": None,
        "total": 0,
        "missing_queues": [],
    }
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


@pytest.mark.parametrize("query", ["sink=stram", "state=sent", "limit=0", "sinks=stream", "cursor=x", "cursor=1:s"])
async def test_wrong_parameter_is_refused(gateway: GatewaySite, query: str) -> None:
    assert (await gateway.call("GET", f"/v1/events?{query}")).status == 400


async def test_unknown_event_is_not_found(gateway: GatewaySite) -> None:
    assert (await gateway.call("POST", "/v1/events/none.1/deliver")).status == 404


# Pages


async def pages(gateway: GatewaySite, path: str, **more: Any) -> list[dict[str, Any]]:
    """Returns the events of all pages of a listing."""
    found: list[dict[str, Any]] = []
    while path:
        response = await gateway.call("GET", path, **more)
        assert response.status == 200, response.body
        found += response.json["deliveries"]
        link = response.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""
        assert (response.json["next_cursor"] is not None) is bool(path)
    return found


async def give_up(site: QueueSite, sink: str, *event_ids: str) -> None:
    """Gives events up, each a second after the one before."""
    for event_id in event_ids:
        await Outbox(site.redis, site.keys).give_up(sink, Delivery(event_id, "{}"), site.now, "HTTP 410")
        site.later(1.0)


async def test_events_that_were_given_up_are_paged_in_their_order(gateway: GatewaySite) -> None:
    site = gateway.site
    ids = [f"{await site.ended()}.1" for _ in range(7)]
    await give_up(site, "stream", *ids)
    await give_up(site, "hook", ids[0])
    seen = await pages(gateway, "/v1/events?state=given_up&limit=3")
    assert [(each["event_id"], each["sink"]) for each in seen] == [
        (ids[0], "hook"),
        *((event_id, "stream") for event_id in reversed(ids)),
    ]
    assert [each["given_up_at"] for each in seen] == sorted((each["given_up_at"] for each in seen), reverse=True)


async def test_pages_of_events_of_the_same_time_miss_none_and_repeat_none(gateway: GatewaySite) -> None:
    """All events that one order delivers are due at the same time."""
    site = gateway.site
    ids = [f"{await site.ended()}.1" for _ in range(7)]
    for sink in ("stream", "hook"):
        await site.redis.zadd(site.keys.outbox(sink), dict.fromkeys(ids, site.now_ms))
    seen = [(each["sink"], each["event_id"]) for each in await pages(gateway, "/v1/events?limit=4")]
    assert seen == [(sink, event_id) for sink in ("hook", "stream") for event_id in sorted(ids)]


async def test_events_of_workers_that_write_no_index_are_listed_and_those_they_delivered_are_not(
    gateway: GatewaySite,
) -> None:
    site = gateway.site
    ids = [f"{await site.ended()}.1" for _ in range(4)]
    await give_up(site, "stream", *ids)
    notes, index = site.keys.undelivered("stream"), site.keys.given_up("stream")
    await site.redis.zrem(index, ids[0], ids[1])  # a worker of version 0.2 gave these up
    await site.redis.hdel(notes, ids[2])  # and delivered this one
    seen = await pages(gateway, "/v1/events?state=given_up&limit=2")
    assert [each["event_id"] for each in seen] == [ids[3], ids[1], ids[0]]


async def test_last_deliveries_of_each_sink_are_listed(gateway: GatewaySite) -> None:
    sinks = {"stream": ScriptedSink(), "hook": ScriptedSink()}
    async with running(dispatcher_of(gateway.site, stream=sinks["stream"], hook=sinks["hook"])):
        ids = [f"{await gateway.site.ended()}.1" for _ in range(2)]
        async with asyncio.timeout(30):
            while len(sinks["stream"].taken) + len(sinks["hook"].taken) < 4:
                await asyncio.sleep(0.01)
    seen = await pages(gateway, "/v1/events?state=delivered")
    assert {(each["event_id"], each["sink"]) for each in seen} == {(each, sink) for each in ids for sink in sinks}
    assert all(each["delivered_at"] >= each["event_at"] for each in seen)
    one = (await gateway.call("GET", f"/v1/events/{ids[0]}")).json
    assert (one["event"]["type"], one["event"]["subject"]) == ("export.failed", ids[0].partition(".")[0])
    assert [(each["sink"], each["state"]) for each in one["deliveries"]] == [
        ("hook", "delivered"),
        ("stream", "delivered"),
    ]


# Deliveries of what was given up


async def test_events_given_up_since_a_moment_are_delivered_to_the_sinks_that_refused_them(
    gateway: GatewaySite,
) -> None:
    site = gateway.site
    ids = [f"{await site.ended()}.1" for _ in range(3)]
    outbox = Outbox(site.redis, site.keys)
    await site.redis.delete(site.keys.outbox("stream"))
    await give_up(site, "hook", *ids)
    await remove_event(site, ids[2])
    since = (await pages(gateway, "/v1/events?state=given_up"))[1]["given_up_at"]
    done = await gateway.call("POST", "/v1/events/deliver", {"since": since, "sink": "hook"})
    assert (done.status, done.json) == (202, {"delivering": 1, "expired": 1, "has_more": False})
    site.catch_up()
    assert [each.event_id for each in await outbox.take("hook", site.now)] == [ids[1]]
    assert await outbox.take("stream", site.now) == []
    again = await gateway.call("POST", "/v1/events/deliver", {"since": since})
    assert again.json["delivering"] == 0, "the event waits already"
    beyond = {"since": "0001-01-01T00:00:00+23:59"}
    for body, status in (({}, 422), (beyond, 422), ({"since": since, "sink": "none"}, 404)):
        assert (await gateway.call("POST", "/v1/events/deliver", body)).status == status


# Tests of sinks


async def result_of(gateway: GatewaySite, sink: ScriptedSink) -> dict[str, Any]:
    gateway.site.later(60.0)  # so that the event is due
    async with running(dispatcher_of(gateway.site, stream=sink)):
        response = await gateway.call("POST", "/v1/sinks/stream/test")
    assert response.status == 200, response.body
    result: dict[str, Any] = response.json
    return result


async def test_test_event_takes_the_way_of_every_event(gateway: GatewaySite) -> None:
    sink = ScriptedSink()
    result = await result_of(gateway, sink)
    assert (result["state"], result["answer"], sink.taken) == ("delivered", None, [result["event_id"]])
    one = (await gateway.call("GET", f"/v1/events/{result['event_id']}")).json
    assert SinkTestEvent.model_validate(one["event"]).subject == "stream"
    assert [each["state"] for each in one["deliveries"]] == ["delivered"]
    assert (await gateway.call("POST", f"/v1/events/{result['event_id']}/deliver")).status == 404


@pytest.mark.parametrize("error", [SinkError("hook answered 503"), SinkRefusedError("hook answered 413")])
async def test_refused_test_event_is_not_tried_again_and_leaves_nothing_but_its_result(
    gateway: GatewaySite, error: SinkError
) -> None:
    sink = ScriptedSink(error=error)
    result = await result_of(gateway, sink)
    assert (result["state"], result["answer"], len(sink.tried)) == ("refused", str(error), 1)
    one = (await gateway.call("GET", f"/v1/events/{result['event_id']}")).json
    assert [(each["state"], each["answer"]) for each in one["deliveries"]] == [("given_up", str(error))]
    site = gateway.site
    for state in ("pending", "given_up"):
        assert (await gateway.call("GET", f"/v1/events?state={state}")).json["deliveries"] == []
    left = {key for key in await site.left() if "stream" in key and "delivered" not in key}
    assert left == set()


async def test_test_event_without_a_worker_says_where_its_result_will_be(
    gateway: GatewaySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_tests, "WAIT_S", 0.1)
    response = await gateway.call("POST", "/v1/sinks/stream/test")
    assert (response.status, response.json["state"]) == (202, "pending")
    path = response.headers["Location"]
    assert [each["state"] for each in (await gateway.call("GET", path)).json["deliveries"]] == ["pending"]
    assert (await gateway.call("GET", "/v1/events?sink=stream")).json["deliveries"][0]["event_at"] > "2026"
    async with running(dispatcher_of(gateway.site, stream=ScriptedSink())), asyncio.timeout(30):
        gateway.site.catch_up()
        while (await gateway.call("GET", path)).json["deliveries"][0]["state"] == "pending":
            await asyncio.sleep(0.02)
    assert 0 < await gateway.site.redis.pttl(gateway.site.keys.event(response.json["event_id"])) <= 600_000
    assert (await gateway.call("POST", "/v1/sinks/none/test")).status == 404


# Keys of some connections


async def test_key_of_some_connections_uses_the_events_of_their_exports(
    arq_redis: ArqRedis, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tuple(
        NamedKey(name, f"secret-of-{name}", Role.OPERATOR, None if name == "all" else frozenset({name}))
        for name in ("gio", "ta", "all")
    )
    names = ("gio", "ta")
    async with open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, keys=keys), connections=names) as gateway:
        site = gateway.site
        site.limits = dict.fromkeys(names, MANY)
        await site.redis.hset(site.keys.sinks, mapping={"stream": "redis-stream"})
        by = {name: {"headers": {"Authorization": f"Bearer secret-of-{name}"}} for name in ("gio", "ta", "all")}
        events: dict[str, list[str]] = {"gio": [], "ta": []}
        for connection in ("gio", "ta", "gio", "ta", "ta", "gio"):
            accepted = await gateway.call("POST", "/v1/exports", REQUEST | {"connection": connection}, **by["all"])
            site.catch_up()
            await site.fail(await site.one(), REFUSED)
            events[connection].append(f"{accepted.json['export_id']}.1")
        first = (await gateway.call("GET", "/v1/events?limit=1", **by["gio"])).json
        assert (first["total"], [each["event_id"] for each in first["deliveries"]]) == (None, events["gio"][:1])
        seen = await pages(gateway, "/v1/events?limit=1", **by["gio"])
        assert {each["event_id"] for each in seen} == set(events["gio"])
        # Each page ends at an event that the key may not see. All are of the same time.
        monkeypatch.setattr(listing, "READ_MAX", 1)
        await site.redis.zadd(site.keys.outbox("stream"), dict.fromkeys(events["gio"] + events["ta"], site.now_ms))
        seen, path, cursors = [], "/v1/events?limit=1", ""
        while path:
            answer = await gateway.call("GET", path, **by["gio"])
            seen += answer.json["deliveries"]
            cursors += answer.json["next_cursor"] or ""
            path = answer.headers.get("Link", "")[1:].partition(">")[0]
        assert [each["event_id"] for each in seen] == sorted(events["gio"])
        assert [each for each in events["ta"] if each.partition(".")[0] in cursors] == []
        own, other = events["gio"][0], events["ta"][0]
        for method, path in (("GET", ""), ("POST", "/deliver")):
            assert (await gateway.call(method, f"/v1/events/{own}{path}", **by["gio"])).status in {200, 202}
            assert (await gateway.call(method, f"/v1/events/{other}{path}", **by["gio"])).status == 404
        since = site.now.isoformat()
        await give_up(site, "stream", *events["gio"], *events["ta"])
        done = await gateway.call("POST", "/v1/events/deliver", {"since": since}, **by["ta"])
        assert done.json == {"delivering": 3, "expired": 0, "has_more": False}
        site.catch_up()
        taken = await Outbox(site.redis, site.keys).take("stream", site.now)
        assert {each.event_id for each in taken} == set(events["ta"])
        # Events of others before them, and those that wait again, do not hide the last ones.
        await give_up(site, "stream", *events["ta"])
        monkeypatch.setattr(delivering, "DELIVER_MAX", 1)
        delivered = []
        for _ in range(4):
            done = await gateway.call("POST", "/v1/events/deliver", {"since": since}, **by["ta"])
            delivered.append(done.json["delivering"])
        assert delivered == [1, 1, 1, 0]

"""One gateway over two queues on two Redis servers: every answer is about both, or says what is missing."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from support.gateway_site import OPTIONS, REQUEST
from support.redis_site import MANY, REFUSED, QueueSite
from support.two_queues import CONNECTIONS, TwoQueues, two_queues

UNKNOWN_ID = "0" * 32
KEYS = (
    NamedKey("boss", "secret-of-boss", Role.ADMIN),
    NamedKey("of-b", "secret-of-b", Role.OPERATOR, frozenset({"other"})),
)
BOSS = {"headers": {"Authorization": "Bearer secret-of-boss"}}


@pytest.fixture
async def two(arq_redis: ArqRedis, redis_url: str, namespace: str, tmp_path: Path) -> AsyncIterator[TwoQueues]:
    async with two_queues(arq_redis, redis_url, namespace, tmp_path) as two:
        yield two


async def fail(site: QueueSite, connection: str) -> str:
    """Returns an export of a queue that has failed."""
    export_id = await site.running(connection)
    await site.fail(await site.one(), REFUSED)
    return export_id


async def listed(two: TwoQueues, path: str, name: str, **query: str) -> list[Any]:
    """Returns the items of all pages of a list."""
    items, cursor = [], None
    while True:
        page = (await two.get(path, **query, **({} if cursor is None else {"cursor": cursor}))).json
        items += page[name]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


async def test_request_is_stored_in_the_queue_of_its_connection(two: TwoQueues) -> None:
    ids = {name: await two.enqueue(name) for name in two.sites}
    for name, site in two.sites.items():
        assert [status.export_id for status in await site.queue.list_exports()] == [ids[name]]
        found = await two.get(f"/v1/exports/{ids[name]}")
        assert (found.status, found.json["export_id"]) == (200, ids[name])
        assert (await two.get(f"/v1/exports/{ids[name]}/timeline")).json["entries"][0]["phase"] == "queued"
        assert (await two.get(f"/v1/exports/{ids[name]}/explain")).status == 200
    missing = await two.get(f"/v1/exports/{UNKNOWN_ID}")
    assert (missing.status, missing.json["code"]) == (404, "not_found")


async def test_unknown_connection_is_refused(two: TwoQueues) -> None:
    refused = await two.gateway.call("POST", "/v1/exports", REQUEST | {"connection": "nowhere"})
    assert (refused.status, refused.json["errors"][0]["field"]) == (422, "connection")


async def test_connection_that_two_queues_announce_is_refused_and_both_are_named(two: TwoQueues) -> None:
    site = two.sites["b"]
    await site.redis.hset(site.keys.connections, "gio", "growingio")
    refused = await two.gateway.call("POST", "/v1/exports", REQUEST)
    assert (refused.status, refused.json["errors"][0]["field"]) == (422, "connection")
    assert "queues a and b have announced 'gio'; add it to gateway.queues.a.connections" in refused.json["detail"]
    assert (await two.gateway.call("POST", "/v1/exports", REQUEST | {"connection": "other"})).status == 202


async def test_idempotency_key_is_of_the_queue_of_its_connection(two: TwoQueues) -> None:
    first, again = [await two.enqueue("b", idempotency_key="k") for _ in range(2)]
    assert first == again
    assert await two.enqueue("a", idempotency_key="k") != first
    changed = REQUEST | {"connection": "other", "idempotency_key": "k", "metadata": {"x": "y"}}
    assert (await two.gateway.call("POST", "/v1/exports", changed)).status == 422


async def test_list_merges_pages_newest_first_and_total_counts_both_queues(two: TwoQueues) -> None:
    ids = [await two.enqueue("ab"[number % 3 == 0]) for number in range(11)]
    first = (await two.get("/v1/exports", limit="4")).json
    assert (first["total"], first["complete"]) == (11, True)
    found = [each["export_id"] for each in await listed(two, "/v1/exports", "exports", limit="4")]
    assert found == ids[::-1]
    only_b = await listed(two, "/v1/exports", "exports", limit="1", connection="other")
    assert [each["export_id"] for each in only_b] == ids[::3][::-1]
    refused = await two.get("/v1/exports", cursor="bm8")
    assert (refused.status, refused.json["errors"][0]["field"]) == (400, "cursor")


async def test_documents_about_everything_have_both_queues(two: TwoQueues) -> None:
    failed = {name: await fail(site, CONNECTIONS[name]) for name, site in two.sites.items()}
    for name in two.sites:
        await two.enqueue(name)
    two.gateway.now_s[0] += 10
    overview = (await two.get("/v1/overview")).json
    assert (overview["phases"]["queued"] + overview["phases"]["running"], overview["phases"]["failed"]) == (2, 2)
    assert set(overview["connections"]) == {"gio", "other"}
    assert set(overview["queues"]) == {"a", "b"}
    assert sum(hour["ended"]["failed"] for hour in (await two.get("/v1/stats")).json["hours"]) == 2
    groups = (await two.get("/v1/failures")).json["groups"]
    assert {group["export_ids"][0] for group in groups} == set(failed.values())
    assert [each["connection"] for each in (await two.get("/v1/connections")).json["connections"]] == ["gio", "other"]
    events = await listed(two, "/v1/events", "deliveries", limit="1")
    assert sorted(each["event_id"] for each in events) == sorted(f"{each}.1" for each in failed.values() for _ in "12")
    event_id = f"{failed['b']}.1"
    assert (await two.get(f"/v1/events/{event_id}")).json["event"]["subject"] == failed["b"]
    assert (await two.gateway.call("POST", f"/v1/events/{event_id}/deliver")).status == 202
    assert (await two.get(f"/v1/exports/{failed['b']}/deliveries")).json["deliveries"][0]["event_id"] == event_id


async def test_acts_reach_the_queue_of_their_export_or_connection(two: TwoQueues) -> None:
    export_id, failed = await two.enqueue("b"), None
    paused = await two.gateway.call("POST", "/v1/connections/other/pause", {"reason": "check"})
    assert paused.status == 200
    assert await two.sites["b"].redis.zcard(two.sites["b"].keys.paused) == 1
    assert (await two.get("/v1/connections/other")).json["pause"]["reason"] == "check"
    assert (await two.gateway.call("POST", "/v1/connections/other/resume")).status == 200
    assert (await two.gateway.call("POST", f"/v1/exports/{export_id}/cancel")).status == 202
    failed = await two.enqueue("a")
    await two.sites["a"].submit(await two.sites["a"].one())
    await two.sites["a"].fail(await two.sites["a"].one(), REFUSED)
    assert (await two.gateway.call("POST", f"/v1/exports/{failed}/retry")).status == 202
    acts = await listed(two, "/v1/activity", "entries", limit="2")
    kinds = ["retry", "enqueue", "cancel", "connection_resume", "connection_pause", "enqueue"]
    assert [each["action"] for each in acts] == kinds
    assert await two.sites["b"].redis.xlen(two.sites["b"].keys.activity) == 4


async def test_bulk_run_acts_in_both_queues_under_one_id(two: TwoQueues) -> None:
    failed = [await fail(site, CONNECTIONS[name]) for name, site in two.sites.items()]
    order = {"action": "retry", "include_hopeless": True}
    preview = (await two.gateway.call("POST", "/v1/bulk", order | {"dry_run": True})).json
    assert (preview["count"], preview["complete"]) == (2, True)
    run = (await two.gateway.call("POST", "/v1/bulk", order | {"expect": 2})).json
    async with asyncio.timeout(20):
        while (found := (await two.get(f"/v1/bulk/{run['bulk_id']}")).json)["state"] == "running":
            await asyncio.sleep(0.05)
    assert (found["state"], found["total"], found["done"], found["per_second"]) == ("done", 2, 2, 50.0)
    for export_id in failed:
        assert (await two.get(f"/v1/exports/{export_id}")).json["phase"] != "failed"


async def test_stream_has_the_changes_of_both_queues_and_resumes(two: TwoQueues) -> None:
    async def next_change(last: str | None, *names: str) -> tuple[set[str], str]:
        """Enqueues exports while a stream is open, and returns those that it has sent, with its last id."""
        headers = {} if last is None else {"Last-Event-ID": last}
        url, wanted, seen = f"{two.gateway.url}/v1/stream?topics=exports", set[str](), set[str]()
        async with asyncio.timeout(20), two.gateway.client.get(url, headers=headers) as stream:
            await stream.content.readuntil(b"\n\n")
            wanted = {await two.enqueue(name) for name in names}
            while not wanted <= seen:
                lines = (await stream.content.readuntil(b"\n\n")).decode().splitlines()
                fields = dict(line.split(": ", 1) for line in lines if ": " in line)
                if fields.get("event") == "export":
                    seen |= {each["export_id"] for each in json.loads(fields["data"])["changed"]}
                    last = fields["id"]
        return seen, str(last)

    _, last = await next_change(None, "a", "b")
    missed = {await two.enqueue(name) for name in "ab"}
    seen, _ = await next_change(last, "a")
    assert missed < seen


async def test_answers_without_a_killed_redis_say_what_is_missing(two: TwoQueues) -> None:
    failed = await fail(two.sites["a"], "gio")
    ids = {name: await two.enqueue(name) for name in two.sites}
    await two.redis_of_b.kill()
    page = (await two.until("/v1/exports", ["b"])).json
    assert ([each["export_id"] for each in page["exports"]], page["complete"]) == ([ids["a"], failed], False)
    assert page["next_cursor"] is None
    for path in ("overview", "stats", "failures", "workers", "connections", "events", "activity"):
        found = await two.until(f"/v1/{path}", ["b"])
        assert found.status == 200, path
    assert (await two.get("/v1/overview")).json["complete"] is False
    assert (await two.get(f"/v1/exports/{ids['a']}")).status == 200
    assert (await two.get("/readyz")).json["missing_queues"] == ["b"]
    assert (await two.gateway.call("POST", "/v1/exports", REQUEST)).status == 202
    for refused in (
        await two.get(f"/v1/exports/{ids['b']}"),
        await two.get(f"/v1/exports/{UNKNOWN_ID}"),
        await two.gateway.call("POST", "/v1/exports", REQUEST | {"connection": "other"}),
        await two.gateway.call("POST", "/v1/connections/other/pause", {}),
    ):
        assert (refused.status, refused.json["code"]) == (503, "service_unreachable")
        assert "queue b" in refused.json["detail"]
    await two.redis_of_b.start()
    page = (await two.until("/v1/exports", [])).json
    assert {each["export_id"] for each in page["exports"]} > set(ids.values())
    assert (await two.get(f"/v1/exports/{ids['b']}")).status == 200


async def test_console_works_over_both_queues_and_survives_the_outage_of_one(
    arq_redis: ArqRedis, redis_url: str, namespace: str, tmp_path: Path
) -> None:
    async with two_queues(arq_redis, redis_url, namespace, tmp_path, replace(OPTIONS, keys=KEYS)) as two:
        for name, site in two.sites.items():
            site.limits = {"gio": MANY, "other": MANY}
            await fail(site, CONNECTIONS[name])
        login = await two.gateway.call("POST", "/console/login", data={"key": "secret-of-boss"}, allow_redirects=False)
        assert login.status == 303, login.body
        for path in ("", "exports", "failures", "events", "triggers", "connections", "workers", "activity", "about"):
            assert (await two.get(f"/console/{path}")).status == 200, path
        exports = (await two.get("/console/exports")).body
        assert all(connection.encode() in exports for connection in CONNECTIONS.values())
        await two.redis_of_b.kill()
        async with asyncio.timeout(20):
            while b"of queue b cannot" not in (shown := await two.get("/console/")).body:
                two.gateway.now_s[0] += 10
                await asyncio.sleep(0.05)
        assert shown.status == 200
        assert (await two.get("/console/exports")).status == 200

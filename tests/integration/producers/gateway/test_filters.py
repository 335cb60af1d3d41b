"""The filters of `GET /v1/exports`: what they match, and how wrong values are refused."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from arq.connections import ArqRedis

from export_producers.gateway.documents.openapi import document
from export_worker.contract.status import Phase
from export_worker.redis.claims import ConnectionLimits
from support.gateway_site import REQUEST, GatewaySite, open_gateway
from support.index_rows import add_rows, numbered_ids
from support.redis_site import REFUSED


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


async def listed(gateway: GatewaySite, query: str) -> Any:
    """Returns the answer to a listing."""
    response = await gateway.call("GET", f"/v1/exports?{query}")
    assert response.status == 200, response.body
    return response.json


async def test_each_filter_selects_exports_and_the_answer_has_their_total(gateway: GatewaySite) -> None:
    site = gateway.site
    refused = await gateway.enqueue(metadata={"order": "42"})
    await site.fail(await site.one(), REFUSED)
    by_ci = (await site.queue.enqueue(str(REQUEST).replace("'", '"'), requested_by="ci")).export_id
    created = (await gateway.call("GET", f"/v1/exports/{by_ci}")).json["created_at"]
    matching = {
        "phase=failed": [refused],
        "connection=gio": [by_ci, refused],
        "connection=other": [],
        "kind=growingio.tag_users": [by_ci, refused],
        "error=platform_refused": [refused],
        "requested_by=ci": [by_ci],
        "requested_by=anonymous": [refused],
        f"since={created}": [by_ci],
        "since=1h": [by_ci, refused],
        f"until={created}": [refused],
        "phase=failed&connection=gio": [refused],
        "": [by_ci, refused],
        "phase=&connection=&kind=&error=&since=&until=&q=&requested_by=&cursor=&limit=": [by_ci, refused],
    }
    for query, expected in matching.items():
        answer = await listed(gateway, query)
        assert ([status["export_id"] for status in answer["exports"]], answer["total"]) == (expected, len(expected))
        assert (answer["next_cursor"], answer["searched_until"]) == (None, None)
    for query in (f"q={refused[:8]}", "q=order%3D42", "phase=failed&kind=growingio.tag_users"):
        answer = await listed(gateway, query)
        assert ([status["export_id"] for status in answer["exports"]], answer["total"]) == ([refused], None)


async def test_search_that_stops_says_until_when_it_has_searched(gateway: GatewaySite) -> None:
    export_id = await gateway.enqueue(metadata={"order": "42"})
    site = gateway.site
    await add_rows(site.redis, site.keys, numbered_ids(5001), site.now_ms + 1)
    first = await gateway.call("GET", "/v1/exports?q=order%3D42")
    assert first.json["exports"] == []
    assert first.json["searched_until"] > (await gateway.call("GET", f"/v1/exports/{export_id}")).json["created_at"]
    following = first.headers["Link"].removeprefix("<").partition(">")[0]
    second = await gateway.call("GET", following)
    assert [status["export_id"] for status in second.json["exports"]] == [export_id]
    assert second.json["searched_until"] is None


async def ids(gateway: GatewaySite, query: str) -> list[str]:
    """Returns the ids of the exports of a listing whose total is unknown and that has searched everything."""
    answer = await listed(gateway, query)
    assert (answer["total"], answer["searched_until"]) == (None, None)
    return [status["export_id"] for status in answer["exports"]]


async def test_state_waiting_selects_what_the_explanation_says_waits_for_a_slot(gateway: GatewaySite) -> None:
    site = gateway.site
    site.limits = {"gio": ConnectionLimits(1, 1e6)}
    first, second, third = [await gateway.enqueue(metadata={"order": "42"}) for _ in range(3)]
    assert await ids(gateway, "state=waiting") == []
    await site.submit(await site.one())
    assert await ids(gateway, "state=waiting") == [third, second]
    assert await ids(gateway, "state=waiting&phase=open&connection=gio&q=order%3D42") == [third, second]
    assert await ids(gateway, f"state=waiting&q={first}") == []
    assert await ids(gateway, "state=waiting&phase=failed") == []
    assert await ids(gateway, "state=waiting&connection=other") == []
    for export_id, code in ((second, "waiting_for_slot"), (first, "overdue")):
        assert (await gateway.call("GET", f"/v1/exports/{export_id}/explain")).json["code"] == code
    newest = await gateway.call("GET", "/v1/exports?state=waiting&limit=1")
    following = newest.headers["Link"].removeprefix("<").partition(">")[0]
    assert [each["export_id"] for each in (await gateway.call("GET", following)).json["exports"]] == [second]
    await gateway.call("POST", "/v1/connections/gio/pause", {})
    assert await ids(gateway, "state=waiting") == []


async def test_state_slow_selects_what_runs_for_longer_than_95_percent_did(gateway: GatewaySite) -> None:
    site = gateway.site
    durations = site.keys.durations("gio", "growingio.tag_users")
    await site.redis.rpush(durations, *[1000] * 3, 60_000)
    slow = await site.running()
    await site.redis.zincrby(site.keys.slots("gio"), -30_000, slow)
    assert await ids(gateway, "state=slow") == []  # four durations do not say what is usual
    await site.redis.rpush(durations, 20_000)
    assert (await gateway.call("GET", f"/v1/exports/{slow}")).json["eta"]["p95"] == 20.0
    await gateway.enqueue()
    assert await ids(gateway, "state=slow") == await ids(gateway, "state=slow&kind=growingio.tag_users") == [slow]
    assert await ids(gateway, "state=slow&phase=queued") == []
    await site.redis.zincrby(site.keys.slots("gio"), 20_000, slow)
    assert await ids(gateway, "state=slow") == []


async def test_state_is_sought_in_5000_records_and_the_next_page_continues(gateway: GatewaySite) -> None:
    site = gateway.site
    slow = await site.running()
    await site.redis.rpush(site.keys.durations("gio", "growingio.tag_users"), *[1000] * 5)
    await site.redis.zincrby(site.keys.slots("gio"), -30_000, slow)
    await add_rows(site.redis, site.keys, numbered_ids(5001), site.now_ms + 1, facets={"phase": Phase.RUNNING})
    first = await gateway.call("GET", "/v1/exports?state=slow")
    assert (first.json["exports"], first.json["total"]) == ([], None)
    assert first.json["searched_until"] is not None
    assert await ids(gateway, f"state=slow&cursor={first.json['next_cursor']}") == [slow]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("since=yesterday", "since: must be a date and time (2026-11-22T03:00:00Z) or a time ago (30m, 6h, 2d)"),
        ("until=999999999d", "until: must be a date and time"),
        ("since=0001-01-01T00:00:00%2B14:00", "since: must be a date and time"),
        ("since=1969-12-31T23:59:59Z", "since: must be a date and time"),
        ("state=slwo", "state: must be one of waiting, slow; did you mean slow?"),
        (f"q={'x' * 513}", "q: must have at most 512 characters"),
        ("requested_by=a&requested_by=b", "requested_by: is given twice"),
        ("conection=gio", "query: unknown parameter 'conection'; did you mean connection?"),
    ],
)
async def test_wrong_filter_is_refused_with_its_name(gateway: GatewaySite, query: str, detail: str) -> None:
    response = await gateway.call("GET", f"/v1/exports?{query}")
    assert response.status == 400
    assert response.json["detail"].startswith(detail)


@pytest.mark.parametrize("text", ["%ff", "%00", "%ED%A0%80", quote('"*?[]{}:'), quote("分群")])
async def test_odd_text_matches_nothing(gateway: GatewaySite, text: str) -> None:
    await gateway.enqueue()
    for name in ("connection", "kind", "error", "requested_by", "q"):
        assert (await listed(gateway, f"{name}={text}"))["exports"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/stats?connection=&from=&to=&step=",
        "/v1/events?sink=&state=&limit=&cursor=",
        "/v1/activity?who=&action=&export_id=&connection=&outcome=&since=&until=&limit=&cursor=",
        "/v1/failures?connection=&kind=&error=&requested_by=&since=&until=&q=",
    ],
)
async def test_parameter_without_a_value_is_as_if_it_was_not_given(gateway: GatewaySite, path: str) -> None:
    answers = [await gateway.call("GET", each) for each in (path.partition("?")[0], path)]
    assert {answer.status for answer in answers} == {200}, answers[1].body
    assert answers[0].json.keys() == answers[1].json.keys()


async def test_order_whose_parameter_has_no_value_is_refused(gateway: GatewaySite) -> None:
    export_id = await gateway.enqueue()
    for path in ("/v1/exports?dry_run=", f"/v1/exports/{export_id}/retry?from="):
        assert (await gateway.call("POST", path, json=REQUEST)).status == 400


def test_openapi_document_has_every_filter() -> None:
    parameters = {item["name"] for item in document()["paths"]["/v1/exports"]["get"]["parameters"]}
    assert parameters == {
        *("phase", "state", "connection", "kind", "error", "requested_by", "since", "until", "q"),
        *("limit", "cursor"),
    }

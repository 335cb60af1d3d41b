"""The activity: who has changed what, who may see it, and how much of it is read and kept."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers import activity
from export_producers.activity import Act, ActivityLog, ActivityRange
from export_producers.gateway.callers.principals import Principal, Role
from export_producers.gateway.callers.proxy import ProxyOptions
from export_producers.gateway.handlers.activity import is_visible
from export_producers.gateway.options import NamedKey
from export_producers.storage import Storage
from export_worker.contract.redis_keys import Keys
from support.gateway_site import OPTIONS, REQUEST, GatewaySite, open_gateway

KEYS = (
    NamedKey("ci", "secret-of-ci", Role.SERVICE),
    NamedKey("oncall", "secret-of-oncall", Role.OPERATOR),
    NamedKey("oncall-of-ta", "secret-of-oncall-of-ta", Role.OPERATOR, frozenset({"ta"})),
)
PROXY = ProxyOptions(
    user_header="X-Forwarded-User",
    groups_header="X-Forwarded-Groups",
    trusted=(ip_network("127.0.0.0/8"),),
    roles={"*": Role.OPERATOR},
)


def by(name: str) -> dict[str, Any]:
    """Returns the arguments of a call with the key of a name."""
    return {"headers": {"Authorization": f"Bearer secret-of-{name}"}}


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    options = replace(OPTIONS, keys=KEYS, proxy=PROXY)
    async with open_gateway(arq_redis, redis_url, namespace, options, connections=("gio", "ta")) as gateway:
        yield gateway


async def acts(gateway: GatewaySite, query: str = "", key: str = "oncall") -> list[dict[str, Any]]:
    """Returns one page of the activity."""
    response = await gateway.call("GET", f"/v1/activity{query}", **by(key))
    assert response.status == 200, response.body
    entries: list[dict[str, Any]] = response.json["entries"]
    return entries


async def test_activity_has_who_when_from_where_what_and_the_outcome(gateway: GatewaySite) -> None:
    before = datetime.now(UTC)
    export_id = (await gateway.call("POST", "/v1/exports", REQUEST, **by("ci"))).json["export_id"]
    person = {"X-Forwarded-User": "李雷", "X-Forwarded-For": "10.0.0.1, 203.0.113.7"}
    await gateway.call("POST", f"/v1/exports/{export_id}/cancel", headers=person)
    cancelled, enqueued = await acts(gateway)
    assert datetime.fromisoformat(enqueued.pop("at")) >= before.replace(microsecond=0)
    assert enqueued.pop("id") < cancelled.pop("id")
    del cancelled["at"]
    shared = {"export_id": export_id, "connection": "gio", "outcome": "done", "detail": {}}
    assert enqueued == shared | {
        "who": "ci",
        "kind": "key",
        "role": "service",
        "address": "127.0.0.1",
        "action": "enqueue",
    }
    assert cancelled == shared | {
        "who": "李雷",
        "kind": "person",
        "role": "operator",
        "address": "203.0.113.7",
        "action": "cancel",
    }


async def test_refused_calls_and_calls_that_change_nothing_are_not_in_the_activity(gateway: GatewaySite) -> None:
    await gateway.call("POST", "/v1/exports", {}, **by("ci"))
    await gateway.call("POST", "/v1/exports", REQUEST, **by("oncall-of-ta"))
    await gateway.call("GET", "/v1/exports", **by("ci"))
    await gateway.call("POST", f"/v1/exports/{'0' * 32}/cancel", **by("ci"))
    await gateway.call("POST", "/v1/exports", REQUEST, headers={"Authorization": "Bearer wrong"})
    assert await acts(gateway) == []


async def test_each_caller_sees_only_acts_of_its_own_or_of_its_connections(gateway: GatewaySite) -> None:
    for connection, key in (("gio", "ci"), ("ta", "ci"), ("gio", "oncall")):
        await gateway.call("POST", "/v1/exports", REQUEST | {"connection": connection}, **by(key))
    seen = {
        key: [(act["who"], act["connection"]) for act in await acts(gateway, key=key)]
        for key in ("ci", "oncall", "oncall-of-ta")
    }
    assert seen == {
        "ci": [("ci", "ta"), ("ci", "gio")],
        "oncall": [("oncall", "gio"), ("ci", "ta"), ("ci", "gio")],
        "oncall-of-ta": [("ci", "ta")],
    }


def test_user_with_the_name_of_a_key_does_not_see_the_acts_of_the_key() -> None:
    act = Act(who="ci", kind="key", role="service", action="enqueue", outcome="done")
    assert is_visible(act, Principal("ci", Role.SERVICE))
    assert not is_visible(act, Principal("ci", Role.VIEWER, kind="person"))


async def test_conditions_and_cursor_select_acts(gateway: GatewaySite) -> None:
    ids = [(await gateway.call("POST", "/v1/exports", REQUEST, **by("ci"))).json["export_id"] for _ in range(5)]
    await gateway.call("POST", f"/v1/exports/{ids[0]}/cancel", **by("oncall"))
    assert [act["action"] for act in await acts(gateway, f"?export_id={ids[0]}")] == ["cancel", "enqueue"]
    assert [act["who"] for act in await acts(gateway, "?action=cancel")] == ["oncall"]
    assert await acts(gateway, "?who=oncall&action=enqueue") == []
    everything = await acts(gateway)
    third = everything[2]["at"]
    assert [act["id"] for act in await acts(gateway, f"?since={third}")] >= [act["id"] for act in everything[:3]]
    assert all(act["at"] < third for act in await acts(gateway, f"?until={third}"))
    path, seen = "/v1/activity?action=enqueue&limit=2", []
    while path:
        response = await gateway.call("GET", path, **by("oncall"))
        seen += [act["export_id"] for act in response.json["entries"]]
        link = response.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""
        assert (response.json["next_cursor"] is None) is (path == "")
    assert seen == ids[::-1]


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("time", ["1970-01-01T00:00:00", "19700101T000000Z", "9999-12-31T23:59:59Z"])
async def test_far_times_can_be_asked_for(gateway: GatewaySite, name: str, time: str) -> None:
    await gateway.call("POST", "/v1/exports", REQUEST, **by("ci"))
    assert len(await acts(gateway, f"?{name}={time}")) == ((name == "since") is not time.startswith("9"))


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=1",
        "cursor=0-0",
        "since=0001-01-01T00:00:00%2B14:00",
        "since=yesterday",
        "until=1969-12-31T23:59:59Z",
        "limit=0",
    ],
)
async def test_wrong_parameter_is_refused(gateway: GatewaySite, query: str) -> None:
    response = await gateway.call("GET", f"/v1/activity?{query}", **by("oncall"))
    assert (response.status, response.json["code"]) == (400, "invalid_request")


async def test_page_reads_a_thousand_entries_with_one_call_and_continues(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    log = ActivityLog(Storage(arq_redis, Keys(namespace), redis_url))
    act = Act(who="ci", kind="key", role="service", action="enqueue", outcome="done")
    await log.add(act.model_copy(update={"who": "first"}))
    for _ in range(activity.EXAMINED_MAX + 5):
        await arq_redis.xadd(Keys(namespace).activity, {"act": act.model_dump_json()})
    await arq_redis.xadd(Keys(namespace).activity, {"act": '{"of": "a newer version"}'})
    calls = await calls_of(arq_redis)
    page = await log.page(lambda each: each.who == "first", ActivityRange(), 50)
    assert await calls_of(arq_redis) - calls == 1
    assert page.entries == []
    assert page.cursor is not None
    rest = await log.page(lambda each: each.who == "first", ActivityRange(before=page.cursor), 50)
    assert ([each.who for each in rest.entries], rest.cursor) == (["first"], None)


async def calls_of(redis: Any) -> int:
    """Returns how often entries of a stream were read since Redis has started."""
    found = await redis.info("commandstats")
    return int(found.get("cmdstat_xrevrange", {"calls": 0})["calls"])


async def test_old_entries_are_removed(
    arq_redis: ArqRedis, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis: Any = arq_redis
    key = Keys(namespace).activity
    log = ActivityLog(Storage(arq_redis, Keys(namespace), redis_url))
    act = Act(who="ci", kind="key", role="service", action="enqueue", outcome="done")
    await redis.xadd(key, {"act": act.model_dump_json()}, id="1000-0")
    await log.add(act)
    assert await redis.xlen(key) == 1
    assert 0 < await redis.pttl(key) <= activity.KEPT_MS
    monkeypatch.setattr(activity, "ENTRIES_MAX", 100)
    for _ in range(400):
        await log.add(act)
    assert 100 <= await redis.xlen(key) < 300


async def test_act_is_done_even_if_the_activity_cannot_be_written(gateway: GatewaySite) -> None:
    await gateway.site.redis.set(gateway.site.keys.activity, "no stream")
    assert (await gateway.call("POST", "/v1/exports", REQUEST, **by("ci"))).status == 202

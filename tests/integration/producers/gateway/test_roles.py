"""Who may make which call: named keys with roles and connections, people behind a proxy, and the shares of callers."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from arq.connections import ArqRedis

from export_producers.gateway.app import ROUTES as API
from export_producers.gateway.callers.auth import RateLimit
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.callers.proxy import ProxyOptions
from export_producers.gateway.calls import CALLS, Call, Reach, name_of
from export_producers.gateway.context import ASKING_MAX, stream_shares
from export_producers.gateway.options import NamedKey
from support.gateway_site import OPTIONS, REQUEST, GatewaySite, Response, open_gateway
from support.index_rows import write_as_version_0_2
from support.redis_site import MANY, REFUSED

ROLES = list(Role)
OTHER_REQUEST = REQUEST | {"connection": "ta"}
KEYS = (
    *(NamedKey(role, f"secret-of-{role}", role) for role in ROLES),
    *(NamedKey(f"{role}-of-gio", f"secret-of-{role}-of-gio", role, frozenset({"gio"})) for role in ROLES),
    NamedKey("two", "secret-of-two", Role.OPERATOR, frozenset({"gio", "third"})),
)
PROXY = ProxyOptions(
    user_header="X-Forwarded-User",
    groups_header="X-Forwarded-Groups",
    trusted=(ip_network("127.0.0.0/8"),),
    roles={"sre": Role.OPERATOR, "data": Role.VIEWER, "jobs": Role.SERVICE},
)


def by(name: str) -> dict[str, dict[str, str]]:
    """Returns the arguments of a call with the key of a name."""
    return {"headers": {"Authorization": f"Bearer secret-of-{name}"}}


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async def catalog(connection: str, resource: str, project: str | None) -> list[dict[str, Any]]:
        return [{"id": f"{connection}/{resource}/{project}"}]

    options = replace(OPTIONS, keys=KEYS, proxy=PROXY)
    names = ("gio", "ta", "third")
    async with open_gateway(arq_redis, redis_url, namespace, options, catalog, connections=names) as gateway:
        gateway.site.limits = dict.fromkeys(names, MANY)
        yield gateway


def routes() -> list[tuple[str, str]]:
    """Returns method and path of each call of the API."""
    app = web.Application()
    app.add_routes(API)
    return [
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    ]


ROUTES = [(method, path, CALLS[name_of(method, path)]) for method, path in routes() if name_of(method, path) in CALLS]
ROUTE_IDS = [f"{method} {path}" for method, path, _ in ROUTES]


def test_every_route_has_a_row_in_the_table_of_calls() -> None:
    assert len(routes()) >= 9, "the routes were not found"
    assert [route for route in routes() if name_of(*route) not in CALLS] == []


def path_of(template: str, export_id: str, connection: str) -> str:
    """Returns a path of a route. A parameter without a known value gets a text that nothing has."""
    values = {"export_id": export_id, "event_id": f"{export_id}.1", "connection": connection, "resource": "tags"}
    if template.startswith("/v1/connections/"):
        values["name"] = connection
    parts = template.split("/")
    return "/".join(values.get(part[1:-1], "none") if part.startswith("{") else part for part in parts)


async def answer(gateway: GatewaySite, route: tuple[str, str, Call], key: str, connection: str) -> Response:
    """Makes a call about an export of a connection that has ended, and returns the response."""
    method, template, _ = route
    request = REQUEST | {"connection": connection}
    accepted = await gateway.call("POST", "/v1/exports", request, **by("admin"))
    gateway.site.catch_up()
    for step in await gateway.site.claim():
        if step.export.export_id == accepted.json["export_id"]:
            await gateway.site.fail(step, REFUSED)
    if template == "/v1/stream":
        return await beginning(gateway, template, key)
    bodies: dict[str, Any] = {"/v1/exports": request, "/v1/batches": {"batch": "night-1", "requests": [request]}}
    body = bodies.get(template) if method == "POST" else None
    return await gateway.call(method, path_of(template, accepted.json["export_id"], connection), body, **by(key))


async def beginning(gateway: GatewaySite, path: str, key: str) -> Response:
    """Returns the response with the first part of an endless body."""
    async with gateway.client.get(gateway.url + path, headers=by(key)["headers"]) as found:
        return Response(found.status, found.headers, await found.content.readany())


def is_refusal(response: Response) -> bool:
    """Returns whether a response says that the caller may not make the call."""
    return response.status in {401, 403}


@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_IDS)
async def test_each_call_is_allowed_to_its_least_role_and_the_roles_above(
    gateway: GatewaySite, route: tuple[str, str, Call]
) -> None:
    for role in ROLES:
        response = await answer(gateway, route, role, "ta")
        assert is_refusal(response) is not role.includes(route[2].role), (role, response.body)
        if is_refusal(response):
            assert (response.json["code"], response.headers["Content-Type"]) == (
                "forbidden",
                "application/problem+json",
            )


@pytest.mark.parametrize("route", ROUTES, ids=ROUTE_IDS)
async def test_key_of_another_connection_gets_nothing_of_the_others(
    gateway: GatewaySite, route: tuple[str, str, Call]
) -> None:
    _, template, call = route
    other = await answer(gateway, route, "admin-of-gio", "ta")
    assert b'"ta"' not in other.body
    expected = {
        Reach.EXPORT: {404},
        Reach.EVENT: {404},
        Reach.CONNECTION: {403},
        Reach.EVERYTHING: {403},
        Reach.CHECKED: {403} if template in {"/v1/exports", "/v1/batches"} and call.action else {200},
    }
    acts_on_one = ("/v1/bulk", "/v1/batches/", "/v1/triggers", "/v1/sinks", "/v1/events/deliver", "/v1/schedules/")
    if template.startswith(acts_on_one):
        expected[Reach.CHECKED] = {404, 422}
    assert other.status in expected[call.reach], other.body
    own = await answer(gateway, route, "admin-of-gio", "gio")
    assert is_refusal(own) is (call.reach is Reach.EVERYTHING), own.body


async def test_export_of_another_connection_is_answered_as_an_unknown_one(gateway: GatewaySite) -> None:
    hidden = (await gateway.call("POST", "/v1/exports", OTHER_REQUEST, **by("admin"))).json["export_id"]
    for path in ("", "/events"):
        found = await gateway.call("GET", f"/v1/exports/{hidden}{path}", **by("viewer-of-gio"))
        unknown = await gateway.call("GET", f"/v1/exports/{'0' * 32}{path}", **by("viewer-of-gio"))
        assert found.status == unknown.status == 404
        assert found.body.replace(hidden.encode(), b"0" * 32) == unknown.body


async def test_unknown_connection_is_answered_as_one_of_others(gateway: GatewaySite) -> None:
    answers = [
        await gateway.call("POST", "/v1/exports", REQUEST | {"connection": name}, **by("service-of-gio"))
        for name in ("ta", "missing")
    ]
    assert {response.status for response in answers} == {403}
    assert answers[0].body == answers[1].body
    assert b"ta" not in answers[0].json["detail"].encode()


@pytest.mark.parametrize(
    "call", ["GET /v1/connections/gone", "POST /v1/connections/gone/pause", "GET /v1/catalog/gone/tags"]
)
async def test_missing_connection_of_a_key_is_answered_without_the_names_of_others(
    arq_redis: ArqRedis, redis_url: str, namespace: str, call: str
) -> None:
    key = NamedKey("oncall", "secret-of-oncall", Role.OPERATOR, frozenset({"gio", "gone"}))
    options = replace(OPTIONS, keys=(key,))
    names = ("gio", "third")

    async def catalog(*_: str | None) -> list[dict[str, Any]]:
        pytest.fail("the platform is asked")

    async with open_gateway(arq_redis, redis_url, namespace, options, catalog, connections=names) as gateway:
        missing = await gateway.call(*call.split(" "), **by("oncall"))  # type: ignore[arg-type]
        assert (missing.status, "third" in missing.json["detail"]) == (404, False)


async def test_wrong_platform_is_answered_without_the_names_of_other_connections(gateway: GatewaySite) -> None:
    request = {"connection": "gio", "export": {"kind": "sensorsdata.user_group_users", "group_id": 1}}
    for path in ("/v1/exports", "/v1/exports?dry_run=1"):
        response = await gateway.call("POST", path, request, **by("service-of-gio"))
        assert (response.status, response.json["errors"][0]["field"]) == (422, "connection")
        assert "known: gio (growingio)" in response.json["detail"]
        assert "third" not in response.json["detail"]


@pytest.mark.parametrize("complete", [True, False], ids=["indexes", "no indexes"])
async def test_list_has_only_exports_of_the_connections_of_the_key(gateway: GatewaySite, complete: bool) -> None:
    ids: dict[str, list[str]] = {"gio": [], "ta": [], "third": []}
    for connection in ("gio", "ta", "third", "ta", "gio", "third", "ta"):
        accepted = await gateway.call("POST", "/v1/exports", REQUEST | {"connection": connection}, **by("admin"))
        ids[connection].append(accepted.json["export_id"])
        gateway.site.catch_up()
    if not complete:
        await write_as_version_0_2(gateway.site)
    seen: list[str] = []
    path = "/v1/exports?limit=3"
    while path:
        response = await gateway.call("GET", path, **by("two"))
        seen += [status["export_id"] for status in response.json["exports"]]
        link = response.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""
    assert sorted(seen) == sorted(ids["gio"] + ids["third"])
    alone = await gateway.call("GET", "/v1/exports?phase=queued", **by("viewer-of-gio"))
    assert {status["export_id"] for status in alone.json["exports"]} == set(ids["gio"])


async def test_searches_and_failures_have_only_exports_of_the_connections_of_the_key(gateway: GatewaySite) -> None:
    body = REQUEST | {"metadata": {"order": "42"}, "idempotency_key": "daily"}
    ids: dict[str, str] = {}
    for connection in ("gio", "ta"):
        request = body | {"connection": connection, "idempotency_key": f"daily-{connection}"}
        ids[connection] = (await gateway.call("POST", "/v1/exports", request, **by("admin"))).json["export_id"]
        gateway.site.catch_up()
        await gateway.site.fail(await gateway.site.one(), REFUSED)
    texts = ("order%3D42", ids["ta"], ids["ta"][:8], "daily-ta", ids["gio"])
    found = [await gateway.call("GET", f"/v1/exports?q={text}", **by("viewer-of-gio")) for text in texts]
    assert [[each["export_id"] for each in response.json["exports"]] for response in found] == [
        *([ids["gio"]], [], [], [], [ids["gio"]])
    ]
    shared = {"export": REQUEST["export"], "connection": "ta", "idempotency_key": "order=42"}
    await gateway.site.queue.enqueue(json.dumps(shared))
    hidden = await gateway.call("GET", "/v1/exports?q=order%3D42", **by("viewer-of-gio"))
    assert [each["export_id"] for each in hidden.json["exports"]] == [ids["gio"]], "a key of others hides it"
    owned = await gateway.call("GET", "/v1/exports?q=daily-ta&requested_by=admin", **by("admin"))
    assert [each["export_id"] for each in owned.json["exports"]] == [ids["ta"]]
    failures = await gateway.call("GET", "/v1/failures", **by("viewer-of-gio"))
    assert [(group["connection"], group["count"]) for group in failures.json["groups"]] == [("gio", 1)]
    assert (await gateway.call("GET", "/v1/failures?connection=ta", **by("viewer-of-gio"))).json["groups"] == []


async def test_overview_and_statistics_count_only_the_connections_of_the_key(gateway: GatewaySite) -> None:
    for connection in ("gio", "ta", "ta"):
        await gateway.call("POST", "/v1/exports", REQUEST | {"connection": connection}, **by("admin"))
    gateway.site.catch_up()
    for step in await gateway.site.claim():
        await gateway.site.fail(step, REFUSED)
    for key, failed in (("admin", 3), ("viewer-of-gio", 1)):
        overview = (await gateway.call("GET", "/v1/overview", **by(key))).json
        assert overview["phases"]["failed"] == failed
        hours = (await gateway.call("GET", "/v1/stats", **by(key))).json["hours"]
        assert sum(hour["ended"]["failed"] for hour in hours) == failed
    other = await gateway.call("GET", "/v1/stats?connection=ta", **by("viewer-of-gio"))
    assert other.status == 403


async def test_me_says_what_the_caller_may(gateway: GatewaySite) -> None:
    headers = {"Authorization": "Bearer secret-of-two", "Accept-Language": "fr, zh-CN;q=0.8, en;q=0.3"}
    assert (await gateway.call("GET", "/v1/me", headers=headers)).json == {
        "name": "two",
        "kind": "key",
        "role": "operator",
        "connections": ["gio", "third"],
        "language": "zh",
    }
    assert (await gateway.call("GET", "/v1/me", **by("admin"))).json["connections"] is None


# Idempotency keys and streams


async def test_callers_with_names_do_not_share_idempotency_keys(gateway: GatewaySite) -> None:
    request = REQUEST | {"idempotency_key": "order-42"}
    first = await gateway.call("POST", "/v1/exports", request, **by("service"))
    other = await gateway.call("POST", "/v1/exports", request | {"deadline_s": 60}, **by("operator"))
    again = await gateway.call("POST", "/v1/exports", request, **by("service"))
    assert (first.status, other.status, again.status) == (202, 202, 202)
    assert other.json["export_id"] != first.json["export_id"] == again.json["export_id"]
    assert [each.json["deduplicated"] for each in (first, other, again)] == [False, False, True]
    conflict = await gateway.call("POST", "/v1/exports", request | {"deadline_s": 5}, **by("service"))
    assert (conflict.status, conflict.json["code"]) == (422, "idempotency_conflict")


async def test_dry_run_finds_only_the_idempotency_keys_of_its_caller(gateway: GatewaySite) -> None:
    request = REQUEST | {"idempotency_key": "order-42"}
    accepted = await gateway.call("POST", "/v1/exports", request, **by("service"))
    own = await gateway.call("POST", "/v1/exports?dry_run=1", request, **by("service"))
    assert (own.status, own.json["existing"]["export_id"]) == (200, accepted.json["export_id"])
    other = await gateway.call("POST", "/v1/exports?dry_run=1", request, **by("operator"))
    assert (other.status, other.json["existing"]) == (200, None)
    foreign = await gateway.call("POST", "/v1/exports?dry_run=1", OTHER_REQUEST, **by("service-of-gio"))
    assert foreign.status == 403
    acts = (await gateway.call("GET", "/v1/activity", **by("operator"))).json["entries"]
    assert [act["export_id"] for act in acts] == [accepted.json["export_id"]]


async def test_end_and_retry_keep_the_idempotency_keys_of_each_owner(gateway: GatewaySite) -> None:
    site, request = gateway.site, REQUEST | {"idempotency_key": "order-42"}
    shared = await site.queue.enqueue(REQUEST_OF_LIBRARY)
    site.catch_up()
    step = await site.one()
    accepted = await gateway.call("POST", "/v1/exports", request | {"deadline_s": 60}, **by("service"))
    export_id = accepted.json["export_id"]
    site.catch_up()
    own = await site.redis.hget(site.keys.export(export_id), "message")
    assert await site.redis.pttl(own) > 0, "a worker of an earlier version does not know the key"
    await site.fail(await site.one(), REFUSED)
    left = [await site.redis.pttl(key) for key in (own, site.keys.past(export_id))]
    assert abs(left[0] - left[1]) < 60_000 < left[0], "it expires with the record"
    assert await site.redis.pttl(site.keys.dedupe("order-42")) == -1, "the key of an open export of the library"
    await site.fail(step, REFUSED)
    assert await site.redis.pttl(site.keys.dedupe("order-42")) > 0
    await gateway.call("POST", f"/v1/exports/{export_id}/retry", **by("service"))
    assert await site.redis.pttl(site.keys.dedupe("order-42")) > 0, f"the key of {shared.export_id}, which has ended"
    repeated = await gateway.call("POST", "/v1/exports", request | {"deadline_s": 60}, **by("service"))
    assert (repeated.json["export_id"], repeated.json["deduplicated"]) == (export_id, True)


REQUEST_OF_LIBRARY = (
    '{"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}, "idempotency_key": "order-42"}'
)


async def test_one_key_cannot_use_up_the_streams_of_another(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    options = replace(OPTIONS, keys=KEYS[:2], max_streams=4)
    async with open_gateway(arq_redis, redis_url, namespace, options) as gateway:
        accepted = await gateway.call("POST", "/v1/exports", REQUEST, **by("service"))
        path = f"/v1/exports/{accepted.json['export_id']}/events"

        async def opened(key: str) -> Any:
            stream = await gateway.client.get(gateway.url + path, **by(key))  # type: ignore[arg-type]
            assert stream.status == 200
            return stream

        streams = [await opened("viewer"), await opened("viewer")]
        full = await gateway.call("GET", path, **by("viewer"))
        assert (full.status, full.json["code"], full.headers["Retry-After"]) == (429, "too_many_streams", "5")
        streams += [await opened("service"), await opened("service")]
        assert (await gateway.call("GET", path, **by("service"))).status == 503
        for stream in streams:
            stream.close()


async def test_one_key_cannot_ask_platforms_without_a_limit(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    answered = asyncio.Event()

    async def catalog(*_: str | None) -> list[dict[str, Any]]:
        await answered.wait()
        return []

    async with open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, keys=KEYS[:2]), catalog) as gateway:

        async def ask(key: str) -> int:
            return (await gateway.call("GET", "/v1/catalog/gio/tags", **by(key))).status

        async with asyncio.TaskGroup() as group:
            first = [group.create_task(ask("viewer")) for _ in range(ASKING_MAX + 1)]
            done, _ = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            other = group.create_task(ask("service"))
            await asyncio.sleep(0)
            answered.set()
        assert [each.result() for each in done] == [429]
        assert sorted(each.result() for each in first) == [200] * ASKING_MAX + [429]
        assert (other.result(), await ask("viewer")) == (200, 200)


@pytest.mark.parametrize(
    ("max_streams", "callers", "shares"), [(1000, 1, (1000, 100)), (1000, 3, (333, 33)), (2, 5, (1, 1))]
)
def test_shares_of_streams_never_exceed_the_limit(max_streams: int, callers: int, shares: tuple[int, int]) -> None:
    assert stream_shares(max_streams, callers) == shares


# People behind a proxy


async def test_proxy_names_the_user_and_the_groups(gateway: GatewaySite) -> None:
    for groups, role in (("data, sre", "operator"), ("data", "viewer"), ("sre", "operator")):
        headers = {"X-Forwarded-User": "李雷@example.com", "X-Forwarded-Groups": groups}
        found = (await gateway.call("GET", "/v1/me", headers=headers)).json
        assert (found["role"], found["kind"], found["connections"]) == (role, "person", None)
    for headers in (
        {},
        {"X-Forwarded-Groups": "sre"},
        {"X-Forwarded-User": "ann"},
        {"X-Forwarded-User": "ann", "X-Forwarded-Groups": "unknown"},
        {"X-Forwarded-User": "a" * 129, "X-Forwarded-Groups": "sre"},
        {"X-Forwarded-User": "", "X-Forwarded-Groups": "sre"},
    ):
        assert (await gateway.call("GET", "/v1/me", headers=headers)).status == 401


@pytest.mark.parametrize(
    ("groups", "pages", "enqueues"),
    [("data", 200, False), ("jobs", 403, True), ("data, jobs", 200, True), ("jobs, sre", 200, True)],
)
async def test_user_of_several_groups_may_do_what_each_of_them_may_do(
    gateway: GatewaySite, groups: str, pages: int, enqueues: bool
) -> None:
    person = {"headers": {"X-Forwarded-User": "ann", "X-Forwarded-Groups": groups}}
    page = await gateway.call("GET", "/console/", **person)
    assert (page.status, b"/console/new" in page.body) == (pages, pages == 200 and enqueues)
    assert (await gateway.call("POST", "/v1/exports", REQUEST, **person)).status == (202 if enqueues else 403)


async def test_two_names_of_a_user_or_two_lists_of_groups_are_refused(gateway: GatewaySite) -> None:
    head = b"GET /v1/me HTTP/1.1\r\nHost: g\r\nConnection: close\r\nX-Forwarded-Groups: sre\r\n"
    assert (await gateway.raw(head + b"X-Forwarded-User: ann\r\n\r\n")).status == 200
    assert (await gateway.raw(head + b"X-Forwarded-User: ann\r\nX-Forwarded-User: root\r\n\r\n")).status == 401
    groups = b"X-Forwarded-Groups: data\r\n"
    assert (await gateway.raw(head + groups + b"X-Forwarded-User: ann\r\n\r\n")).status == 401


async def test_headers_from_an_address_that_is_no_proxy_are_ignored(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    options = replace(OPTIONS, proxy=replace(PROXY, trusted=(ip_network("10.2.0.0/16"),)))
    headers = {"X-Forwarded-User": "ann", "X-Forwarded-Groups": "sre", "X-Forwarded-For": "10.2.0.1"}
    async with open_gateway(arq_redis, redis_url, namespace, options) as gateway:
        for path in ("/v1/me", "/v1/exports"):
            assert (await gateway.call("GET", path, headers=headers)).status == 401


async def test_wrong_keys_behind_the_proxy_are_counted_for_each_of_its_clients(gateway: GatewaySite) -> None:
    async def log_in(key: str, client: str) -> int:
        headers = {"X-Forwarded-For": f"192.0.2.1, {client}"}
        form = {"key": key}
        answer = await gateway.call("POST", "/console/login", data=form, headers=headers, allow_redirects=False)
        return answer.status

    assert [await log_in("wrong", "203.0.113.7") for _ in range(11)] == [401] * 10 + [429]
    assert await log_in("secret-of-admin", "203.0.113.8") == 303


async def test_wrong_keys_of_calls_and_logins_are_counted_together(gateway: GatewaySite) -> None:
    async def call(key: str, client: str = "203.0.113.7") -> Response:
        headers = {"X-Forwarded-For": client} | ({"Authorization": f"Bearer {key}"} if key else {})
        return await gateway.call("GET", "/v1/me", headers=headers)

    assert [(await call("")).status for _ in range(20)] == [401] * 20
    assert [(await call(f"wrong-{number}")).status for number in range(10)] == [401] * 10
    refused = await call("wrong")
    assert (refused.status, refused.json["code"]) == (429, "too_many_requests")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    # Others behind the same address have right keys.
    assert (await call("secret-of-service")).status == 200
    assert ((await call("")).status, (await call("wrong", "203.0.113.8")).status) == (401, 401)
    headers = {"X-Forwarded-For": "203.0.113.7"}
    login = await gateway.call("POST", "/console/login", data={"key": "wrong"}, headers=headers)
    assert login.status == 429


async def test_key_counts_more_than_the_user_of_the_proxy(gateway: GatewaySite) -> None:
    person = {"X-Forwarded-User": "ann", "X-Forwarded-Groups": "data"}
    both = person | {"Authorization": "Bearer secret-of-admin"}
    assert (await gateway.call("GET", "/v1/me", headers=both)).json["name"] == "admin"
    token_of_proxy = person | {"Authorization": "Bearer token-of-the-proxy"}
    assert (await gateway.call("GET", "/v1/me", headers=token_of_proxy)).json["name"] == "ann"


PERSON = {"X-Forwarded-User": "ann", "X-Forwarded-Groups": "sre"}
FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://[::1"},
]


@pytest.mark.parametrize("foreign", FOREIGN)
async def test_page_of_another_site_cannot_act_with_the_login_at_the_proxy(
    gateway: GatewaySite, foreign: dict[str, str]
) -> None:
    refused = await gateway.call("POST", "/v1/exports", REQUEST, headers=PERSON | foreign)
    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    by_key = await gateway.call("POST", "/v1/exports", REQUEST, headers=by("service")["headers"] | foreign)
    assert by_key.status == 202
    read = await gateway.call("GET", "/v1/me", headers=PERSON | foreign | {"Sec-Fetch-Mode": "no-cors"})
    assert read.status == (403 if "Sec-Fetch-Site" in foreign else 200)
    linked = PERSON | foreign | {"Sec-Fetch-Mode": "navigate"}
    assert (await gateway.call("GET", "/v1/me", headers=linked)).status == 200
    own = {"Origin": "https://exports.example", "X-Forwarded-Host": "exports.example", "Sec-Fetch-Site": "same-origin"}
    assert (await gateway.call("POST", "/v1/exports", REQUEST, headers=PERSON | own)).status == 202


# A gateway without keys


@pytest.fixture
async def open_to_all(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "x@localhost",
    "0.0.0.0",
    "localhost:8080/",
    "localhost#",
    "localhost:x",
    "[::1",
]


@pytest.mark.parametrize("host", ["", *FOREIGN_HOSTS])
async def test_name_that_was_pointed_at_loopback_is_refused_without_a_key(open_to_all: GatewaySite, host: str) -> None:
    for method, path, document in (("GET", "/v1/exports", None), ("POST", "/v1/exports", REQUEST)):
        response = await open_to_all.call(method, path, document, headers={"Host": host})
        assert response.status in {400, 403}, response.body
    assert await open_to_all.site.left() == set()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:8080"])
async def test_name_of_this_machine_is_accepted_without_a_key(open_to_all: GatewaySite, host: str) -> None:
    own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    for headers in ({"Host": host}, own, {"Host": host, "Sec-Fetch-Site": "none"}):
        assert (await open_to_all.call("GET", "/v1/exports", headers=headers)).status == 200


@pytest.mark.parametrize("foreign", [*FOREIGN, {"Origin": "null"}, {"Origin": "http://localhost:1"}])
async def test_page_of_another_site_is_refused_without_a_key(open_to_all: GatewaySite, foreign: dict[str, str]) -> None:
    export_id = await open_to_all.enqueue()
    calls = [
        ("GET", "/v1/exports"),
        ("POST", "/v1/exports"),
        ("POST", f"/v1/exports/{export_id}/cancel"),
        ("GET", f"/v1/exports/{export_id}/events"),
    ]
    for method, path in calls:
        document = REQUEST if (method, path) == ("POST", "/v1/exports") else None
        response = await open_to_all.call(method, path, document, headers=foreign)
        assert (response.status, response.json["code"]) == (403, "forbidden"), path
    assert len(await open_to_all.site.queue.list_exports()) == 1


async def test_two_hosts_are_refused_without_a_key(open_to_all: GatewaySite) -> None:
    sent = b"GET /v1/exports HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert (await open_to_all.raw(sent)).status in {400, 403}
    without = b"GET /v1/exports HTTP/1.0\r\n\r\n"
    assert (await open_to_all.raw(without)).status in {400, 403}


def test_rate_limit_forgets_callers_whose_bucket_is_full() -> None:
    now_s = [0.0]
    limit = RateLimit(1, 2, lambda: now_s[0])
    assert [limit.wait_s("person:ann") for _ in range(3)] == [0, 0, 1]
    for number in range(50_000):
        now_s[0] += 0.0001
        assert limit.wait_s(f"person:{number}") == 0
    assert limit.callers <= 20_001, "those of the last two seconds"
    assert limit.wait_s("person:ann") == 0
    now_s[0] += 2
    limit.wait_s("person:last")
    assert limit.callers == 1

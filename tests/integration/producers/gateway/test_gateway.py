"""The HTTP API with a real Redis: routes, errors, invalid requests, concurrent requests, keys and rate limits."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from arq.connections import ArqRedis
from jsonschema_rs import Draft202012Validator

from export_producers.gateway import server
from export_worker.contract.status import Phase
from export_worker.errors import (
    AuthFailedError,
    ConfigError,
    FieldProblem,
    InvalidRequestError,
    PlatformThrottledError,
    PlatformUnavailableError,
)
from support import secret_canaries
from support.gateway_site import OPTIONS, REQUEST, GatewaySite, open_gateway
from support.redis_site import REFUSED

UNKNOWN_ID = "0" * 32
DEFECT_TEXT = "text-of-a-defect"
"""The text of an unexpected error. Only the log may contain it."""
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


# Enqueue


async def test_enqueue_returns_the_location_of_the_status(gateway: GatewaySite) -> None:
    accepted = await gateway.call("POST", "/v1/exports", REQUEST | {"metadata": {"order": "42"}})
    assert accepted.status == 202
    assert accepted.json == {"export_id": accepted.json["export_id"], "phase": "queued", "deduplicated": False}
    assert accepted.headers["Retry-After"] == "1"
    found = await gateway.call("GET", accepted.headers["Location"])
    assert (found.status, found.json["phase"], found.json["metadata"]) == (200, "queued", {"order": "42"})
    assert found.json["requested_by"] == "anonymous"


async def test_retry_after_is_the_time_until_the_next_step_is_due(gateway: GatewaySite) -> None:
    export_id = await gateway.enqueue(idempotency_key="k")
    site = gateway.site
    await site.submit(await site.one())
    await site.pend(await site.one())
    repeated = await gateway.call("POST", "/v1/exports", REQUEST | {"idempotency_key": "k"})
    assert repeated.json == {"export_id": export_id, "phase": "running", "deduplicated": True}
    assert repeated.headers["Retry-After"] in {"1", "2"}
    site.later(3)
    await site.fail(await site.one(), REFUSED)
    assert "Retry-After" not in (await gateway.call("GET", f"/v1/exports/{export_id}")).headers


async def test_trace_headers_of_the_request_are_stored_with_the_export(gateway: GatewaySite) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    response = await gateway.call("POST", "/v1/exports", REQUEST, headers={"traceparent": parent, "tracestate": "a=b"})
    record = await gateway.site.record(response.json["export_id"])
    assert json.loads(record["trace"]) == {"traceparent": parent, "tracestate": "a=b"}
    assert (await gateway.call("GET", response.headers["Location"])).json["trace_id"] == parent[3:35]
    gateway.site.catch_up()
    await gateway.site.fail(await gateway.site.one(), REFUSED)
    listed = await gateway.call("GET", "/v1/exports?phase=failed")
    assert [each["trace_id"] for each in listed.json["exports"]] == [parent[3:35]]


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        (
            "/v1/exports?phas=failed",
            "query: unknown parameter 'phas'; did you mean phase?; allowed here: phase, state, connection, kind, ",
        ),
        (
            "/v1/exports?phase=failled",
            "phase: must be one of open, queued, running, transferring, succeeded, failed, cancelled; did you",
        ),
        ("/v1/exports?limit=many", "limit: must be a whole number from 1 to 1000"),
        ("/v1/catalog/gio/tag", "unknown resource; did you mean tags?; the resources are projects, tags, "),
    ],
)
async def test_misspelt_parameter_is_answered_with_the_one_that_was_meant(
    gateway: GatewaySite, path: str, detail: str
) -> None:
    assert (await gateway.call("GET", path)).json["detail"].startswith(detail)


# Idempotency


async def test_enqueue_with_the_same_key_returns_the_same_export_or_a_conflict(gateway: GatewaySite) -> None:
    headers = {"Idempotency-Key": "order-42"}
    first = await gateway.call("POST", "/v1/exports", REQUEST, headers=headers)
    repeated = await gateway.call("POST", "/v1/exports", REQUEST, headers=headers)
    in_body = await gateway.call("POST", "/v1/exports", REQUEST | {"idempotency_key": "order-42"}, headers=headers)
    assert (first.status, repeated.status, in_body.status) == (202, 202, 202)
    assert first.json["export_id"] == repeated.json["export_id"] == in_body.json["export_id"]
    assert [response.json["deduplicated"] for response in (first, repeated, in_body)] == [False, True, True]
    assert first.headers["Location"] == repeated.headers["Location"]

    other = await gateway.call("POST", "/v1/exports", REQUEST | {"deadline_s": 5}, headers=headers)
    assert (other.status, other.json["code"]) == (422, "idempotency_conflict")
    assert first.json["export_id"] in other.json["detail"]
    assert other.json["errors"] == [
        {"field": "deadline_s", "message": f"differs from the request of export {first.json['export_id']}"}
    ]
    differs = await gateway.call("POST", "/v1/exports", REQUEST | {"idempotency_key": "other"}, headers=headers)
    assert (differs.status, differs.json["errors"][0]["field"]) == (400, "Idempotency-Key")


async def test_parallel_requests_with_one_key_make_one_export(gateway: GatewaySite) -> None:
    headers = {"Idempotency-Key": "k"}
    responses = await asyncio.gather(
        *(gateway.call("POST", "/v1/exports", REQUEST, headers=headers) for _ in range(40)),
    )
    assert {response.status for response in responses} <= {202, 409}
    accepted = [response.json for response in responses if response.status == 202]
    assert len({document["export_id"] for document in accepted}) == 1
    assert [document["deduplicated"] for document in accepted].count(False) == 1
    assert all(response.headers["Retry-After"] == "1" for response in responses if response.status == 409)
    assert len(await gateway.site.queue.list_exports()) == 1


async def test_key_of_a_request_whose_body_is_incomplete_is_in_flight(gateway: GatewaySite) -> None:
    body = json.dumps(REQUEST).encode()
    started, resume = asyncio.Event(), asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        yield body[:10]
        started.set()
        await resume.wait()
        yield body[10:]

    headers = JSON | {"Idempotency-Key": "k"}
    slow = asyncio.create_task(gateway.call("POST", "/v1/exports", data=slow_body(), headers=headers))
    await started.wait()
    meanwhile = await gateway.call("POST", "/v1/exports", data=b"", headers=headers)
    # The first request may not have reached its handler yet.
    while meanwhile.status != 409:
        meanwhile = await gateway.call("POST", "/v1/exports", data=b"", headers=headers)
    assert meanwhile.json["code"] == "in_flight"
    resume.set()
    assert (await slow).status == 202
    assert (await gateway.call("POST", "/v1/exports", REQUEST, headers={"Idempotency-Key": "k"})).json["deduplicated"]


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n"], ids=["first", "second"])
async def test_connection_whose_request_headers_never_end_is_closed(
    gateway: GatewaySite, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(server, "IDLE_TIMEOUT_S", 0.3)
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(before + b"GET /healthz HTTP/1.1\r\nX-Slow: ")

    async def trickle() -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    trickling = asyncio.create_task(trickle())
    responses = b""
    with suppress(ConnectionResetError):  # the bytes that arrive after the close are answered with a reset
        while received := await asyncio.wait_for(reader.read(65536), 5):
            responses += received
    assert responses.count(b"HTTP/1.1 200") == bool(before)
    trickling.cancel()
    writer.close()


# Errors

WRONG: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/index.html", None, 404, "not_found"),
    ("GET", "/v1/nothing", None, 404, "not_found"),
    ("GET", f"/v1/exports/{UNKNOWN_ID}", None, 404, "not_found"),
    ("GET", "/v1/exports/..%2f..%2fetc", None, 404, "not_found"),
    ("GET", f"/v1/exports/{UNKNOWN_ID}/events", None, 404, "not_found"),
    ("POST", f"/v1/exports/{UNKNOWN_ID}/cancel", None, 404, "not_found"),
    ("POST", f"/v1/exports/{UNKNOWN_ID}/retry", None, 404, "not_found"),
    ("DELETE", "/v1/exports", None, 405, "method_not_allowed"),
    ("OPTIONS", "/v1/exports", None, 405, "method_not_allowed"),
    ("PROPFIND", "/healthz", None, 405, "method_not_allowed"),
    ("POST", "/v1/exports", {}, 422, "invalid_request"),
    ("POST", "/v1/exports", [], 400, "invalid_request"),
    ("POST", "/v1/exports", REQUEST | {"connection": "unknown"}, 422, "invalid_request"),
    ("POST", "/v1/exports?x=1", REQUEST, 400, "invalid_request"),
    ("GET", "/v1/exports?limit=0", None, 400, "invalid_request"),
    ("GET", "/v1/exports?limit=1001", None, 400, "invalid_request"),
    ("GET", "/v1/exports?limit=²", None, 400, "invalid_request"),
    ("GET", "/v1/exports?limit=1&limit=2", None, 400, "invalid_request"),
    ("GET", "/v1/exports?phase=lost", None, 400, "invalid_request"),
    ("GET", "/v1/exports?cursor=x", None, 400, "invalid_request"),
    ("POST", f"/v1/exports/{UNKNOWN_ID}/retry?from=nowhere", None, 400, "invalid_request"),
    ("POST", f"/v1/exports/{UNKNOWN_ID}/retry", {"from": "nowhere"}, 422, "invalid_request"),
    ("POST", f"/v1/exports/{UNKNOWN_ID}/retry?from=poll", {"from": "submit"}, 400, "invalid_request"),
    ("GET", "/v1/catalog/gio/secrets", None, 404, "not_found"),
    ("GET", "/v1/catalog/gio/tags", None, 501, "not_installed"),
]


@pytest.mark.parametrize(("method", "path", "document", "status", "code"), WRONG)
async def test_every_error_is_a_problem_document(
    gateway: GatewaySite, method: str, path: str, document: Any, status: int, code: str
) -> None:
    response = await gateway.call(method, path, document)
    assert (response.status, response.json["status"], response.json["code"]) == (status, status, code)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(response.json) == {"type", "title", "status", "detail", "code", "errors"}
    assert response.json["detail"]
    assert ("Allow" in response.headers) is (status == 405)
    assert await gateway.site.left() == set()


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"{}", 415),
        ({"Content-Type": "application/json; charset=utf-16"}, b"{}", 415),
        (JSON, b"", 400),
        (JSON, b"\xff\xfe", 400),
        (JSON, b'{"connection": ', 400),
        (JSON, b" " * 70_000, 413),
        (JSON | {"Content-Encoding": "gzip"}, b"no gzip", 400),
        (JSON | {"Idempotency-Key": "a b"}, b"{}", 400),
        (JSON | {"Idempotency-Key": ""}, b"{}", 400),
        (JSON | {"Idempotency-Key": "k" * 256}, b"{}", 400),
        (JSON | {"Expect": "a miracle"}, b"{}", 417),
    ],
)
async def test_invalid_body_or_header_is_a_problem_document(
    gateway: GatewaySite, headers: dict[str, str], body: bytes, status: int
) -> None:
    response = await gateway.call("POST", "/v1/exports", data=body, headers=headers)
    assert (response.status, response.json["status"]) == (status, status), response.body
    assert response.headers["Content-Type"] == "application/problem+json"
    assert await gateway.site.left() == set()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /v1/exports HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_invalid_http_is_a_problem_document_without_the_sent_text(gateway: GatewaySite, sent: bytes) -> None:
    response = await gateway.raw(sent)
    assert (response.status, response.json["status"]) == (400, 400)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert b"aaaa" not in response.body


@pytest.mark.parametrize("path", ["/v1/exports", "/nothing", "/openapi.json", "/metrics", "/healthz"])
async def test_every_response_has_the_security_headers_and_no_cors_headers(gateway: GatewaySite, path: str) -> None:
    response = await gateway.call("GET", path, headers={"Origin": "https://evil.example"})
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Server"] == "export-worker"
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_root_leads_to_the_console(gateway: GatewaySite, method: str) -> None:
    response = await gateway.call(method, "/", allow_redirects=False)
    assert (response.status, response.headers["Location"], response.body) == (302, "/console/", b"")


async def test_root_without_the_console_has_links_that_exist(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    options = replace(OPTIONS, api_keys=("first-key",), console=False)
    async with open_gateway(arq_redis, redis_url, namespace, options) as gateway:
        response = await gateway.call("GET", "/")
        links = {name: (await gateway.call("GET", path)).status for name, path in response.json["links"].items()}
        assert (response.status, response.json["service"]) == (200, "export-worker")
        assert links == {"openapi": 200, "healthz": 200, "readyz": 200, "metrics": 200, "exports": 401}
        assert (await gateway.call("POST", "/")).status == 405


# Cancel, retry and list


async def test_cancel_and_retry_depend_on_whether_the_export_has_ended(gateway: GatewaySite) -> None:
    export_id = await gateway.enqueue()
    early = await gateway.call("POST", f"/v1/exports/{export_id}/retry")
    assert (early.status, early.json["code"]) == (409, "not_ended")
    cancelled = await gateway.call("POST", f"/v1/exports/{export_id}/cancel")
    assert (cancelled.status, cancelled.json) == (
        202,
        {"export_id": export_id, "phase": "queued", "cancelling": True},
    )
    gateway.site.catch_up()
    await gateway.site.fail(await gateway.site.one(), REFUSED)
    ended = await gateway.call("POST", f"/v1/exports/{export_id}/cancel")
    assert (ended.status, ended.json["phase"], ended.json["cancelling"]) == (200, "failed", False)
    restarted = await gateway.call("POST", f"/v1/exports/{export_id}/retry", {"from": "submit"})
    assert (restarted.status, restarted.json["phase"]) == (202, "queued")
    assert restarted.headers["Location"] == f"/v1/exports/{export_id}"
    assert restarted.headers["Retry-After"] == "1"


async def test_retry_takes_the_step_from_the_query_string(gateway: GatewaySite) -> None:
    export_id = await gateway.enqueue()
    await gateway.site.submit(await gateway.site.one())
    await gateway.site.fail(await gateway.site.one(), REFUSED)
    restarted = await gateway.call("POST", f"/v1/exports/{export_id}/retry?from=submit")
    assert (restarted.status, restarted.json["phase"]) == (202, "queued")


async def test_next_links_lead_through_all_pages_while_exports_are_added(gateway: GatewaySite) -> None:
    ids = [await gateway.enqueue() for _ in range(5)]
    path, seen = "/v1/exports?phase=queued&limit=2", []
    while path:
        response = await gateway.call("GET", path)
        seen += [status["export_id"] for status in response.json["exports"]]
        link = response.headers.get("Link", "")
        path = link[1 : link.index(">")] if link else ""
        assert (response.json["next_cursor"] is None) is (path == "")
        await gateway.enqueue()
    assert seen == ids[::-1]


# Events


def parsed(text: str) -> list[dict[str, str]]:
    """Parses the events of a stream. A comment has no field name."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block]
    return [{line.partition(": ")[0]: line.partition(": ")[2] for line in block} for block in blocks]


async def followed(gateway: GatewaySite, export_id: str, last: str | None = None) -> list[dict[str, str]]:
    """Reads a stream until it ends, and returns its events."""
    headers = {} if last is None else {"Last-Event-ID": last}
    response = await gateway.call("GET", f"/v1/exports/{export_id}/events", headers=headers)
    assert response.headers["Content-Type"] == "text/event-stream"
    return [event for event in parsed(response.body.decode()) if "id" in event]


async def test_stream_sends_each_change_and_resumes_after_the_last_event_id(gateway: GatewaySite) -> None:
    export_id = await gateway.enqueue()
    site = gateway.site
    async with gateway.client.get(f"{gateway.url}/v1/exports/{export_id}/events") as stream:
        assert await stream.content.readuntil(b"\n\n") == b"retry: 2000\n\n"
        (first,) = parsed((await stream.content.readuntil(b"\n\n")).decode())
        assert json.loads(first["data"])["phase"] == "queued"
        other_client = asyncio.create_task(followed(gateway, export_id, first["id"]))
        await site.submit(await site.one())
        (second,) = parsed((await stream.content.readuntil(b"\n\n")).decode())
        assert (second["event"], json.loads(second["data"])["phase"]) == ("status", "running")
        await site.ready(await site.one())
        await site.succeed(await site.one("transfer"))
        rest = parsed((await stream.content.read()).decode())
    assert json.loads(rest[-1]["data"])["phase"] == "succeeded"

    resumed = await other_client
    assert first["id"] not in {event["id"] for event in resumed}
    assert resumed[-1] == rest[-1]
    (late,) = await followed(gateway, export_id, second["id"])
    assert late == rest[-1]
    done = await gateway.call("GET", f"/v1/exports/{export_id}/events", headers={"Last-Event-ID": late["id"]})
    assert (done.status, done.body) == (204, b"")


async def test_events_of_a_stream_fit_the_schema_of_the_openapi_document(gateway: GatewaySite) -> None:
    document = (await gateway.call("GET", "/openapi.json")).json
    operation = document["paths"]["/v1/exports/{export_id}/events"]["get"]
    stream = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
    schemas = {"components": document["components"]}
    data = document["components"]["schemas"]["StatusEvent"]["properties"]["data"]["contentSchema"]
    export_id = await gateway.enqueue()
    await gateway.site.submit(await gateway.site.one())
    await gateway.site.ready(await gateway.site.one())
    await gateway.site.succeed(await gateway.site.one("transfer"))
    found = await followed(gateway, export_id)
    assert found
    Draft202012Validator(stream | schemas, validate_formats=True).validate(found)
    for event in found:
        Draft202012Validator(data | schemas, validate_formats=True).validate(json.loads(event["data"]))


async def test_stream_without_events_sends_comments(arq_redis: ArqRedis, redis_url: str, namespace: str) -> None:
    async with open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, keep_alive_s=0.01)) as gateway:
        export_id = await gateway.enqueue()
        async with gateway.client.get(f"{gateway.url}/v1/exports/{export_id}/events") as stream:
            while await stream.content.readuntil(b"\n\n") != b": keep-alive\n\n":
                pass


async def test_stream_above_the_limit_is_refused_and_closed_streams_are_not_counted(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    async with open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, max_streams=1)) as gateway:
        path = f"/v1/exports/{await gateway.enqueue()}/events"
        async with gateway.client.get(gateway.url + path) as stream:
            await stream.content.readuntil(b"\n\n")
            full = await gateway.call("GET", path)
            assert (full.status, full.json["code"], full.headers["Retry-After"]) == (503, "too_many_streams", "5")
            assert b"export_gateway_streams 1.0" in (await gateway.call("GET", "/metrics")).body
        gateway.site.catch_up()
        # The gateway notices that a client has disconnected when it writes the next event.
        await gateway.site.submit(await gateway.site.one())
        while b"export_gateway_streams 0.0" not in (await gateway.call("GET", "/metrics")).body:
            await asyncio.sleep(0.05)


# Keys and rate limits


async def test_request_without_a_valid_key_is_refused(arq_redis: ArqRedis, redis_url: str, namespace: str) -> None:
    keys = ("first-key", secret_canaries.GATEWAY_KEY)
    async with open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, api_keys=keys)) as gateway:
        for valid in ("Bearer first-key", f"bearer {secret_canaries.GATEWAY_KEY}"):
            assert (await gateway.call("GET", "/v1/exports", headers={"Authorization": valid})).status == 200
        for invalid in (None, "", "first-key", "Bearer", "Bearer ", "Basic first-key", "Bearer first-key2", "Bearer ÿ"):
            headers = {} if invalid is None else {"Authorization": invalid}
            for path in ("/v1/exports", "/v1/nothing"):
                response = await gateway.call("GET", path, headers=headers)
                assert (response.status, response.json["code"]) == (401, "unauthorized")
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert (await gateway.call("GET", path)).status == 200


async def test_each_key_has_its_own_rate_limit(arq_redis: ArqRedis, redis_url: str, namespace: str) -> None:
    options = replace(OPTIONS, api_keys=("a" * 8, "b" * 8), requests_per_second=0.5, burst=2)
    async with open_gateway(arq_redis, redis_url, namespace, options) as gateway:
        first, second = ({"Authorization": f"Bearer {key}"} for key in options.api_keys)
        assert [(await gateway.call("GET", "/v1/exports", headers=first)).status for _ in range(2)] == [200, 200]
        refused = await gateway.call("GET", "/v1/exports", headers=first)
        assert (refused.status, refused.json["code"], refused.headers["Retry-After"]) == (429, "too_many_requests", "2")
        assert (await gateway.call("GET", "/v1/exports", headers=second)).status == 200
        gateway.now_s[0] += 2
        assert [(await gateway.call("GET", "/v1/exports", headers=first)).status for _ in range(2)] == [200, 429]


# Metrics, outages and the catalog


async def test_metrics_have_route_templates_as_labels_and_no_paths(gateway: GatewaySite) -> None:
    export_id = await gateway.enqueue()
    await gateway.call("GET", f"/v1/exports/{export_id}?token=hush")
    await gateway.call("GET", "/made-up-by-a-client")
    await gateway.call("PROPFIND", "/healthz")
    text = (await gateway.call("GET", "/metrics")).body.decode()
    route = 'route="/v1/exports/{export_id}",status="400"'
    assert f'export_gateway_requests_total{{method="GET",{route}}} 1.0' in text
    assert 'export_gateway_requests_total{method="POST",route="/v1/exports",status="202"} 1.0' in text
    assert 'export_gateway_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'export_gateway_request_seconds_count{method="POST",route="/v1/exports"} 1.0' in text
    assert not [word for word in (export_id, "hush", "made-up", "PROPFIND") if word in text]
    assert "export_gateway_redis_up 1.0" in text
    assert "process_resident_memory_bytes " in text


async def test_unreachable_redis_is_reported_without_its_address(arq_redis: ArqRedis, namespace: str) -> None:
    async with open_gateway(arq_redis, f"redis://:{secret_canaries.TOKEN}@127.0.0.1:1/0", namespace) as gateway:
        assert (await gateway.call("GET", "/healthz")).status == 200
        assert b"export_gateway_redis_up 0.0" in (await gateway.call("GET", "/metrics")).body
        for method, path, document in (("GET", "/readyz", None), ("POST", "/v1/exports", REQUEST)):
            response = await gateway.call(method, path, document)
            assert (response.status, response.json["code"], response.headers["Retry-After"]) == (
                503,
                "service_unreachable",
                "5",
            )
            assert b"127.0.0.1" not in response.body


CATALOG: list[tuple[Exception, int]] = [
    (InvalidRequestError([FieldProblem("connection", "unknown")]), 404),
    (InvalidRequestError([FieldProblem("resource", "lists nothing")]), 404),
    (InvalidRequestError([FieldProblem("project", "is needed")]), 422),
    (AuthFailedError("the platform refuses the token"), 502),
    (PlatformUnavailableError("HTTP 502"), 503),
    (PlatformThrottledError("HTTP 429", retry_after_s=7.0), 503),
    (ConfigError("connections.gio.token: environment variable T is not set"), 500),
    (RuntimeError(DEFECT_TEXT), 500),
]


@pytest.mark.parametrize(("error", "status"), CATALOG, ids=[f"{type(e).__name__}-{s}" for e, s in CATALOG])
async def test_catalog_errors_have_the_status_of_their_cause(
    arq_redis: ArqRedis, redis_url: str, namespace: str, error: Exception, status: int
) -> None:
    async def catalog(connection: str, resource: str, project: str | None) -> list[dict[str, Any]]:
        if project is None:
            return [{"id": f"{connection}/{resource}", "name": "标签"}]
        raise error

    async with open_gateway(arq_redis, redis_url, namespace, catalog=catalog) as gateway:
        assert (await gateway.call("GET", "/v1/catalog/gio/tags")).json == [{"id": "gio/tags", "name": "标签"}]
        response = await gateway.call("GET", "/v1/catalog/gio/tags?project=p")
    assert response.status == status, response.body
    assert DEFECT_TEXT.encode() not in response.body
    assert response.headers.get("Retry-After") == {503: "7" if isinstance(error, PlatformThrottledError) else "5"}.get(
        status
    )


async def test_list_accepts_every_phase_of_the_contract(gateway: GatewaySite) -> None:
    for phase in Phase:
        answer = (await gateway.call("GET", f"/v1/exports?phase={phase}")).json
        counts: dict[str, object] = {"total": 0, "searched_until": None, "complete": True, "missing_queues": []}
        assert answer == {"exports": [], "next_cursor": None, **counts}

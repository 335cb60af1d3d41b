"""`/v1/batches`: many exports as one, with the roles and connections of callers."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_worker.contract.parsing import BATCH_MAX_BYTES
from support.gateway_site import OPTIONS, GatewaySite, open_gateway
from support.redis_site import REFUSED


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as opened:
        yield opened


def order(count: int = 2, name: str = "night-1", **fields: Any) -> dict[str, Any]:
    export = {"kind": "growingio.tag_users", "tag_key": "t"}
    requests = [{"connection": "gio", "export": export, "metadata": {"n": str(n)}} | fields for n in range(count)]
    return {"batch": name, "requests": requests}


async def test_batch_is_accepted_once_and_followed_by_its_name(gateway: GatewaySite) -> None:
    first, second = [await gateway.call("POST", "/v1/batches", order()) for _ in range(2)]
    for answer in (first, second):
        assert (answer.status, answer.headers["Location"]) == (202, "/v1/batches/night-1")
        assert (answer.json["total"], answer.json["open"], answer.json["state"]) == (2, 2, "running")
    assert (await gateway.call("GET", "/v1/batches/night-1")).json == second.json
    assert [each["batch"] for each in (await gateway.call("GET", "/v1/batches")).json["batches"]] == ["night-1"]
    page = (await gateway.call("GET", "/v1/batches/night-1/exports?limit=1")).json
    assert ([each["metadata"] for each in page["exports"]], page["next_cursor"]) == ([{"n": "0"}], "1")
    page = (await gateway.call("GET", "/v1/batches/night-1/exports?cursor=1")).json
    assert ([each["metadata"] for each in page["exports"]], page["next_cursor"]) == ([{"n": "1"}], None)
    entry = (await gateway.call("GET", "/v1/activity")).json["entries"][0]
    assert (entry["action"], entry["detail"]["batch"], entry["connection"]) == ("batch_enqueue", "night-1", "gio")


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (order(0), 422, "requests"),
        (order(1, idempotency_key="k"), 422, "requests.0.idempotency_key"),
        (order(1, export={"kind": "growingio.tag_users"}), 422, "requests.0.export.tag_key"),
        (order(1, export={"kind": "growingio.tagusers"}), 422, "requests.0.export.kind"),
        (order(1, outputs={}), 422, "requests.0.outputs"),
        (order(1, name="a/b"), 422, "batch"),
        ({"batch": "night-1", "exports": []}, 422, "requests"),
        ({"batch": "night-1", "requests": [7]}, 422, "requests.0"),
        (order(1) | {"batchs": 1}, 422, "batchs"),
        (order(1, connection="gioo"), 422, "requests.0.connection"),
    ],
)
async def test_wrong_batch_is_refused_with_the_name_of_the_field(
    gateway: GatewaySite, body: Any, status: int, named: str
) -> None:
    await gateway.site.redis.hset(gateway.site.keys.connections, "gio", "growingio")
    answer = await gateway.call("POST", "/v1/batches", body)
    assert (answer.status, answer.json["errors"][0]["field"]) == (status, named)
    assert await gateway.site.redis.zcard(gateway.site.keys.open) == 0


async def test_other_requests_under_the_same_name_are_refused(gateway: GatewaySite) -> None:
    await gateway.call("POST", "/v1/batches", order(1))
    answer = await gateway.call("POST", "/v1/batches", order(2))
    assert (answer.status, answer.json["code"]) == (422, "idempotency_conflict")


async def test_body_of_a_batch_may_be_larger_than_that_of_a_request(gateway: GatewaySite) -> None:
    many = order(300, metadata={"text": "x" * 3000})
    assert (await gateway.call("POST", "/v1/batches", many)).json["total"] == 300
    assert BATCH_MAX_BYTES > 10_000 * 1000


async def test_cancelled_batch_cancels_its_open_exports(gateway: GatewaySite) -> None:
    site = gateway.site
    await gateway.call("POST", "/v1/batches", order(2))
    answer = await gateway.call("POST", "/v1/batches/night-1/cancel")
    assert (answer.status, answer.json["state"]) == (202, "cancelling")
    site.catch_up()
    for claimed in await site.claim():
        assert claimed.cancel
        await site.fail(claimed, REFUSED)
    answer = await gateway.call("POST", "/v1/batches/night-1/cancel")
    assert (answer.status, answer.json["state"]) == (200, "completed")
    assert (await gateway.call("POST", "/v1/batches/night-2/cancel")).status == 404


async def test_caller_sees_and_changes_only_batches_of_its_connections(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    keys = (
        NamedKey("all", "secret-of-all", Role.SERVICE),
        NamedKey("ta", "secret-of-ta", Role.OPERATOR, frozenset({"ta"})),
        NamedKey("look", "secret-of-look", Role.VIEWER),
    )
    options = replace(OPTIONS, keys=keys)
    by_all, by_ta, by_look = ({"headers": {"Authorization": f"Bearer {each.key}"}} for each in keys)
    async with open_gateway(arq_redis, redis_url, namespace, options) as gateway:
        assert (await gateway.call("POST", "/v1/batches", order(), **by_all)).status == 202
        assert (await gateway.call("POST", "/v1/batches", order(), **by_look)).status == 403
        assert (await gateway.call("POST", "/v1/batches", order(), **by_ta)).status == 403
        for method, path in (("GET", ""), ("GET", "/exports"), ("POST", "/cancel")):
            refused = await gateway.call(method, f"/v1/batches/night-1{path}", **by_ta)
            assert refused.status == 404
        assert (await gateway.call("GET", "/v1/batches", **by_ta)).json["batches"] == []
        assert (await gateway.call("GET", "/v1/batches/night-1", **by_look)).status == 200

"""`/v1/connections`: pauses by an operator over HTTP."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_worker.contract.model import isoformat
from support.gateway_site import GatewaySite, open_gateway


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as opened:
        yield opened


async def test_connection_is_paused_listed_and_resumed(gateway: GatewaySite) -> None:
    until = isoformat(gateway.site.now + timedelta(minutes=5))
    paused = await gateway.call("POST", "/v1/connections/gio/pause", {"until": until, "reason": "maintenance"})
    assert paused.status == 200
    assert (paused.json["connection"], paused.json["platform"]) == ("gio", "growingio")
    assert (paused.json["pause"]["until"], paused.json["pause"]["reason"]) == (until, "maintenance")
    assert (await gateway.call("GET", "/v1/connections")).json == {"connections": [paused.json], "missing_queues": []}
    export_id = await gateway.enqueue()
    assert await gateway.site.claim() == []
    resumed = await gateway.call("POST", "/v1/connections/gio/resume")
    assert (resumed.status, resumed.json["pause"]) == (200, None)
    gateway.site.catch_up()
    assert await gateway.site.ids() == [export_id]


async def test_pause_without_a_body_lasts_until_resume(gateway: GatewaySite) -> None:
    paused = await gateway.call("POST", "/v1/connections/gio/pause")
    assert (paused.status, paused.json["pause"]["until"]) == (200, None)
    gateway.site.later(12 * 3600)
    await gateway.enqueue()
    assert await gateway.site.claim() == []


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("gioo", {}, 404, "did you mean gio"),
        ("gio", {"until": "2020-01-01T00:00:00Z"}, 422, "until: must be in the future"),
        ("gio", {"until": "2030-01-01T00:00:00"}, 422, "until: "),
        ("gio", {"until": "9999-12-31T23:59:59-23:59"}, 422, "until: must be between the years 1 and 9999"),
        ("gio", {"reason": "r" * 201}, 422, "reason: must have at most 200 characters"),
        ("gio", {"untill": None}, 422, "did you mean until"),
        ("gio", [], 400, "request: must be a JSON object"),
    ],
)
async def test_wrong_pause_is_refused(gateway: GatewaySite, path: str, body: Any, status: int, detail: str) -> None:
    answer = await gateway.call("POST", f"/v1/connections/{path}/pause", body)
    assert answer.status == status
    assert detail in answer.json["detail"]
    assert (await gateway.call("GET", "/v1/connections")).json["connections"][0]["pause"] is None

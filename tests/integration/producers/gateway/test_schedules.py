"""Schedules as operators see them: over HTTP, and with roles."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.schedules.firing import Decision, FiringQueue
from export_worker.contract.model import isoformat
from export_worker.contract.schedule import ScheduleDefinition
from support.gateway_site import GatewaySite, open_gateway

EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = {"connection": "gio", "export": EXPORT, "metadata": {"day": "{date-1}"}}
HOUR = timedelta(hours=1)


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as opened:
        yield opened


@pytest.fixture
async def firing(gateway: GatewaySite) -> FiringQueue:
    """A worker with the schedule `nightly`, which is due in an hour."""
    site = gateway.site
    definition = ScheduleDefinition(cron="0 6 * * *", timezone="Asia/Shanghai", request=REQUEST)
    firing = FiringQueue(site.redis, site.keys, {"nightly": definition})
    await firing.announce({"nightly": site.now}, {"nightly": site.now + HOUR}, site.now)
    return firing


async def test_schedule_is_listed_with_its_next_and_its_last_time(gateway: GatewaySite, firing: FiringQueue) -> None:
    now = gateway.site.now
    (before,) = (await gateway.call("GET", "/v1/schedules")).json["schedules"]
    assert (before["schedule"], before["connection"], before["kind"]) == ("nightly", "gio", EXPORT["kind"])
    assert (before["next_at"], before["last"], before["has_worker"]) == (isoformat(now + HOUR), None, True)

    answer = await firing.fire("nightly", Decision(now + HOUR, now + 2 * HOUR), now)
    after = (await gateway.call("GET", "/v1/schedules/nightly")).json
    fired = {"time": isoformat(now + HOUR), "outcome": "fired", "export_id": answer["export_id"]}
    assert (after["last"], after["fired"], after["next_at"]) == (fired, 1, isoformat(now + 2 * HOUR))


async def test_paused_schedule_fires_nothing_and_catches_up_nothing(gateway: GatewaySite, firing: FiringQueue) -> None:
    now = gateway.site.now
    paused = await gateway.call("POST", "/v1/schedules/nightly/pause", {"reason": "maintenance"})
    assert (paused.status, paused.json["pause"]["reason"], paused.json["next_at"]) == (200, "maintenance", None)
    assert (await firing.fire("nightly", Decision(now + HOUR, now + 2 * HOUR), now))["verdict"] == "paused"

    resumed = await gateway.call("POST", "/v1/schedules/nightly/resume")
    assert (resumed.status, resumed.json["pause"]) == (200, None)
    # Another worker that was late.
    assert (await firing.fire("nightly", Decision(now + HOUR, now + 2 * HOUR), now))["verdict"] == "done"
    assert (await firing.fire("nightly", Decision(now + 2 * HOUR, now + 3 * HOUR), now))["verdict"] == "fired"


async def test_run_requests_an_export_with_the_dates_of_a_time(gateway: GatewaySite, firing: FiringQueue) -> None:
    ran = await gateway.call("POST", "/v1/schedules/nightly/run", {"time": "2026-11-21T22:00:00Z"})
    assert ran.status == 202
    status = await gateway.site.queue.status(ran.json["export_id"])
    assert (status.metadata, status.requested_by) == ({"day": "2026-11-21"}, "schedule:nightly")
    acts = (await gateway.call("GET", "/v1/activity")).json["entries"]
    assert [(act["action"], act["export_id"], act["connection"], act["detail"]) for act in acts] == [
        ("schedule_run", status.export_id, "gio", {"schedule": "nightly"})
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("nightli/pause", {}, 404, "did you mean nightly"),
        ("nightli/run", {}, 404, "did you mean nightly"),
        ("nightly/pause", {"reason": "r" * 201}, 422, "reason: must have at most 200 characters"),
        ("nightly/run", {"time": "yesterday"}, 422, "time: "),
        ("nightly/run", {"tim": None}, 422, "did you mean time"),
        ("nightly/run", {"time": "0001-01-01T00:00:00Z"}, 422, "time: "),
        ("nightly/run", {"time": "9999-12-31T23:59:59Z"}, 422, "time: "),
    ],
)
async def test_wrong_order_is_refused(
    gateway: GatewaySite, firing: FiringQueue, path: str, body: dict[str, str], status: int, detail: str
) -> None:
    del firing
    answer = await gateway.call("POST", f"/v1/schedules/{path}", body)
    assert answer.status == status
    assert detail in answer.json["detail"]
    assert await gateway.site.queue.list_exports() == []


@pytest.mark.parametrize(
    "changed", [{"timezone": "Mars/Olympus"}, {"request": REQUEST | {"metadata": {"a": "{hour}"}}}]
)
async def test_definition_of_a_newer_worker_is_no_defect_of_the_gateway(
    gateway: GatewaySite, firing: FiringQueue, changed: dict[str, Any]
) -> None:
    newer = ScheduleDefinition.model_validate({"cron": "0 6 * * *", "timezone": "UTC", "request": REQUEST} | changed)
    await gateway.site.redis.hset(gateway.site.keys.schedule("nightly"), "definition", newer.model_dump_json())
    answer = await gateway.call("POST", "/v1/schedules/nightly/run")
    assert (answer.status, answer.json["code"]) == (422, "invalid_request")

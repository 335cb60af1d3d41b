"""What the HTTP API says about one export: its timeline, its explanation, its deliveries and its usual durations."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq.connections import ArqRedis
from jsonschema_rs import Draft202012Validator

from export_producers.gateway.documents import openapi
from export_worker.errors import OperationFailedError, StepError
from export_worker.lifecycle import transitions
from export_worker.redis.claims import PlatformSignal
from export_worker.redis.outbox import Delivery, Outbox
from support.gateway_site import GatewaySite, open_gateway
from support.redis_site import REFUSED, QueueSite

UNKNOWN_ID = "0" * 32
DETAILS = ("timeline", "explain", "deliveries")
ANSWER = "HTTP 500: <script>receiver</script>"


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


async def detail(gateway: GatewaySite, export_id: str, name: str, **query: str) -> Any:
    """Returns one document about an export, after a check against the schema of the OpenAPI document."""
    answer = await gateway.call("GET", f"/v1/exports/{export_id}/{name}", params=query)
    assert answer.status == 200, answer.body
    document = openapi.document()
    response = document["paths"][f"/v1/exports/{{export_id}}/{name}"]["get"]["responses"]["200"]
    schema = response["content"]["application/json"]["schema"] | {"components": document["components"]}
    Draft202012Validator(schema).validate(answer.json)
    return answer.json


async def reads(site: QueueSite) -> int:
    """Returns how often Redis has read from a client: one more for each round trip."""
    count: int = (await site.redis.info("stats"))["total_reads_processed"]
    return count


async def ended(gateway: GatewaySite, error: StepError | None = REFUSED) -> str:
    """Returns an export that has failed, or succeeded if there is no error."""
    export_id = await gateway.enqueue()
    site = gateway.site
    await site.submit(await site.one())
    claimed = await site.one()
    if error is not None:
        await site.fail(claimed, error)
    else:
        await site.ready(claimed)
        await site.succeed(await site.one("transfer"))
    return export_id


@pytest.mark.parametrize("name", DETAILS)
async def test_detail_of_an_unknown_export_is_not_found(gateway: GatewaySite, name: str) -> None:
    answer = await gateway.call("GET", f"/v1/exports/{UNKNOWN_ID}/{name}")
    assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(("name", "most"), [("timeline", 1), ("explain", 4), ("deliveries", 2)])
async def test_detail_needs_few_round_trips(gateway: GatewaySite, name: str, most: int) -> None:
    export_id = await ended(gateway)
    await detail(gateway, export_id, name)
    before = await reads(gateway.site)
    await detail(gateway, export_id, name)
    assert await reads(gateway.site) - before <= most + 1  # one for the count itself


async def test_timeline_has_every_transition(gateway: GatewaySite) -> None:
    export_id = await ended(gateway)
    found = await detail(gateway, export_id, "timeline")
    assert found["export_id"] == export_id
    entries = [(entry["phase"], entry["step"]) for entry in found["entries"]]
    assert entries == [("queued", 0), ("running", 0), ("failed", 1)]
    assert [entry["note"] for entry in found["entries"]] == await gateway.site.notes(export_id)


# Explanations


async def test_failure_that_a_retry_cannot_help_is_explained_without_the_advice_to_retry(gateway: GatewaySite) -> None:
    for error in (REFUSED, OperationFailedError("stage ERROR")):
        export_id = await ended(gateway, error)
        found = await detail(gateway, export_id, "explain")
        assert (found["code"], found["args"]["error_code"]) == ("failed", error.code)
        assert found["args"]["message"] == str(error)
        assert "export-worker retry" not in found["text"]
        assert "retry" not in [note["code"] for note in found["notes"]]


async def test_explanation_is_available_in_chinese(gateway: GatewaySite) -> None:
    export_id = await ended(gateway)
    english = await detail(gateway, export_id, "explain")
    chinese = await detail(gateway, export_id, "explain", lang="zh")
    assert chinese["text"].startswith("导出在")
    assert (chinese["code"], chinese["args"]) == (english["code"], english["args"])
    path = f"/v1/exports/{export_id}/explain"
    by_header = await gateway.call("GET", path, headers={"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"})
    assert by_header.json["text"].startswith("导出在")
    refused = await gateway.call("GET", path, params={"lang": "tlh"})
    assert (refused.status, refused.json["errors"][0]["field"]) == (400, "lang")


async def test_paused_export_is_explained_with_the_end_of_the_pause(gateway: GatewaySite) -> None:
    export_id = await gateway.enqueue()
    site = gateway.site
    await site.down(await site.one())
    found = await detail(gateway, export_id, "explain")
    assert found["code"] == "paused"
    assert found["args"]["connection"] == "gio"
    assert found["args"]["failures"] == 1
    assert found["args"]["until"] in found["text"]


async def test_connection_that_an_operator_has_paused_is_explained_with_the_reason(gateway: GatewaySite) -> None:
    order = {"until": "2126-11-22T03:00:00Z", "reason": "maintenance <b>"}
    assert (await gateway.call("POST", "/v1/connections/gio/pause", order)).status == 200
    export_id = await gateway.enqueue()
    for _ in range(2):  # before and after a worker has parked it
        found = await detail(gateway, export_id, "explain")
        assert found["code"] == "connection_paused"
        assert found["args"]["until"] == "2126-11-22T03:00:00.000Z"
        assert found["args"]["reason"] == "maintenance <b>"
        assert await gateway.site.ids() == []
    assert (await gateway.call("POST", "/v1/connections/gio/resume", {})).status == 200
    assert (await detail(gateway, export_id, "explain"))["code"] != "connection_paused"


async def test_export_on_its_platform_is_explained_with_the_usual_duration(gateway: GatewaySite) -> None:
    site = gateway.site
    await site.redis.rpush(site.keys.durations("gio", "growingio.tag_users"), *range(1000, 21_000, 1000))
    export_id = await gateway.enqueue()
    await site.submit(await site.one())
    await site.pend(await site.one())
    notes = {note["code"]: note["args"] for note in (await detail(gateway, export_id, "explain"))["notes"]}
    usual = notes["usual"]
    assert (usual["p50_s"], usual["p95_s"], usual["samples"]) == (10.0, 19.0, 20)


# Usual durations


async def test_status_has_the_usual_durations_of_its_kind(gateway: GatewaySite) -> None:
    site = gateway.site
    export_id = await gateway.enqueue()
    assert "eta" not in (await gateway.call("GET", f"/v1/exports/{export_id}")).json
    await site.submit(await site.one())
    claimed = await site.one()
    await site.ready(claimed, PlatformSignal("up", duration_s=4.0))
    status = (await gateway.call("GET", f"/v1/exports/{export_id}")).json
    assert status["eta"] == {"p50": 4.0, "p95": 4.0, "samples": 1}
    assert "eta" not in (await gateway.call("GET", "/v1/exports")).json["exports"][0]


# Deliveries


async def test_delivery_has_its_state_its_attempts_and_the_last_answer(gateway: GatewaySite) -> None:
    site = gateway.site
    await site.redis.hset(site.keys.sinks, mapping={"stream": "redis-stream", "hook": "webhook"})
    export_id = await ended(gateway, None)
    event_id = f"{export_id}.1"
    outbox = Outbox(site.redis, site.keys)

    async def found() -> dict[str, Any]:
        answer = await detail(gateway, export_id, "deliveries")
        return {each["sink"]: each for each in answer["deliveries"]}

    first = await found()
    assert {(name, each["type"], each["state"]) for name, each in first.items()} == {
        ("stream", "redis-stream", "pending"),
        ("hook", "webhook", "pending"),
    }
    assert first["hook"]["event_id"] == event_id
    await outbox.acknowledge("stream", event_id)
    await outbox.postpone("hook", Delivery(event_id, "{}"), site.now, 60.0, ANSWER)
    later = await found()
    assert (later["stream"]["state"], later["stream"]["due_at"]) == ("delivered", None)
    assert (later["hook"]["state"], later["hook"]["failures"]) == ("pending", 1)
    assert later["hook"]["answer"] == ANSWER
    assert later["hook"]["refused_since"] is not None
    assert later["hook"]["due_at"] > later["hook"]["refused_since"]
    await outbox.give_up("hook", Delivery(event_id, "{}", 1), site.now, ANSWER)
    given_up = (await found())["hook"]
    assert (given_up["state"], given_up["failures"], given_up["answer"]) == ("given_up", 2, ANSWER)


async def test_deliveries_have_only_the_sinks_that_the_request_names(gateway: GatewaySite) -> None:
    site = gateway.site
    await site.redis.hset(site.keys.sinks, mapping={"stream": "redis-stream", "hook": "webhook"})
    export_id = await gateway.enqueue(notify=["hook"])
    assert (await detail(gateway, export_id, "deliveries"))["deliveries"] == []
    await site.submit(await site.one())
    await site.fail(await site.one(), REFUSED)
    found = (await detail(gateway, export_id, "deliveries"))["deliveries"]
    assert [each["sink"] for each in found] == ["hook"]


async def test_event_of_each_ending_is_listed(gateway: GatewaySite) -> None:
    site = gateway.site
    await site.redis.hset(site.keys.sinks, "hook", "webhook")
    export_id = await ended(gateway)
    await site.queue.retry(export_id)
    site.catch_up()
    claimed = await site.one()
    await site.commit(claimed, transitions.restart(claimed.export, "poll", site.moment()))
    await site.fail(await site.one(), REFUSED)
    found = (await detail(gateway, export_id, "deliveries"))["deliveries"]
    assert [each["event_id"] for each in found] == [f"{export_id}.2", f"{export_id}.1"]
    assert json.dumps(found).count("pending") == 2

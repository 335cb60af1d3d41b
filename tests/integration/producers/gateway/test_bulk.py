"""`/v1/bulk`: retries and cancels many exports, in runs that another gateway can continue."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.bulk import runs
from export_producers.bulk.documents import BulkRequest, Progress
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_worker.contract.status import Phase
from export_worker.errors import OperationFailedError, PlatformUnavailableError, StepError
from support.gateway_site import OPTIONS, GatewaySite, Response, open_gateway
from support.redis_site import MANY, REFUSED, QueueSite, request_of

TEMPORARY = PlatformUnavailableError("HTTP 503")
RETRY = {"action": "retry", "filter": {"connection": "gio"}}


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as opened:
        yield opened


async def failed(site: QueueSite, count: int, error: StepError = TEMPORARY, connection: str = "gio") -> list[str]:
    """Returns exports that have failed in their submit, the oldest first."""
    return await site.failed(count, error, connection)


async def phases(site: QueueSite, export_ids: list[str]) -> list[Phase]:
    return [(await site.queue.status(export_id)).phase for export_id in export_ids]


async def until_state(gateway: GatewaySite, bulk_id: str, *states: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            run: dict[str, Any] = (await gateway.call("GET", f"/v1/bulk/{bulk_id}")).json
            if run["state"] in states:
                return run
            await asyncio.sleep(0.02)


async def until_done(gateway: GatewaySite, bulk_id: str, done: int) -> None:
    async with asyncio.timeout(30):
        while (await gateway.call("GET", f"/v1/bulk/{bulk_id}")).json["done"] < done:
            await asyncio.sleep(0.02)


async def test_dry_run_counts_by_code_and_changes_nothing(gateway: GatewaySite) -> None:
    temporary = await failed(gateway.site, 25)
    refused = await failed(gateway.site, 3, REFUSED)
    answer = await gateway.call("POST", "/v1/bulk", RETRY | {"dry_run": True})
    assert answer.status == 200
    assert (answer.json["count"], answer.json["hopeless"], answer.json["complete"]) == (25, 3, True)
    assert answer.json["by_code"] == {"platform_unavailable": 25}
    assert answer.json["hopeless_by_code"] == {"platform_refused": 3}
    assert [status["export_id"] for status in answer.json["sample"]] == temporary[::-1][:20]
    everything = await gateway.call("POST", "/v1/bulk", RETRY | {"dry_run": True, "include_hopeless": True})
    assert (everything.json["count"], everything.json["hopeless"]) == (28, 0)
    assert set(await phases(gateway.site, temporary + refused)) == {Phase.FAILED}


async def test_run_retries_each_export_that_a_retry_can_help_once(gateway: GatewaySite) -> None:
    temporary = await failed(gateway.site, 30)
    refused = await failed(gateway.site, 4, REFUSED)
    answer = await gateway.call("POST", "/v1/bulk", RETRY | {"expect": 28, "per_second": 1000})
    assert (answer.status, answer.json["total"]) == (202, 30)
    assert answer.headers["Location"] == f"/v1/bulk/{answer.json['bulk_id']}"
    run = await until_state(gateway, answer.json["bulk_id"], "done")
    assert (run["done"], run["hopeless"], run["skipped"]) == (30, 4, 0)
    assert set(await phases(gateway.site, temporary)) == {Phase.QUEUED}
    assert set(await phases(gateway.site, refused)) == {Phase.FAILED}
    assert not await gateway.site.redis.exists(gateway.site.keys.bulks)


async def test_run_is_refused_if_the_count_has_grown_by_more_than_a_tenth(gateway: GatewaySite) -> None:
    export_ids = await failed(gateway.site, 23)
    answer = await gateway.call("POST", "/v1/bulk", RETRY | {"expect": 20})
    assert (answer.status, answer.json["code"]) == (409, "more_than_expected")
    assert set(await phases(gateway.site, export_ids)) == {Phase.FAILED}


async def test_stopped_run_leaves_the_rest_unchanged(gateway: GatewaySite) -> None:
    export_ids = await failed(gateway.site, 40)
    bulk_id = (await gateway.call("POST", "/v1/bulk", RETRY | {"per_second": 10})).json["bulk_id"]
    await until_done(gateway, bulk_id, 1)
    stopping = await gateway.call("POST", f"/v1/bulk/{bulk_id}/stop")
    assert (stopping.status, stopping.json["state"]) == (202, "stopping")
    run = await until_state(gateway, bulk_id, "stopped")
    assert 1 <= run["done"] < 40
    counted = await phases(gateway.site, export_ids)
    assert (counted.count(Phase.QUEUED), counted.count(Phase.FAILED)) == (run["done"], 40 - run["done"])
    again = await gateway.call("POST", f"/v1/bulk/{bulk_id}/stop")
    assert (again.status, again.json["state"]) == (200, "stopped")


@pytest.mark.parametrize("field", ["q", "requested_by", "export_ids"])
async def test_run_is_for_the_exports_that_a_search_a_requester_or_ids_select(gateway: GatewaySite, field: str) -> None:
    wanted = await gateway.enqueue(metadata={"order": "42"})
    other = (await gateway.site.queue.enqueue(request_of(), requested_by="cron")).export_id
    requester = (await gateway.site.queue.status(wanted)).requested_by
    conditions = {"q": "order=42", "requested_by": requester, "export_ids": [wanted, "0" * 32]}
    order = {"action": "cancel", "filter": {field: conditions[field]}}
    counted = await gateway.call("POST", "/v1/bulk", order | {"dry_run": True})
    assert [status["export_id"] for status in counted.json["sample"]] == [wanted]
    run = await until_state(gateway, (await gateway.call("POST", "/v1/bulk", order)).json["bulk_id"], "done")
    assert (run["done"], "cancel" in await gateway.site.record(wanted)) == (1, True)
    assert "cancel" not in await gateway.site.record(other)


@asynccontextmanager
async def crashed(opened: AbstractAsyncContextManager[GatewaySite], bulk_rate: float, done: int) -> AsyncIterator[str]:
    """Orders a run, and yields its id after its gateway has stopped responding in the middle of it."""
    async with opened as first:
        bulk_id = (await first.call("POST", "/v1/bulk", RETRY | {"per_second": bulk_rate})).json["bulk_id"]
        await until_done(first, bulk_id, done)
        # From now on, this gateway can save nothing: another one has claimed the run.
        await first.site.redis.hset(first.site.keys.bulk(bulk_id), mapping={"owner": "other", "until": 0})
    yield bulk_id


async def test_run_of_a_crashed_gateway_is_continued_and_acts_on_each_export_once(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        export_ids = await failed(gateway.site, 30)
    async with (
        crashed(open_gateway(arq_redis, redis_url, namespace), 10, 2) as bulk_id,
        open_gateway(arq_redis, redis_url, namespace) as second,
    ):
        await until_state(second, bulk_id, "done")
        assert set(await phases(second.site, export_ids)) == {Phase.QUEUED}
        steps = [int((await second.site.record(export_id))["step"]) for export_id in export_ids]
        assert len(set(steps)) == 1, "each export was restarted once"


async def test_gateway_that_stops_hands_its_run_over_at_once(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    async with open_gateway(arq_redis, redis_url, namespace) as first:
        await failed(first.site, 20)
        bulk_id = (await first.call("POST", "/v1/bulk", RETRY | {"per_second": 10})).json["bulk_id"]
        await until_done(first, bulk_id, 1)
    site = QueueSite(arq_redis, first.site.queue, first.site.keys)
    assert not await site.redis.hexists(site.keys.bulk(bulk_id), "owner")
    async with open_gateway(arq_redis, redis_url, namespace) as second:
        run = await until_state(second, bulk_id, "done")
    assert run["done"] == 20


async def test_cancellation_is_for_open_exports_in_every_phase(gateway: GatewaySite) -> None:
    ended = await failed(gateway.site, 2)
    transferring = await gateway.site.transferring()
    running = await gateway.site.running()
    queued = await gateway.site.enqueue()
    order = {"action": "cancel", "filter": {"kind": "growingio.tag_users"}}
    counted = await gateway.call("POST", "/v1/bulk", order | {"dry_run": True})
    assert counted.json["by_code"] == {"queued": 1, "running": 1, "transferring": 1}
    bulk_id = (await gateway.call("POST", "/v1/bulk", order)).json["bulk_id"]
    run = await until_state(gateway, bulk_id, "done")
    assert (run["done"], run["action"]) == (3, "cancel")
    for export_id in (transferring, running, queued):
        assert "cancel" in await gateway.site.record(export_id)
    assert set(await phases(gateway.site, ended)) == {Phase.FAILED}


async def test_export_that_another_caller_has_restarted_is_skipped(gateway: GatewaySite) -> None:
    oldest, *_ = await failed(gateway.site, 20)
    bulk_id = (await gateway.call("POST", "/v1/bulk", RETRY | {"per_second": 10})).json["bulk_id"]
    await until_done(gateway, bulk_id, 1)
    await gateway.site.queue.retry(oldest)
    run = await until_state(gateway, bulk_id, "done")
    assert (run["done"], run["skipped"]) == (19, 1)


async def test_operation_that_has_ended_is_helped_only_from_submit(gateway: GatewaySite) -> None:
    await failed(gateway.site, 1, OperationFailedError("ERROR"))
    plain = await gateway.call("POST", "/v1/bulk", RETRY | {"dry_run": True, "from": "poll"})
    again = await gateway.call("POST", "/v1/bulk", RETRY | {"dry_run": True, "from": "submit"})
    assert (plain.json["count"], again.json["count"]) == (0, 1)


@pytest.mark.parametrize(
    ("order", "detail"),
    [
        ({}, "action: is required"),
        ({"action": "retry", "filter": {"phase": "running"}}, "filter.phase: "),
        ({"action": "cancel", "filter": {"phase": "failed"}}, "filter.phase: "),
        ({"action": "cancel", "filter": {"error": "auth_failed"}}, "filter.error: "),
        ({"action": "retry", "per_second": 0}, "per_second: "),
        ({"action": "retry", "fliter": {}}, "did you mean filter"),
        ({"action": "retry", "filter": {"conection": "gio"}}, "filter.conection: unknown field"),
        ({"action": "retry", "expect": -1}, "expect: "),
        ({"action": "retry", "filter": {"q": ""}}, "filter.q: "),
        ({"action": "retry", "filter": {"until": "9999-12-31T23:59:59-23:59"}}, "filter.until: must be between"),
        ({"action": "retry", "filter": {"export_ids": []}}, "filter.export_ids: "),
    ],
)
async def test_wrong_order_is_refused(gateway: GatewaySite, order: dict[str, Any], detail: str) -> None:
    answer = await gateway.call("POST", "/v1/bulk", order)
    assert answer.status == 422
    assert detail in answer.json["detail"]


async def test_run_of_a_limited_caller_concerns_its_connections_only(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    async def call(key: str, method: str, path: str, document: Any = None) -> Response:
        return await opened.call(method, path, document, headers={"Authorization": f"Bearer {key}"})

    keys = (
        NamedKey("all", "secret-of-all", Role.OPERATOR),
        NamedKey("of-gio", "secret-of-gio", Role.OPERATOR, frozenset({"gio"})),
        NamedKey("of-ta", "secret-of-ta", Role.OPERATOR, frozenset({"ta"})),
    )
    options, names = replace(OPTIONS, keys=keys), ("gio", "ta")
    async with open_gateway(arq_redis, redis_url, namespace, options, connections=names) as opened:
        opened.site.limits = dict.fromkeys(names, MANY)
        own, other = await failed(opened.site, 2), await failed(opened.site, 2, connection="ta")
        everything = {"action": "retry", "per_second": 1000}
        refused = await call("secret-of-gio", "POST", "/v1/bulk", RETRY | {"filter": {"connection": "ta"}})
        assert refused.status == 403
        counted = await call("secret-of-gio", "POST", "/v1/bulk", everything | {"dry_run": True})
        assert {status["connection"] for status in counted.json["sample"]} == {"gio"}
        run = await call("secret-of-gio", "POST", "/v1/bulk", everything)
        assert (run.json["total"], run.json["by"], run.json["connections"]) == (2, "of-gio", ["gio"])
        path = f"/v1/bulk/{run.json['bulk_id']}"
        assert (await call("secret-of-ta", "GET", path)).status == 404
        assert (await call("secret-of-ta", "POST", f"{path}/stop")).status == 404
        async with asyncio.timeout(30):
            while (await call("secret-of-all", "GET", path)).json["state"] != "done":
                await asyncio.sleep(0.02)
        assert set(await phases(opened.site, own)) == {Phase.QUEUED}
        assert set(await phases(opened.site, other)) == {Phase.FAILED}
        acts = (await call("secret-of-all", "GET", "/v1/activity?action=bulk")).json["entries"]
        assert [(act["who"], act["detail"]["count"]) for act in acts] == [("of-gio", "2")], "no dry run is recorded"


async def test_one_caller_cannot_use_up_the_runs_of_the_others(
    gateway: GatewaySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RUNS_OF_ONE_MAX", 1)
    await failed(gateway.site, 9)
    slow = RETRY | {"per_second": 0.1}
    assert (await gateway.call("POST", "/v1/bulk", slow)).status == 202
    refused = await gateway.call("POST", "/v1/bulk", slow)
    assert (refused.status, refused.json["code"]) == (503, "too_many_runs")
    assert "1 bulk runs of anonymous are open" in refused.json["detail"]
    now, other = gateway.site.now, runs.Bulks(gateway.site.queue.storage, "another-gateway")
    progress = Progress(total=0, created_at=now, updated_at=now, by="another caller")
    assert (await other.add(BulkRequest(action="retry"), progress)).by == "another caller"


async def test_unknown_run_is_not_found(gateway: GatewaySite) -> None:
    assert (await gateway.call("GET", f"/v1/bulk/{'0' * 32}")).status == 404
    assert (await gateway.call("POST", f"/v1/bulk/{'0' * 32}/stop")).status == 404


async def test_cancel_of_what_waits_leaves_out_what_has_its_slot(gateway: GatewaySite) -> None:
    site = gateway.site
    waiting, also, running = [await site.enqueue() for _ in range(3)]
    places = {site.keys.job_id(each, 0): 1 for each in (waiting, also)}
    await site.redis.zadd(site.keys.parked("gio"), places)
    order = {"action": "cancel", "filter": {"state": "waiting"}}
    dry = (await gateway.call("POST", "/v1/bulk", order | {"dry_run": True})).json
    assert {each["export_id"] for each in dry["sample"]} == {waiting, also}
    run = (await gateway.call("POST", "/v1/bulk", order | {"per_second": 0.5})).json
    await until_done(gateway, run["bulk_id"], 1)
    # The second one is selected, and has its slot before its turn comes.
    await site.redis.delete(site.keys.parked("gio"))
    ended = await until_state(gateway, run["bulk_id"], "done")
    assert (ended["done"], ended["skipped"], ended["filter"]["state"]) == (1, 1, "waiting")
    cancelled = [each for each in (waiting, also, running) if "cancel" in await site.record(each)]
    assert len(cancelled) == 1
    assert cancelled[0] != running


async def test_retry_of_a_state_is_refused(gateway: GatewaySite) -> None:
    answer = await gateway.call("POST", "/v1/bulk", {"action": "retry", "filter": {"state": "slow"}})
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "filter.state")

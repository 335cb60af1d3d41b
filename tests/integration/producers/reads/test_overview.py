"""The overview: what it reads from Redis, how often, and as whom."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.commands.overview import row
from export_producers.pauses import Pauses
from export_producers.reads.overview import EVENTS_MAX
from export_producers.reads.overview_document import Breaker, Ended, Overview, RedisOverview
from export_worker.contract.status import Eta
from export_worker.contract.worker_record import RunningStep, WorkerRecord
from export_worker.redis.claims import ConnectionLimits
from export_worker.redis.outbox import Outbox, Taken
from support.console_world import TRIGGER, fill
from support.gateway_site import OPTIONS, GatewaySite, open_gateway
from support.redis_acl import PASSWORD, documented_acl, documented_rights_of_trigger
from support.redis_monitor import commands_during
from support.redis_site import MANY, REFUSED, QueueSite, request_of

KIND = "growingio.tag_users"


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


@pytest.fixture
def two_connections(queue_site: QueueSite) -> QueueSite:
    """A namespace whose workers have two connections. `gio` has one slot."""
    queue_site.limits = {"gio": ConnectionLimits(1, 1_000_000.0), "other": MANY}
    return queue_site


async def read(site: QueueSite) -> Overview:
    """Returns the overview."""
    return await site.queue.reads.overview()


async def test_overview_of_an_empty_namespace_has_only_zeros(queue_site: QueueSite) -> None:
    overview = await read(queue_site)
    assert set(overview.phases.values()) == {0}
    assert (overview.connections, overview.workers, overview.sinks, overview.triggers) == ({}, [], {}, {})
    assert {role: (queue.due, queue.oldest_due_age_s) for role, queue in overview.queue.items()} == {
        "control": (0, 0.0),
        "transfer": (0, 0.0),
    }
    assert (overview.complete, overview.namespace) == (True, queue_site.keys.namespace)
    assert abs(overview.now - datetime.now(UTC)) < timedelta(minutes=1)


async def test_connections_have_their_exports_by_phase_slots_and_oldest(two_connections: QueueSite) -> None:
    site, keys = two_connections, two_connections.keys
    first = await site.enqueue()
    await site.enqueue()
    await site.enqueue("other")
    for claimed in await site.claim():
        if claimed.export.request.connection == "gio":
            await site.submit(claimed)
        else:
            await site.fail(claimed, REFUSED)
    await site.redis.hset(keys.connections, mapping={"gio": "growingio", "idle": "sensorsdata"})
    await site.redis.hset(keys.limits, mapping={"gio": "1"})
    overview = await read(site)
    assert {name: each.platform for name, each in overview.connections.items()} == {
        "gio": "growingio",
        "idle": "sensorsdata",
        "other": None,
    }
    gio, other = overview.connections["gio"], overview.connections["other"]
    assert {phase.value: count for phase, count in gio.phases.items() if count} == {"queued": 1, "running": 1}
    assert (gio.open, gio.slots.used, gio.slots.limit, gio.waiting) == (2, 1, 1, 1)
    assert gio.oldest_open_at == (await site.queue.status(first)).created_at
    assert (other.open, other.oldest_open_at, other.slots.limit) == (0, None, None)
    assert {phase.value: count for phase, count in overview.phases.items() if count} == {
        "queued": 1,
        "running": 1,
        "failed": 1,
    }


async def test_breakers_have_their_failures_and_the_end_of_their_pause(queue_site: QueueSite) -> None:
    await queue_site.running()
    await queue_site.down(await queue_site.one())
    overview = await read(queue_site)
    breaker = overview.connections["gio"].breaker
    until_ms = int(await queue_site.redis.hget(queue_site.keys.breaker("gio"), "until"))
    assert breaker.platform == Breaker(failures=1, until=datetime.fromtimestamp(until_ms / 1000, UTC))
    assert (breaker.submit, breaker.transfer) == (None, None)
    await queue_site.redis.hset(queue_site.keys.breaker("gio", "transfer"), mapping={"failures": 2})
    assert (await read(queue_site)).connections["gio"].breaker.transfer == Breaker(failures=2, until=None)


async def test_paused_connection_has_its_pause_until_it_ends(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    pauses = Pauses(queue_site.queue.storage, {"gio": "growingio"})
    pause = await pauses.pause("gio", reason="maintenance", by="oncall")
    overview = await read(queue_site)
    found = overview.connections["gio"].pause
    assert found is not None
    assert found.model_dump_json() == pause.model_dump_json()
    assert row("gio", overview.connections["gio"], overview.now)[-1] == "paused by an operator (maintenance)"
    ended = pause.model_copy(update={"until": overview.now - timedelta(seconds=1)})
    await queue_site.redis.hset(queue_site.keys.pauses, "gio", ended.model_dump_json())
    assert (await read(queue_site)).connections["gio"].pause is None


async def test_last_hour_counts_what_ended_within_an_hour(queue_site: QueueSite) -> None:
    await queue_site.ended()
    await queue_site.ended(error=None)
    long_ago = queue_site.now - timedelta(minutes=66)
    await queue_site.redis.hset(
        queue_site.keys.recent("gio", long_ago), f"failed:{int(long_ago.timestamp() // 300) * 300_000}", 7
    )
    last_hour = (await read(queue_site)).connections["gio"].last_hour
    assert last_hour == Ended(ended=2, succeeded=1, failed=1, cancelled=0)


async def test_durations_of_a_kind_have_median_and_95th_percentile(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    key = queue_site.keys.durations("gio", KIND)
    await queue_site.redis.rpush(key, *(str(number * 1000) for number in range(1, 21)))
    assert (await read(queue_site)).connections["gio"].durations == {KIND: Eta(p50=10.0, p95=19.0, samples=20)}


async def test_due_steps_have_the_age_of_the_oldest(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.enqueue()
    job_id = queue_site.keys.job_id("x", 1)
    minute_ago_ms = queue_site.now_ms - 60_000
    await queue_site.redis.zadd(queue_site.keys.waiting("gio"), {job_id: minute_ago_ms})
    overview = await read(queue_site)
    assert (overview.queue["control"].due, overview.queue["transfer"].due) == (2, 1)
    assert overview.queue["transfer"].oldest_due_age_s >= 59
    assert overview.connections["gio"].transfers_waiting == 1


async def test_workers_are_those_whose_record_is_recent(queue_site: QueueSite) -> None:
    now, keys = datetime.now(UTC), queue_site.keys
    record = WorkerRecord(owner="w1", version="9", started_at=now, seen_at=now, running={"transfer": 2, "control": 0})
    for name, text in {"w1": record.model_dump_json(), "w2": "{", "gone": None}.items():
        await queue_site.redis.zadd(keys.workers, {name: int(now.timestamp() * 1000)})
        if text is not None:
            await queue_site.redis.set(keys.worker(name), text)
    await queue_site.redis.zadd(keys.workers, {"stopped": 1})
    (worker,) = (await read(queue_site)).workers
    assert (worker.id, worker.version, worker.roles, worker.steps) == (
        "w1",
        "9",
        ["control", "transfer"],
        {"control": 0, "transfer": 2},
    )


async def test_sinks_have_their_pending_refused_and_given_up_events(queue_site: QueueSite) -> None:
    keys = queue_site.keys
    await queue_site.redis.hset(keys.sinks, mapping={"stream": "redis-stream", "hook": "webhook"})
    await queue_site.ended()
    (event_id,) = await queue_site.members(keys.outbox("hook"))
    refused_ms = queue_site.now_ms - 5000
    await queue_site.redis.hset(keys.refusals("hook"), event_id, f"3:{refused_ms}")
    await queue_site.redis.hset(keys.undelivered("hook"), mapping={"a": "{}", "b": "{}"})
    sinks = (await read(queue_site)).sinks
    hook = sinks["hook"]
    assert (hook.type, hook.pending, hook.given_up) == ("webhook", 1, 2)
    assert hook.refused_since == datetime.fromtimestamp(refused_ms / 1000, UTC)
    assert (sinks["stream"].pending, sinks["stream"].refused_since) == (1, None)
    assert (hook.last_success_at, hook.age_p95_s) == (None, None)
    outbox = Outbox(queue_site.redis, keys)
    for age_s in (1.0, 2.0, 60.0):
        queue_site.later(1.0)
        await outbox.acknowledge("hook", event_id, Taken(queue_site.now, age_s))
    hook = (await read(queue_site)).sinks["hook"]
    assert hook.last_success_at == queue_site.now.replace(microsecond=queue_site.now.microsecond // 1000 * 1000)
    assert hook.age_p95_s == 2.0


async def test_triggers_have_their_lag_and_dead_letters(queue_site: QueueSite) -> None:
    redis, keys, stream = queue_site.redis, queue_site.keys, f"{queue_site.keys.namespace}-in"
    about = {"type": "redis-stream", "stream": stream, "group": "g"}
    await redis.hset(keys.triggers, mapping={"ready": json.dumps(about), "queue": json.dumps({"type": "sqs"})})
    triggers = (await read(queue_site)).triggers
    assert (triggers["ready"].lag_s, triggers["queue"].lag_s) == (None, None), "the stream does not exist"
    await redis.xgroup_create(stream, "g", id="0", mkstream=True)
    assert (await read(queue_site)).triggers["ready"].lag_s == 0.0
    await redis.xadd(stream, {"event": "{}"}, id="1-1")
    await redis.xadd(keys.dead("ready"), {"reason": "x"})
    ready = (await read(queue_site)).triggers["ready"]
    assert (ready.type, ready.dead_letters) == ("redis-stream", 1)
    assert ready.lag_s is not None
    assert ready.lag_s > 1e9
    assert ready.last_message_at is None, "no message was read"
    await redis.xreadgroup("g", "c", {stream: ">"})
    ready = (await read(queue_site)).triggers["ready"]
    assert (ready.lag_s, ready.last_message_at) == (0.0, datetime.fromtimestamp(0.001, UTC))
    await redis.delete(stream)


async def test_redis_reports_its_memory_and_persistence(queue_site: QueueSite) -> None:
    found = (await read(queue_site)).redis
    assert (found.maxmemory, found.policy, found.aof) == (0, "noeviction", True)
    assert found.memory is not None
    assert found.memory > 100_000


async def test_user_with_the_documented_rights_enqueues_and_reads_the_overview(
    redis_url: str, arq_redis: ArqRedis, namespace: str
) -> None:
    """A producer has neither the right to run INFO or XADD, nor to read the streams of triggers."""
    acl: Any = arq_redis.execute_command  # redis-py leaves it untyped
    user, stream = f"u{namespace}", f"{namespace}-in"
    rights = documented_acl(namespace)
    about = {"type": "redis-stream", "stream": stream, "group": "g"}
    await arq_redis.hset(f"{namespace}:triggers", "ready", json.dumps(about))  # type: ignore[misc]
    await arq_redis.xgroup_create(stream, "g", id="0", mkstream=True)
    address = redis_url.replace("redis://", f"redis://{user}:{PASSWORD}@")
    try:
        for words, known in (
            ([*rights, *documented_rights_of_trigger(stream)], True),
            ([word for word in rights if word not in {"+info", "+xadd"}], False),
        ):
            await acl("ACL", "SETUSER", user, "reset", *words)
            async with ExportQueue(address, namespace=namespace) as queue:
                await queue.enqueue(request_of())
                overview = await queue.reads.overview()
            assert overview.connections["gio"].open > 0
            assert (overview.redis != RedisOverview()) is known
            assert (overview.triggers["ready"].lag_s == 0.0, overview.triggers["ready"].dead_letters == 0) == (
                known,
                known,
            )
    finally:
        await acl("ACL", "DELUSER", user)
        await arq_redis.delete(stream)


async def test_overview_costs_one_round_trip_whatever_is_stored(
    two_connections: QueueSite, redis_url: str, namespace: str
) -> None:
    site = two_connections
    for connection in ("gio", "other", "gio"):
        await site.enqueue(connection)
    await read(site)
    assert await commands_during(redis_url, read(site)) == ["EVALSHA"]


async def test_overview_writes_nothing(queue_site: QueueSite) -> None:
    await queue_site.ended()
    before = await queue_site.everything()
    await read(queue_site)
    assert await queue_site.everything() == before


async def test_many_callers_at_once_share_one_read(gateway: GatewaySite, redis_url: str) -> None:
    await gateway.enqueue()
    calls = asyncio.gather(*(gateway.call("GET", "/v1/overview") for _ in range(50)))
    commands = await commands_during(redis_url, calls)
    # The clock of this gateway is at a stand: all calls are within one second.
    assert commands.count("EVALSHA") + commands.count("EVAL") <= 2, commands
    gateway.now_s[0] += 2
    await gateway.enqueue()
    assert (await gateway.call("GET", "/v1/overview")).json["phases"]["queued"] == 2


async def test_overview_over_http_is_the_document_of_the_openapi(gateway: GatewaySite) -> None:
    await gateway.enqueue()
    response = await gateway.call("GET", "/v1/overview")
    assert response.status == 200
    assert Overview.model_validate(response.json).phases["queued"] == 1  # type: ignore[index]
    assert response.json["connections"]["gio"]["open"] == 1
    assert (await gateway.call("GET", "/v1/overview?x=1")).status == 400


async def test_gateway_with_keys_refuses_the_overview_without_one(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    async with open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, api_keys=("k" * 20,))) as gateway:
        assert (await gateway.call("GET", "/v1/overview")).status == 401


async def test_overview_of_some_connections_has_only_their_numbers(two_connections: QueueSite) -> None:
    site = two_connections
    for connection in ("gio", "other", "other"):
        await site.enqueue(connection)
    await site.redis.hset(site.keys.sinks, mapping={"stream": "redis-stream"})
    seen = (await read(site)).of_connections(frozenset({"gio"}))
    assert list(seen.connections) == ["gio"]
    assert {phase.value: count for phase, count in seen.phases.items() if count} == {"queued": 1}
    assert list(seen.sinks) == ["stream"]


async def test_overview_of_some_connections_counts_nothing_of_others(two_connections: QueueSite) -> None:
    site = two_connections
    world = await fill(site, "text")
    steps = [RunningStep(export_id=f"{name}-1", connection=name, role="control") for name in ("gio", "ta", "ta")]
    record = WorkerRecord.model_validate_json(await site.redis.get(site.keys.worker("w1")))
    running = record.model_copy(update={"running": {"control": 3, "transfer": 0}, "exports": steps})
    await site.redis.set(site.keys.worker("w1"), running.model_dump_json())
    every = await read(site)
    seen = every.of_connections(frozenset({"gio"}), {TRIGGER})
    assert [each.steps for each in (*every.workers, *seen.workers)] == [
        {"control": 3, "transfer": 0},
        {"control": 1, "transfer": 0},
    ]
    assert {each.due for each in every.queue.values()} != {None}
    assert {(each.due, each.aside) for each in seen.queue.values()} == {(None, None)}
    assert {(each.pending, each.given_up) for each in seen.sinks.values()} == {(None, None)}
    assert [every.triggers[TRIGGER].dead_letters, seen.triggers[TRIGGER].dead_letters] == [2, 2]
    assert every.of_connections(frozenset({"gio"})).triggers[TRIGGER].dead_letters is None
    assert (every.redis.memory is None, seen.redis.memory) == (False, None)
    assert world.event_id not in seen.model_dump_json()
    assert '"exports"' not in seen.model_dump_json()


async def test_refusals_are_searched_in_a_bounded_number_of_events(queue_site: QueueSite) -> None:
    keys = queue_site.keys
    await queue_site.redis.hset(keys.sinks, mapping={"hook": "webhook"})
    await queue_site.redis.zadd(keys.outbox("hook"), {f"e{number:05d}": number for number in range(3 * EVENTS_MAX)})
    await queue_site.redis.hset(keys.refusals("hook"), f"e{2 * EVENTS_MAX:05d}", "1:1000")
    hook = (await read(queue_site)).sinks["hook"]
    assert (hook.pending, hook.refused_since) == (3 * EVENTS_MAX, None)

"""The statistics that a scrape reads from Redis: open circuit breakers, refusals of sinks, and what waits."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from export_producers.explain import explanation
from export_producers.facts import read_facts
from export_producers.triggers.metrics import TriggerPages
from export_producers.triggers.redis_stream import ConsumerGroup, lag_s
from export_worker.contract.model import isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.contract.slowness import DURATIONS_MIN, SLOW_FACTOR, SLOW_MIN_S
from export_worker.redis.claims import PlatformSignal, Timings
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.outbox import Outbox
from export_worker.redis.transfers import TransferProgress
from export_worker.telemetry.metrics import QUEUE_METRICS, Metrics
from export_worker.telemetry.queue_stats import QueueSnapshot, QueueStats
from support.redis_site import REFUSED, SINKS, QueueSite

BREAKER = Timings(breaker_threshold=2, breaker_first_s=5.0, breaker_max_s=60.0, lease_s=3.0)


async def read(site: QueueSite) -> QueueSnapshot:
    progress = TransferProgress(site.redis, site.keys).read
    return await QueueStats(site.redis, site.keys, ["gio", "other"], SINKS, progress).read(site.now)


async def open_breakers(site: QueueSite) -> set[tuple[str, str]]:
    return {names for names, is_open in (await read(site)).breaker_open.items() if is_open}


async def test_breaker_is_open_until_platform_answers(queue_site: QueueSite) -> None:
    queue_site.timings = BREAKER
    await queue_site.enqueue()
    await queue_site.fail_alone(await queue_site.one())
    assert await open_breakers(queue_site) == set(), "one failure opened the breaker"
    await queue_site.down(await queue_site.one())
    assert await open_breakers(queue_site) == {("gio", "platform")}
    queue_site.later(6)
    assert await open_breakers(queue_site) == {("gio", "platform")}, "closed before a probe"
    probe = await queue_site.one()
    queue_site.later(BREAKER.lease_s + 1)
    assert await open_breakers(queue_site) == {("gio", "platform")}, "closed before the probe answered"
    await queue_site.submit(probe, PlatformSignal("up"))
    assert await open_breakers(queue_site) == set()


async def test_each_kind_of_calls_has_a_separate_breaker(queue_site: QueueSite) -> None:
    await queue_site.redis.hset(queue_site.keys.breaker("other", "transfer"), "until", queue_site.now_ms)
    await queue_site.redis.hset(queue_site.keys.breaker("gio", "submit"), "until", queue_site.now_ms)
    snapshot = await read(queue_site)
    assert await open_breakers(queue_site) == {("other", "transfer"), ("gio", "submit")}
    assert len(snapshot.breaker_open) == 8
    text = (await Metrics().text(snapshot)).decode()
    assert 'export_worker_breaker_open{connection="gio",kind="submit"} 1.0' in text
    assert 'export_worker_breaker_open{connection="gio",kind="platform"} 0.0' in text


async def test_waiting_transfers_are_due(queue_site: QueueSite) -> None:
    for _ in range(3):
        await queue_site.transferring()
    # The claim moves all of them to the set of their connection, and takes the first.
    assert len(await queue_site.claim(1, "transfer")) == 1
    queue_site.later(10)
    snapshot = await read(queue_site)
    assert snapshot.due_now["transfer"] == 2
    assert snapshot.oldest_due_age_s["transfer"] == pytest.approx(10, abs=2)


async def test_export_is_slow_when_it_runs_much_longer_than_the_last_ones_of_its_kind(queue_site: QueueSite) -> None:
    for _ in range(DURATIONS_MIN):
        await queue_site.running()
        await queue_site.ready(await queue_site.one(), PlatformSignal("up", duration_s=200.0))
        await queue_site.succeed(await queue_site.one("transfer"))
    export_id = await queue_site.running()
    queue_site.later(SLOW_FACTOR * 200 - 10)
    assert (await read(queue_site)).slow == {("gio", "growingio.tag_users"): 0}
    queue_site.later(20)
    snapshot = await read(queue_site)
    assert snapshot.slow == {("gio", "growingio.tag_users"): 1}
    assert 'slow_exports{connection="gio",kind="growingio.tag_users"} 1.0' in (await Metrics().text(snapshot)).decode()
    status = await queue_site.queue.status(export_id)
    (facts,) = await read_facts(queue_site.redis, queue_site.keys, [status], queue_site.now)
    assert "much longer than usual" in explanation(facts).text()
    await queue_site.ready(await queue_site.one())
    assert (await read(queue_site)).slow == {}


async def test_refused_event_has_an_age_until_it_is_delivered(queue_site: QueueSite) -> None:
    outbox = Outbox(queue_site.redis, queue_site.keys)
    event_id = f"{await queue_site.ended(REFUSED)}.1"
    assert (await read(queue_site)).oldest_refusal_age_s == {"stream": 0, "hook": 0}
    for _ in range(3):
        (delivery,) = await outbox.take("hook", queue_site.now)
        await outbox.postpone("hook", delivery, queue_site.now, 600)
        queue_site.later(700)
    snapshot = await read(queue_site)
    assert snapshot.oldest_refusal_age_s["hook"] == pytest.approx(2100, abs=1)
    assert snapshot.oldest_refusal_age_s["stream"] == 0
    await outbox.acknowledge("hook", event_id)
    assert (await read(queue_site)).oldest_refusal_age_s["hook"] == 0


async def test_metrics_of_queue_are_absent_without_redis(queue_site: QueueSite) -> None:
    metrics = Metrics()
    names = {f"export_worker_{name}" for name in QUEUE_METRICS}
    await queue_site.running()
    queue_site.later(SLOW_MIN_S + 1)
    until = isoformat(queue_site.now - timedelta(hours=1))
    archived = {"uri": "s3://b/history/", "until": until, "retention_s": "86400"}
    await queue_site.redis.hset(queue_site.keys.archive, mapping=archived)
    for snapshot, present in ((await read(queue_site), True), (None, False)):
        text = (await metrics.text(snapshot)).decode()
        found = {
            sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
        }
        assert found["export_worker_redis_up"] == present
        assert (names & found.keys() == names) == present
        assert present or not names & found.keys()


@pytest.fixture
async def pages(queue_site: QueueSite, redis_url: str, namespace: str) -> AsyncIterator[TriggerPages]:
    client = open_redis(redis_url, retries=0)
    yield TriggerPages("t", client, Keys(namespace), ConsumerGroup(f"{namespace}:in", "g"))
    await close_redis(client)


async def metrics_of(pages: TriggerPages) -> dict[str, float]:
    text = (await pages.metrics()).decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {sample.name: sample.value for sample in samples if sample.labels.get("outcome") in {None, "unusable"}}


async def test_trigger_exports_lag_and_number_of_dead_letters(pages: TriggerPages, queue_site: QueueSite) -> None:
    redis, stream = queue_site.redis, f"{queue_site.keys.namespace}:in"
    before = await metrics_of(pages)
    assert before["export_trigger_redis_up"] == 1
    assert before["export_trigger_messages_total"] == 0, "the counter does not start at zero"
    assert "export_trigger_lag_seconds" not in before, "a lag without a consumer group"
    await redis.xgroup_create(stream, "g", id="0", mkstream=True)
    assert (await metrics_of(pages))["export_trigger_lag_seconds"] == 0
    sent_ms = queue_site.now_ms - 90_000
    for number in range(2):
        await redis.xadd(stream, {"request": "{}"}, id=f"{sent_ms + number}-0")
    await redis.xadd(queue_site.keys.dead("t"), {"id": "1"})
    pages.count("unusable")
    found = await metrics_of(pages)
    assert found["export_trigger_lag_seconds"] == pytest.approx(90, abs=5)
    assert (found["export_trigger_dead_letters"], found["export_trigger_messages_total"]) == (1, 1)
    assert found["process_resident_memory_bytes"] > 0
    await redis.xreadgroup("g", "c", {stream: ">"}, count=1)
    now_s = (queue_site.now + timedelta(seconds=10)).timestamp()
    assert await lag_s(redis, ConsumerGroup(stream, "g"), now_s) == pytest.approx(100, abs=0.01)
    await redis.xreadgroup("g", "c", {stream: ">"}, count=1)
    assert await lag_s(redis, ConsumerGroup(stream, "g"), now_s) == 0


async def test_trigger_without_redis_exports_metrics_of_its_process(namespace: str) -> None:
    client = open_redis("redis://127.0.0.1:1/0", retries=0)
    found = await metrics_of(TriggerPages("t", client, Keys(namespace), ConsumerGroup("s", "g")))
    await close_redis(client)
    assert found["export_trigger_redis_up"] == 0
    assert "export_trigger_dead_letters" not in found
    assert found["process_cpu_seconds_total"] > 0

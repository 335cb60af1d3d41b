"""The hourly statistics: what they sum up, and how Redis is read for them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.reads.stats import HASHES_MAX, hours_between, summed
from export_producers.reads.stats_document import StatsHour
from export_worker.contract.durations import BUCKETS_S
from export_worker.errors import OperationFailedError
from support.gateway_site import GatewaySite, open_gateway
from support.redis_monitor import commands_during
from support.redis_site import MANY, REFUSED, QueueSite

HOUR = timedelta(hours=1)


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        gateway.site.limits = {"gio": MANY, "other": MANY}
        yield gateway


async def failed(site: QueueSite, error: Any = REFUSED, connection: str = "gio") -> None:
    """Lets an export fail."""
    await site.running(connection)
    await site.fail(await site.one(), error)


async def put(site: QueueSite, connection: str, moment: datetime, **counts: int) -> None:
    """Stores what a worker would have counted in the hour of a time."""
    fields = {name.replace("__", ":"): count for name, count in counts.items()}
    await site.redis.hset(site.keys.hour(connection, moment), mapping=fields)
    await site.redis.hset(site.keys.codes("connection"), connection, 100)


async def test_stats_have_what_ended_by_phase_and_code_with_bytes_and_durations(gateway: GatewaySite) -> None:
    site = gateway.site
    await site.ended(error=None)
    await failed(site)
    await failed(site, OperationFailedError("ERROR"))
    response = await gateway.call("GET", "/v1/stats?connection=gio")
    assert response.status == 200
    stats = response.json
    assert (stats["connection"], stats["step"], stats["buckets_s"]) == ("gio", "hour", list(BUCKETS_S))
    assert len(stats["hours"]) == 25, "a day, and the hour that has begun"
    ended = {name: sum(hour["ended"][name] for hour in stats["hours"]) for name in ("succeeded", "failed", "cancelled")}
    assert ended == {"succeeded": 1, "failed": 2, "cancelled": 0}
    codes: dict[str, int] = {}
    for hour in stats["hours"]:
        codes |= hour["codes"]
        assert len(hour["durations"]) == len(BUCKETS_S) + 1
    assert codes == {"platform_refused": 1, "platform_error": 1}
    assert sum(hour["bytes"] for hour in stats["hours"]) == 5
    assert sum(sum(hour["durations"]) for hour in stats["hours"]) == 3


async def test_stats_without_a_connection_sum_up_all(gateway: GatewaySite) -> None:
    now = datetime.now(UTC)
    await put(gateway.site, "gio", now - 2 * HOUR, ended__succeeded=2, bytes=10, duration__5=2)
    await put(gateway.site, "other", now - 2 * HOUR, ended__failed=1, error__timeout=1, bytes=1, duration__inf=1)
    start, end = ((now - ago * HOUR).isoformat().replace("+00:00", "Z") for ago in (3, 1))
    stats = (await gateway.call("GET", f"/v1/stats?from={start}&to={end}")).json
    assert stats["connection"] is None
    (middle,) = [hour for hour in stats["hours"] if sum(hour["ended"].values())]
    assert middle["ended"] == {"succeeded": 2, "failed": 1, "cancelled": 0}
    assert (middle["codes"], middle["bytes"]) == ({"timeout": 1}, 11)
    assert (middle["durations"][1], middle["durations"][-1]) == (2, 1)
    assert [hour["start"] for hour in stats["hours"]] == sorted(hour["start"] for hour in stats["hours"])
    one = (await gateway.call("GET", f"/v1/stats?from={start}&to={end}&connection=other")).json
    assert sum(hour["ended"]["succeeded"] for hour in one["hours"]) == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("to=0001-01-01T00:00:00Z", "to"),
        ("to=1969-12-31", "to"),
        ("from=15d", "from"),
        ("to=9999-12-31T23:59:59-14:00", "to"),
        ("from=2026-11-01T00:00:00Z&to=2026-11-30T00:00:00Z", "from"),
        ("from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z", "from"),
        ("step=day", "step"),
        ("hours=3", "query"),
    ],
)
async def test_invalid_parameter_is_refused_with_its_name(gateway: GatewaySite, query: str, field: str) -> None:
    response = await gateway.call("GET", f"/v1/stats?{query}")
    assert (response.status, [error["field"] for error in response.json["errors"]]) == (400, [field])


async def test_fourteen_days_of_several_connections_are_read_in_pieces(queue_site: QueueSite, redis_url: str) -> None:
    now, names = datetime.now(UTC), [f"c{number}" for number in range(6)]
    for name in names:
        await put(queue_site, name, now - timedelta(days=13), ended__succeeded=1)
    # One call for the names, and one pipeline for each thousand hashes. Redis sees each command of a pipeline.
    reads = queue_site.queue.reads
    await reads.overview()  # the clock has been set
    found = await commands_during(redis_url, reads.stats(None, now - timedelta(days=14), now))
    assert found.count("HGETALL") == 6 * 337
    assert len(found) <= 6 * 337 + 2
    assert HASHES_MAX == 1000
    series = await reads.stats(None, now - timedelta(days=14), now)
    assert list(series) == names
    assert {len(hours) for hours in series.values()} == {337}
    assert sum(hour.ended.succeeded for hour in summed(list(series.values()))) == 6


def test_hours_between_have_the_first_and_the_last_begun_hour() -> None:
    first = datetime(2026, 11, 22, 3, 59, tzinfo=UTC)
    assert [hour.hour for hour in hours_between(first, first + HOUR)] == [3, 4]
    assert [hour.hour for hour in hours_between(first, first)] == [3]


async def test_counts_that_another_version_wrote_are_ignored(queue_site: QueueSite) -> None:
    now = datetime.now(UTC)
    await put(queue_site, "gio", now, ended__succeeded=1, later=3, duration__77=4, ended__paused=2)
    (hour,) = (await queue_site.queue.reads.stats(["gio"], now, now))["gio"]
    assert (hour.ended.succeeded, hour.ended.failed, sum(hour.durations)) == (1, 0, 0)
    assert hour == StatsHour.model_validate(hour.model_dump())


async def test_stats_of_an_empty_namespace_have_hours_with_zeros(gateway: GatewaySite) -> None:
    hours = (await gateway.call("GET", "/v1/stats")).json["hours"]
    assert len(hours) == 25
    assert {sum(hour["ended"].values()) for hour in hours} == {0}

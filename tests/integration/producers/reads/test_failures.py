"""The causes of failures: how they are grouped, what is read for them, and how HTTP and the command show them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers import ExportFilter
from export_producers.gateway.handlers.failures import FAILURES_KEPT_S
from export_producers.reads import failures
from export_producers.reads.failures import read_failures
from export_producers.reads.failures_document import Failures
from export_producers.testing import Fails, InMemoryExportQueue
from export_worker.errors import OperationFailedError, PlatformNotFoundError, StepError
from support.gateway_site import GatewaySite, open_gateway
from support.redis_monitor import commands_during
from support.redis_site import MANY, QueueSite, request_of


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


async def failed(site: QueueSite, error: StepError, connection: str = "gio") -> str:
    """Returns an export that has failed. Nothing else may be due."""
    export_id = await site.enqueue(connection)
    await site.fail(await site.one(), error)
    return export_id


def brief(found: Failures) -> list[tuple[Any, ...]]:
    """Returns the causes of the groups, with their sizes."""
    return [(each.connection, each.step, each.code, each.message, each.count) for each in found.groups]


async def test_failures_are_grouped_by_cause_the_most_frequent_first(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": MANY, "other": MANY}
    missing = [await failed(queue_site, PlatformNotFoundError(f"no tag 12{number}")) for number in range(7)]
    await failed(queue_site, PlatformNotFoundError("no tag 77"), "other")
    stopped = [await failed(queue_site, OperationFailedError(f"stopped at {number} %")) for number in (10, 20)]
    await queue_site.enqueue()
    found = await read_failures(queue_site.queue, ExportFilter())
    assert brief(found) == [
        ("gio", "submit", "platform_refused", "no tag …", 7),
        ("gio", "submit", "platform_error", "stopped at … %", 2),
        ("other", "submit", "platform_refused", "no tag …", 1),
    ]
    first, second, _ = found.groups
    assert first.kind == "growingio.tag_users"
    assert first.export_ids == missing[:1:-1], "the five newest"
    assert (first.retryable, first.hopeless) == (False, 7)
    assert (second.retryable, second.hopeless) == (False, 0), "another operation may succeed"
    ended = [(await queue_site.queue.status(export_id)).finished_at for export_id in stopped]
    assert [second.first_at, second.last_at] == ended
    assert (found.total, found.searched_until, found.groups_left_out) == (10, None, 0)
    assert found.counted_since == first.first_at
    assert (sum(first.counts), first.counts[0] > 0, len(first.counts)) == (7, True, 24)


async def test_failures_are_filtered(queue_site: QueueSite) -> None:
    refused = await failed(queue_site, PlatformNotFoundError("gone"))
    await failed(queue_site, OperationFailedError("stopped"))
    for where in (ExportFilter(error="platform_refused"), ExportFilter(search=refused[:8])):
        (group,) = (await read_failures(queue_site.queue, where)).groups
        assert group.export_ids == [refused]
    later = ExportFilter(since=datetime.now(UTC) + timedelta(hours=1))
    assert (await read_failures(queue_site.queue, later)).groups == []


async def test_no_more_than_the_newest_failures_are_read(
    queue_site: QueueSite, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FAILURES_MAX", 4)
    monkeypatch.setattr(failures, "READ_AT_ONCE", 2)
    for number in range(7):
        await failed(queue_site, PlatformNotFoundError(f"no tag 12{number}"))
    found = await read_failures(queue_site.queue, ExportFilter())
    assert (found.groups[0].count, found.total) == (4, 7)
    assert found.searched_until is not None
    commands = await commands_during(redis_url, read_failures(queue_site.queue, ExportFilter()))
    assert commands == ["EVALSHA"] * 2


async def test_failures_over_http_have_the_filters_of_a_listing(gateway: GatewaySite) -> None:
    await failed(gateway.site, PlatformNotFoundError("no tag 121"))
    await failed(gateway.site, OperationFailedError("stopped"))
    response = await gateway.call("GET", "/v1/failures?since=1h&connection=gio&error=platform_refused&q=")
    assert response.status == 200
    found = Failures.model_validate(response.json)
    assert brief(found) == [("gio", "submit", "platform_refused", "no tag …", 1)]
    assert len((await gateway.call("GET", "/v1/failures")).json["groups"]) == 2
    assert (await gateway.call("GET", "/v1/failures?until=1h")).json["groups"] == []
    for wrong in ("phase=failed", "since=soon", "x=1"):
        assert (await gateway.call("GET", f"/v1/failures?{wrong}")).status == 400


async def test_failures_are_read_once_in_some_seconds_for_each_filter(gateway: GatewaySite, redis_url: str) -> None:
    await failed(gateway.site, PlatformNotFoundError("no tag 121"))

    async def ask() -> list[int]:
        paths = ("/v1/failures", "/console/failures", "/v1/failures?since=24h", "/v1/failures?connection=gio")
        answers = [await gateway.call("GET", path) for path in paths]
        return [len(answer.json["groups"]) for answer in answers if answer.headers["Content-Type"].endswith("/json")]

    await gateway.call("GET", "/console/failures?since=1h")
    commands = await commands_during(redis_url, ask())
    assert commands.count("EVALSHA") == 2, "one read for each filter"
    await failed(gateway.site, OperationFailedError("stopped"))
    gateway.now_s[0] += FAILURES_KEPT_S
    assert await ask() == [2, 2, 2]


async def test_only_the_largest_groups_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "GROUPS_MAX", 2)
    ends = [Fails("platform_error", message) for message in ("a", "b", "b", "c", "c", "c")]
    async with InMemoryExportQueue(then=ends) as queue:
        for accepted in [await queue.enqueue(request_of()) for _ in ends]:
            queue.end(accepted.export_id)
        found = await read_failures(queue, ExportFilter())
    assert ([group.message for group in found.groups], found.groups_left_out) == (["c", "b"], 1)

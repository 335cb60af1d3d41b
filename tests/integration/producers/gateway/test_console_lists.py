"""What the lists and the overview of the console say about exports, connections and the system."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from arq.connections import ArqRedis

from export_worker.errors import PlatformUnavailableError
from support.console_pages import text
from support.gateway_site import GatewaySite, open_gateway
from support.redis_monitor import commands_during
from support.redis_site import REFUSED

TEMPORARY = PlatformUnavailableError("HTTP 503")


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


def counts(page: str) -> dict[str, int]:
    """Returns the numbers of the chips by phase."""
    found = re.findall(r'<a href="/console/exports\?[^"]*phase=(\w+)[^>]*>.*?</span> (\d+)</a>', page)
    return {phase: int(count) for phase, count in found}


async def test_overview_shows_the_bytes_of_each_hour_as_a_chart_and_a_table(console: GatewaySite) -> None:
    await console.site.ended(None)
    page = text(await console.call("GET", "/console/"))
    assert "Bytes stored by hour, at most 5 B" in page
    assert len(re.findall('<rect class="bytes"', page)) == 1
    assert "<td>1</td><td>0</td><td>0</td><td>5 B</td>" in page


async def test_pages_show_how_many_need_attention_in_their_frame(console: GatewaySite, redis_url: str) -> None:
    await console.site.failed(3, TEMPORARY)
    failures = text(await console.call("GET", "/console/failures"))
    assert "<title>(3) Failures" in failures
    exports = text(await console.call("GET", "/console/exports"))
    assert "<title>Exports" in exports
    assert re.search('Failures +<b class="badge" id="badge-failures">3</b>', exports)
    # The numbers are those of the first page: no further call.
    found = await commands_during(redis_url, console.call("GET", "/console/exports?kind=none"))
    assert found == ["EVALSHA"]


async def test_chips_count_exports_by_phase_if_the_overview_knows_the_numbers(console: GatewaySite) -> None:
    await console.site.failed(2, REFUSED)
    await console.site.enqueue()
    page = text(await console.call("GET", "/console/exports"))
    assert counts(page) == {"queued": 1, "failed": 2, "running": 0, "transferring": 0, "succeeded": 0, "cancelled": 0}
    of_connection = text(await console.call("GET", "/console/exports?connection=gio&phase=failed"))
    assert counts(of_connection)["failed"] == 2
    assert counts(text(await console.call("GET", "/console/exports?kind=growingio.tag_users"))) == {}


async def test_list_has_views_of_what_waits_and_what_is_slow(console: GatewaySite) -> None:
    waiting = await console.site.enqueue()
    await console.site.redis.zadd(console.site.keys.parked("gio"), {console.site.keys.job_id(waiting, 0): 1})
    page = text(await console.call("GET", "/console/exports?state=waiting"))
    assert '<a href="/console/exports?state=waiting" aria-current="true">Waiting for a slot</a>' in page
    assert f'id="export-{waiting}"' in page
    assert "export-worker list --state waiting" in page
    assert 'name="all"' in page
    slow = text(await console.call("GET", "/console/exports?state=slow", headers={"Accept-Language": "zh"}))
    assert '<a href="/console/exports?state=slow" aria-current="true">比平常慢</a>' in slow
    assert f'id="export-{waiting}"' not in slow
    every = text(await console.call("GET", "/console/bulk/new?action=cancel&all=1&state=waiting"))
    assert f"/console/exports/{waiting}" in every
    selected = await console.call("GET", f"/console/bulk/new?action=cancel&state=waiting&id={waiting}")
    assert selected.status == 200


async def test_list_says_that_a_connection_is_paused_and_what_is_usual(console: GatewaySite) -> None:
    site = console.site
    await site.redis.lpush(site.keys.durations("gio", "growingio.tag_users"), 40_000, 42_000)
    await site.redis.hset(site.keys.limits, mapping={"gio": "1"})
    await site.running()
    await site.enqueue()
    until = (datetime.now(UTC) + timedelta(minutes=6)).isoformat()
    await console.call("POST", "/v1/connections/gio/pause", {"until": until})
    page = text(await console.call("GET", "/console/exports"))
    assert "paused by an operator, resumes in 5 min" in page
    assert "usually 4" in page
    assert "no free slot (1 of 1 in use)" in page


async def test_export_shows_its_usual_duration_its_due_time_and_its_files(console: GatewaySite) -> None:
    site = console.site
    stored = await site.ended(None)
    page = text(await console.call("GET", f"/console/exports/{stored}"))
    assert "aws s3 cp s3://bucket/k/b.csv ." in page
    assert "Timeline as JSON" in page
    await site.redis.lpush(site.keys.durations("gio", "growingio.tag_users"), 40_000, 90_000)
    export_id = await site.running()
    assert "is due" not in text(await console.call("GET", f"/console/exports/{export_id}"))  # it is due now
    claimed = await site.one()
    await site.commit(claimed, site.pending(claimed, draw=1.0))
    page = text(await console.call("GET", f"/console/exports/{export_id}"))
    assert "Half of such exports take at most" in page
    assert '<svg class="strip"' in page
    assert 'data-text="(in {seconds} s)"' in page

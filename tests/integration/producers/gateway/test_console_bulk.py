"""The pages that retry or cancel many exports, over real sockets with a real Redis."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.metadata import entry_points

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_worker.contract.kind_names import CANCELLING, PLATFORM_OF_KIND
from export_worker.contract.status import Phase
from export_worker.errors import PlatformUnavailableError
from export_worker.platforms.base import Cancelling
from export_worker.platforms.registry import GROUP
from support.console_pages import fields_of, links, text
from support.gateway_site import GatewaySite, Response, open_gateway
from support.redis_site import REFUSED

TEMPORARY = PlatformUnavailableError("HTTP 503")


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    """A console without keys, whose client keeps the cookie of its forms."""
    async with (
        open_gateway(arq_redis, redis_url, namespace) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        yield replace(gateway, client=client)


async def confirmed(console: GatewaySite, page: Response, **typed: str) -> Response:
    """Sends the form of a page that asks for a confirmation, with some fields changed."""
    form = [pair for pair in fields_of(page, "/console/bulk") if pair[0] not in typed]
    return await console.call("POST", "/console/bulk", data=[*form, *typed.items()], allow_redirects=False)


async def phases(console: GatewaySite, export_ids: list[str]) -> list[Phase]:
    return [(await console.site.queue.status(each)).phase for each in export_ids]


async def until_shown(console: GatewaySite, path: str, part: str) -> str:
    """Waits until a page has a text, which is a regular expression."""
    async with asyncio.timeout(30):
        while not re.search(part, page := text(await console.call("GET", path))):
            await asyncio.sleep(0.05)
    return page


async def test_failures_are_retried_without_those_that_cannot_succeed(console: GatewaySite) -> None:
    temporary = await console.site.failed(12, TEMPORARY)
    refused = await console.site.failed(3, REFUSED)
    failures = await console.call("GET", "/console/failures")
    (target,) = [each for each in links(failures, "/console/bulk/new") if "error" not in each]
    page = await console.call("GET", target)
    assert "Retry 12 export(s)?" in text(page)
    assert "Left out, because a retry alone cannot succeed: 3" in text(page)
    assert "platform_refused" in text(page)
    assert "export-worker retry --failed --since 20" in text(page)
    started = await confirmed(console, page, per_second="1000")
    assert re.fullmatch("/console/bulk/[0-9a-f]{32}", started.headers["Location"])
    assert "12 of 12 export(s)" in await until_shown(console, started.headers["Location"], "Done.")
    assert set(await phases(console, temporary)) == {Phase.QUEUED}
    assert set(await phases(console, refused)) == {Phase.FAILED}
    (target,) = links(await console.call("GET", started.headers["Location"]), "/console/exports?")
    assert len(re.findall(r'<tr id="export-', text(await console.call("GET", target)))) == 15, (
        "also those it has changed"
    )


async def test_hopeless_failures_are_retried_after_their_cause_was_fixed(console: GatewaySite) -> None:
    refused = await console.site.failed(2, REFUSED)
    page = await console.call("GET", "/console/bulk/new?action=retry&all=1&error=platform_refused")
    assert "No export is selected that a retry can help." in text(page)
    (target,) = [each for each in links(page, "/console/bulk/new") if "hopeless=1" in each]
    started = await confirmed(console, await console.call("GET", target))
    await until_shown(console, started.headers["Location"], "Done.")
    assert set(await phases(console, refused)) == {Phase.QUEUED}


async def test_run_is_stopped_halfway_without_scripts(console: GatewaySite) -> None:
    export_ids = await console.site.failed(30, TEMPORARY)
    page = await console.call("GET", "/console/bulk/new?action=retry&all=1")
    path = (await confirmed(console, page, per_second="10")).headers["Location"]
    running = await console.call("GET", path)
    assert '<noscript><meta http-equiv="refresh"' in text(running)
    await until_shown(console, path, "[1-9][0-9]* of 30")
    await console.call("POST", f"{path}/stop", data=fields_of(running, f"{path}/stop"))
    assert "the other exports are unchanged" in await until_shown(console, path, "Stopped")
    assert Phase.FAILED in await phases(console, export_ids)


async def test_selected_exports_are_cancelled_with_what_becomes_of_their_operations(console: GatewaySite) -> None:
    running, queued = await console.site.running(), await console.site.enqueue()
    other = await console.site.enqueue()
    page = await console.call("GET", f"/console/bulk/new?action=cancel&id={running}&id={queued}")
    assert "Cancel 2 export(s)?" in text(page)
    assert "Of these, 1 stop here, but continue at growingio, which cannot cancel" in text(page)
    started = await confirmed(console, page)
    await until_shown(console, started.headers["Location"], "Done.")
    cancelled = ["cancel" in await console.site.record(each) for each in (running, queued, other)]
    assert cancelled == [True, True, False]


async def test_list_offers_what_can_be_done_to_its_exports(console: GatewaySite) -> None:
    (failed,) = await console.site.failed(1, TEMPORARY)
    listed = await console.call("GET", "/console/exports?phase=failed")
    assert f'name="id" value="{failed}"' in text(listed)
    assert fields_of(listed, "/console/bulk/new") == [("phase", "failed"), ("all", "1")]
    assert re.findall('name="action" value="([a-z]+)"', text(listed)) == ["retry"]
    nothing = await console.call("GET", "/console/bulk/new?action=retry&phase=failed")
    assert "select exports first" in text(nothing)


async def test_action_on_many_exports_needs_their_number(console: GatewaySite) -> None:
    await console.site.failed(101, TEMPORARY)
    page = await console.call("GET", "/console/bulk/new?action=retry&all=1")
    assert "Type 101 to confirm" in text(page)
    for typed in ("", "100"):
        refused = await confirmed(console, page, typed=typed)
        assert refused.status == 400
    assert (await confirmed(console, page, typed="101")).status == 303


async def test_confirmation_is_asked_again_if_the_count_has_grown(console: GatewaySite) -> None:
    await console.site.failed(5, TEMPORARY)
    page = await console.call("GET", "/console/bulk/new?action=retry&all=1")
    export_ids = await console.site.failed(1, TEMPORARY)
    asked = await console.call("GET", (await confirmed(console, page)).headers["Location"])
    assert "You expected 5 export(s), but now 6 match." in text(asked)
    assert await phases(console, export_ids) == [Phase.FAILED]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("action=retry", 400),
        ("action=drop&all=1", 400),
        ("action=retry&all=1&from=end", 400),
        ("action=retry&all=1&colour=red", 400),
        ("action=cancel&all=1&phase=failed", 422),
        ("action=retry&all=1&q=%3Cscript%3E", 200),
    ],
)
async def test_wrong_address_is_explained(console: GatewaySite, query: str, status: int) -> None:
    page = await console.call("GET", f"/console/bulk/new?{query}")
    assert page.status == status
    assert "<script>" not in text(page)


def test_known_platforms_without_cancellation_are_those_of_the_drivers() -> None:
    drivers = {point.name: point.load() for point in entry_points(group=GROUP)}
    own = {name: driver for name, driver in drivers.items() if name in PLATFORM_OF_KIND.values()}
    assert {name for name, driver in own.items() if issubclass(driver, Cancelling)} == CANCELLING


async def test_form_that_is_sent_twice_orders_one_run(console: GatewaySite) -> None:
    await console.site.failed(3, TEMPORARY)
    page = await console.call("GET", "/console/bulk/new?action=retry&all=1")
    sent = await asyncio.gather(*(confirmed(console, page, per_second="1") for _ in range(3)))
    again = await confirmed(console, page, per_second="1")
    (target,) = {response.headers["Location"] for response in (*sent, again)}
    assert target.startswith("/console/bulk/")
    assert await console.site.redis.zcard(console.site.keys.bulks) <= 1
    assert (await confirmed(console, page, run="x")).status == 400

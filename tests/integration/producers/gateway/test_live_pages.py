"""Live pages of the console: which parts reach the tabs, and that pages without changes are not read."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from html import unescape
from time import monotonic

import aiohttp
import pytest
from arq.connections import ArqRedis
from structlog.testing import capture_logs

from export_producers.console import live
from export_producers.console.live import AGEING_S, CHANGES_INTERVAL_S, INTERVAL_S, LivePage, LivePages
from export_producers.gateway.handlers.failures import FAILURES_KEPT_S
from export_producers.gateway.problems import ProblemError
from export_producers.reads.change_feed import READ_INTERVAL_S
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.message import Message
from export_worker.contract.status import Phase, Progress
from export_worker.errors import PlatformNotFoundError
from export_worker.redis.client import SOCKET_TIMEOUT_S
from export_worker.redis.outbox import Delivery, Outbox
from support.console_world import SINK, TRIGGER, fill
from support.gateway_site import OPTIONS, GatewaySite, open_gateway
from support.redis_monitor import commands_during, script_commands_during
from support.redis_site import MANY, QueueSite
from support.slow_redis import slow_redis

Parts = dict[str, str]


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    options = replace(OPTIONS, max_streams=200)
    async with open_gateway(arq_redis, redis_url, namespace, options, connections=("gio", "other")) as gateway:
        gateway.site.limits = {"gio": MANY, "other": MANY}
        yield gateway


@asynccontextmanager
async def tab(console: GatewaySite, path: str) -> AsyncIterator[AsyncIterator[Parts]]:
    """Opens a live page and yields the parts of its events. A part without HTML is a new one."""

    async def events(response: aiohttp.ClientResponse) -> AsyncIterator[Parts]:
        async for line in response.content:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))

    async with console.client.get(f"{console.url}/console/live/{path}") as response:
        assert response.content_type == "text/event-stream"
        yield events(response)


async def part(events: AsyncIterator[Parts], name: str, text: str = "") -> str:
    """Returns the next HTML of a part that has a text."""
    async with asyncio.timeout(20):
        async for parts in events:
            if name in parts and text in parts[name]:
                return parts[name]
    raise AssertionError("the stream has ended")


async def test_only_the_pages_with_a_changed_export_are_read(console: GatewaySite, redis_url: str) -> None:
    other = await console.site.enqueue("other")
    export_id = await console.site.enqueue()
    paths = ["exports?connection=other", "exports?phase=failed", f"exports/{other}", "exports?connection=gio"]
    async with (
        tab(console, paths[0]) as first,
        tab(console, paths[1]) as second,
        tab(console, paths[2]) as third,
        tab(console, paths[3]) as changed,
    ):
        for events in (first, second, third, changed):
            await anext(events)

        async def change() -> None:
            (claimed,) = [each for each in await console.site.claim() if each.export.export_id == export_id]
            await console.site.submit(claimed)
            await part(changed, f"export-{export_id}", "after 0 poll(s)")

        async with asyncio.timeout(AGEING_S):  # otherwise the age of the pages lets them be read
            found = await script_commands_during(redis_url, change())
    # One status was read for all pages. The read of a status looks for the record of an ended export, too.
    assert len([command for command in found if "LRANGE" in command[0] and "stored:" in command[1]]) == 1, found


async def test_tabs_of_many_pages_share_the_round_trip_for_a_change(console: GatewaySite, redis_url: str) -> None:
    export_ids = [await console.site.enqueue() for _ in range(6)]
    paths = [f"exports/{export_id}" for export_id in export_ids]
    async with asyncio.timeout(AGEING_S), AllTabs(console, paths) as tabs:
        claimed = await console.site.claim()

        async def change() -> None:
            for step in claimed:
                await console.site.submit(step)
            await asyncio.gather(*(part(events, "part-platform", "CREATED") for events in tabs))

        found = await commands_during(redis_url, change())
    # Each export needs 15 commands. With a round trip of its own, each would also ask for the time.
    assert found.count("TIME") == 0, found


class AllTabs:
    """Opens several tabs, and waits for the first event of each."""

    def __init__(self, console: GatewaySite, paths: list[str]) -> None:
        self._tabs = [tab(console, path) for path in paths]

    async def __aenter__(self) -> list[AsyncIterator[Parts]]:
        streams = [await each.__aenter__() for each in self._tabs]
        for events in streams:
            await anext(events)
        return streams

    async def __aexit__(self, *_: object) -> None:
        for each in self._tabs:
            await each.__aexit__(None, None, None)


def rows_of(parts: Parts) -> set[str]:
    """Returns the parts of the list itself. Every page also has the numbers of the left bar."""
    return {name for name in parts if not name.startswith("badge-")}


async def test_row_that_leaves_the_filter_changes_in_place_and_a_new_one_is_counted(console: GatewaySite) -> None:
    export_id = await console.site.enqueue()
    async with tab(console, "exports?phase=queued") as events:
        assert rows_of(await anext(events)) == {"total", f"export-{export_id}"}
        await console.site.submit(await console.site.one())
        assert "running" in await part(events, f"export-{export_id}", "after 0 poll(s)")
        added = await console.site.enqueue()
        assert await part(events, f"export-{added}") == ""
        async with tab(console, "exports?phase=queued") as later:
            assert rows_of(await anext(later)) == {"total", f"export-{added}"}


async def test_progress_of_a_transfer_reaches_the_list_its_page_and_the_stream_of_changes(console: GatewaySite) -> None:
    site: QueueSite = console.site
    export_id = await site.transferring()
    claimed = await site.one("transfer")
    async with (
        tab(console, "exports") as rows,
        tab(console, f"exports/{export_id}") as page,
        console.client.get(f"{console.url}/v1/stream?topics=exports") as stream,
    ):
        await anext(rows)
        await anext(page)
        await site.renew(claimed, Progress(percent=37.0, bytes_done=370, bytes_total=1000))
        assert 'value="37"' in await part(rows, f"export-{export_id}", "370")
        assert 'value="37"' in await part(page, "state", "370")
        async with asyncio.timeout(20):
            async for line in stream.content:
                if line.startswith(b"data: ") and export_id.encode() in line:
                    break


def without_tokens(html: str) -> str:
    """Returns HTML without the tokens of forms. This client keeps no cookie, so it is a new visitor each time."""
    return re.sub(r'name="token" value="[^"]+"', "", html)


@pytest.mark.parametrize(
    ("path", "name", "before", "after"),
    [
        ("failures", "part-failures", "Nothing has failed", "a cause of its own"),
        ("events", "part-sinks", ">0</a>", ">1</a>"),
        ("events?state=pending&sink=hook", "total", "Events: 0", "Events: 1"),
        ("triggers", "part-triggers", "No trigger", "<bdi>ready</bdi>"),
    ],
)
async def test_page_that_is_open_when_an_export_fails_shows_it(
    console: GatewaySite, path: str, name: str, before: str, after: str
) -> None:
    site = console.site
    await site.redis.hset(site.keys.sinks, mapping={"hook": "webhook"})
    await site.enqueue()
    page = (await console.call("GET", f"/console/{path}")).body.decode()
    (followed,) = re.findall(r'data-live="/console/live/([^"]+)"', page)
    async with tab(console, unescape(followed)) as events:
        first = await part(events, name)
        # What the first event has is what the page has, so that nothing jumps.
        assert before in first
        assert without_tokens(first) in without_tokens(page)
        await site.fail(await site.one(), PlatformNotFoundError("a cause of its own"))
        await site.redis.hset(site.keys.triggers, mapping={"ready": "{}"})
        console.now_s[0] += FAILURES_KEPT_S  # so that shared reads are old
        await part(events, name, after)


async def test_listed_events_change_in_place_and_further_ones_are_counted(console: GatewaySite) -> None:
    world = await fill(console.site, "a text")
    path = f"events?sink={SINK}"
    page = (await console.call("GET", f"/console/{path}")).body.decode()
    row, outbox = f"event-{world.event_id}-{SINK}", Outbox(console.site.redis, console.site.keys)
    async with tab(console, path) as events:
        first = await anext(events)
        assert f'id="{row}"' in page
        assert without_tokens(first[row]) in without_tokens(page)
        await outbox.give_up(SINK, Delivery(world.event_id, "{}", 1), console.site.now, "it is refused")
        left = await part(events, row, "given up")
        assert "it is refused" in left
        ended = world.exports[Phase.QUEUED]
        (claimed,) = [each for each in await console.site.claim() if each.export.export_id == ended]
        await console.site.fail(claimed, PlatformNotFoundError("a cause of its own"))
        assert await part(events, f"event-{ended}.1-{SINK}") == ""


async def test_dead_letter_that_is_dropped_is_marked_and_new_ones_are_counted(console: GatewaySite) -> None:
    world = await fill(console.site, "a text")
    dead = DeadLetters(console.site.redis, console.site.keys.dead(TRIGGER))
    page = (await console.call("GET", f"/console/triggers/{TRIGGER}")).body.decode()
    (followed,) = re.findall(r'data-live="/console/live/([^"]+)"', page)
    async with tab(console, unescape(followed)) as events:
        first = await anext(events)
        assert first[f"dead-{world.entry}"] == ""
        assert f'<section id="dead-{world.entry}"' in page
        await console.call("DELETE", f"/v1/triggers/{TRIGGER}/dead/{world.entry}")
        assert world.entry in await part(events, f"dead-{world.entry}", "no longer here")
        await dead.add(Message("m3", b"{}"), "a reason")
        ((entry, _),) = await console.site.redis.xrevrange(console.site.keys.dead(TRIGGER), count=1)
        assert await part(events, f"dead-{entry.decode()}") == ""


async def test_pages_with_reads_of_their_own_take_turns(console: GatewaySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TURNS_MAX", 1)
    order = {"action": "retry", "filter": {"phase": "failed"}, "dry_run": False}
    bulk_id = (await console.call("POST", "/v1/bulk", order)).json["bulk_id"]
    reads: list[int] = []
    read_again = LivePage._read_again

    async def counted(page: LivePage) -> None:
        reads.append(id(page))
        await read_again(page)

    async with AllTabs(console, ["connections/gio", "connections/other", f"bulk/{bulk_id}"]):
        monkeypatch.setattr(LivePage, "_read_again", counted)
        await asyncio.sleep(4.5 * INTERVAL_S)
    assert len(set(reads)) == 3, "each of them has its turn"
    assert 3 <= len(reads) <= 5, "one in a second"


async def test_change_does_not_wait_for_the_read_of_a_whole_page(
    console: GatewaySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LivePages, "_old", lambda *_: [])
    export_id = await console.site.enqueue()
    async with tab(console, "exports") as events:
        await anext(events)
        await console.site.submit(await console.site.one())
        await part(events, f"export-{export_id}", "after 0 poll(s)")
    assert CHANGES_INTERVAL_S + READ_INTERVAL_S < INTERVAL_S, "the waits of both loops add up"


async def named_events(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in response.content:
        if line.startswith(b"event: "):
            yield line.decode().removeprefix("event: ").strip()


async def event(names: AsyncIterator[str], name: str) -> None:
    """Waits for an event."""
    async with asyncio.timeout(30):
        async for each in names:
            if each == name:
                return
    raise AssertionError("the stream has ended")


async def test_tab_shows_soon_that_redis_hangs_and_that_it_answers_again(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    async with slow_redis(redis_url) as slow, open_gateway(arq_redis, slow.url, namespace) as gateway:
        await gateway.site.enqueue()
        async with gateway.client.get(f"{gateway.url}/console/live/exports") as response:
            names = named_events(response)
            await event(names, "parts")
            await event(names, "alive")  # a sign of life: nothing else changes
            slow.answers.clear()
            hung_at_s = monotonic()
            await event(names, "away")
            assert monotonic() - hung_at_s < SOCKET_TIMEOUT_S, "no timeout of the client is awaited"
            slow.answers.set()
            await event(names, "alive")


async def test_page_that_cannot_be_shown_any_more_ends_its_streams_and_is_logged_once(
    console: GatewaySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_again = LivePage._read_again

    async def refused(page: LivePage) -> None:
        if page.tabs:
            raise ProblemError(404, "not_found", "there is no such connection")
        await read_again(page)

    monkeypatch.setattr(LivePage, "_read_again", refused)
    with capture_logs() as logs:
        async with asyncio.timeout(30), tab(console, "connections/gio") as events:
            assert [each async for each in events], "the first event"
    assert [each["event"] for each in logs].count("live.refused") == 1

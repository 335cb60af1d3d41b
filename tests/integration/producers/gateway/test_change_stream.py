"""`GET /v1/stream`: one stream of changes over many exports, fed by one reader for each gateway process."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_producers.gateway.callers.principals import Role
from export_producers.gateway.handlers import streams as streams_of_one
from export_producers.gateway.handlers.streams import STATUS_POLL_S
from export_producers.gateway.options import NamedKey
from export_producers.reads.change_feed import READ_INTERVAL_S
from support.gateway_site import OPTIONS, GatewaySite, open_gateway
from support.redis_monitor import commands_during
from support.redis_site import MANY, REFUSED, QueueSite


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        gateway.site.limits = {"gio": MANY, "other": MANY}
        yield gateway


@dataclass
class Listener:
    """A client of a stream."""

    response: aiohttp.ClientResponse

    async def event(self, name: str) -> dict[str, Any]:
        """Returns the next event with this name: its id and its data."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(20):
            async for line in self.response.content:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key:
                    fields[key] = value
                elif fields.get("event") == name:
                    return {"id": fields.get("id"), **json.loads(fields["data"])}
                else:
                    fields = {}
        raise AssertionError("the stream has ended")

    async def changes(self, count: int) -> list[dict[str, Any]]:
        """Returns the next changed exports."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            found += (await self.event("export"))["changed"]
        return found


@asynccontextmanager
async def listening(
    gateway: GatewaySite, query: str, last_id: str | None = None, **more: str
) -> AsyncIterator[Listener]:
    """Opens a stream, and waits until it follows the changes."""
    headers = more if last_id is None else {"Last-Event-ID": last_id, **more}
    async with gateway.client.get(f"{gateway.url}/v1/stream?{query}", headers=headers) as response:
        assert response.status == 200, await response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        yield Listener(response)


def seen(changes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Returns the id and the phase of each change."""
    return [(change["export_id"], change["phase"]) for change in changes]


async def test_stream_reports_each_export_that_changes(gateway: GatewaySite) -> None:
    site = gateway.site
    async with listening(gateway, "topics=exports") as listener:
        first = await gateway.enqueue()
        (change,) = await listener.changes(1)
        assert change == {
            "export_id": first,
            "connection": "gio",
            "kind": "growingio.tag_users",
            "phase": "queued",
            "was": None,
        }
        await site.submit(await site.one())
        assert seen(await listener.changes(1)) == [(first, "running")]
        await site.queue.cancel(first)
        assert seen(await listener.changes(1)) == [(first, "running")]
        site.catch_up()
        await site.fail(await site.one(), REFUSED)
        assert seen(await listener.changes(1)) == [(first, "failed")]
        await site.queue.retry(first, "submit")
        assert seen(await listener.changes(1)) == [(first, "queued")]


async def test_changes_of_one_export_are_merged(gateway: GatewaySite) -> None:
    site = gateway.site
    async with listening(gateway, "topics=exports") as listener:
        ids = [await gateway.enqueue() for _ in range(20)]
        assert sorted(export_id for export_id, _ in seen(await listener.changes(20))) == sorted(ids)
        async with site.redis.pipeline(transaction=True) as pipe:
            for phase in ("queued", "running", "transferring"):
                fields = {"id": ids[0], "connection": "gio", "kind": "k", "phase": phase, "was": "queued"}
                pipe.xadd(site.keys.changes, fields)
            await pipe.execute()
        assert seen((await listener.event("export"))["changed"]) == [(ids[0], "transferring")]


async def test_filter_selects_by_connection_kind_and_by_the_phase_before_or_after(gateway: GatewaySite) -> None:
    site = gateway.site
    async with (
        listening(gateway, "topics=exports&filter=connection%3Dgio%26phase%3Drunning") as running,
        listening(gateway, "topics=exports&filter=kind%3Dgrowingio.analysis") as other_kind,
    ):
        first = await gateway.enqueue()
        await site.submit(await site.one())
        assert seen(await running.changes(1)) == [(first, "running")]
        await site.ready(await site.one())
        (left,) = await running.changes(1)
        assert (left["phase"], left["was"]) == ("transferring", "running"), "it leaves the filtered list"
        await site.redis.xadd(site.keys.changes, {"id": "x", "connection": "c", "kind": "growingio.analysis"})
        assert [change["export_id"] for change in await other_kind.changes(1)] == ["x"], "it has got nothing else"


async def test_client_that_reconnects_gets_what_it_has_missed(gateway: GatewaySite) -> None:
    async with listening(gateway, "topics=exports") as listener:
        await gateway.enqueue()
        last_id = (await listener.event("export"))["id"]
    missed = await gateway.enqueue()
    async with listening(gateway, "topics=exports", last_id) as listener:
        assert seen(await listener.changes(1)) == [(missed, "queued")]


@pytest.mark.parametrize("last_id", ["1-1", "no-id", "9" * 300])
async def test_client_whose_last_event_is_no_longer_known_is_asked_to_read_again(
    gateway: GatewaySite, last_id: str
) -> None:
    await gateway.enqueue()
    async with listening(gateway, "topics=exports", last_id) as listener:
        assert "changed" not in await listener.event("reset")


async def test_overview_is_sent_at_first_and_when_it_changes(gateway: GatewaySite) -> None:
    async with listening(gateway, "topics=overview") as listener:
        assert (await listener.event("overview"))["phases"]["queued"] == 0
        await gateway.enqueue()
        gateway.now_s[0] += 2
        assert (await listener.event("overview"))["phases"]["queued"] == 1


async def test_many_streams_read_redis_as_often_as_one(gateway: GatewaySite, redis_url: str) -> None:
    async def hold() -> None:
        async with streams(gateway, 10):
            for _ in range(3):
                await gateway.enqueue()
                await asyncio.sleep(READ_INTERVAL_S)

    started_s = time.monotonic()
    commands = await commands_during(redis_url, hold())
    reads = commands.count("XRANGE")
    assert 1 <= reads <= (time.monotonic() - started_s) / READ_INTERVAL_S + 1
    # The clock of this gateway is at a stand, so all overviews are one. Another script enqueues.
    assert len(commands) - reads < 20, commands


@asynccontextmanager
async def streams(gateway: GatewaySite, count: int) -> AsyncIterator[None]:
    """Opens many streams."""
    if count == 0:
        yield
        return
    async with listening(gateway, "topics=overview,exports"), streams(gateway, count - 1):
        yield


async def test_key_of_one_connection_gets_only_its_changes(arq_redis: ArqRedis, redis_url: str, namespace: str) -> None:
    keys = (NamedKey("one", "secret-of-one", Role.VIEWER, frozenset({"other"})),)
    options, names = replace(OPTIONS, keys=keys), ("gio", "other")
    async with open_gateway(arq_redis, redis_url, namespace, options, connections=names) as gateway:
        headers = {"Authorization": "Bearer secret-of-one"}
        refused = await gateway.call("GET", "/v1/stream?filter=connection%3Dgio", headers=headers)
        assert refused.status == 403
        async with listening(gateway, "topics=overview,exports", **headers) as listener:
            assert list((await listener.event("overview"))["connections"]) == []
            await gateway.site.enqueue("gio")
            mine = await gateway.site.enqueue("other")
            assert seen(await listener.changes(1)) == [(mine, "queued")]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("topics=everything", "topics"),
        ("topics=,", "topics"),
        ("topics=exports&filter=colour%3Dred", "filter"),
        ("topics=exports&filter=phase%3Dsleeping", "filter"),
        ("filter=phase%3Drunning&topics=overview", "filter"),
        ("page=2", "query"),
    ],
)
async def test_invalid_parameter_is_refused_with_its_name(gateway: GatewaySite, query: str, field: str) -> None:
    response = await gateway.call("GET", f"/v1/stream?{query}")
    assert (response.status, [error["field"] for error in response.json["errors"]]) == (400, [field])


async def test_streams_of_changes_count_against_the_limit(gateway: GatewaySite) -> None:
    async with streams(gateway, 10):
        assert (await gateway.call("GET", "/v1/stream")).status == 503


async def test_stream_of_changes_is_bounded_in_redis(queue_site: QueueSite) -> None:
    async with queue_site.redis.pipeline(transaction=False) as pipe:
        for number in range(7000):
            pipe.xadd(queue_site.keys.changes, {"id": str(number)})
        await pipe.execute()
    await queue_site.enqueue()
    assert await queue_site.redis.xlen(queue_site.keys.changes) < 5200
    assert await queue_site.redis.pttl(queue_site.keys.changes) > 0


async def test_client_that_reads_nothing_loses_its_stream(
    gateway: GatewaySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_of_one, "SEND_TIMEOUT_S", 0.2)
    site, export_id = gateway.site, await gateway.site.running()
    status = await site.queue.status(export_id)
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(f"GET /v1/exports/{export_id}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    async with asyncio.timeout(30):
        for number in range(100):
            # Each status is larger than most buffers of sockets.
            changed = status.model_copy(update={"platform_stage": f"{number}" * 2_000_000})
            await site.redis.hset(site.keys.export(export_id), "status", changed.model_dump_json())
            await asyncio.sleep(STATUS_POLL_S)
            if b"export_gateway_streams 0.0" in (await gateway.call("GET", "/metrics")).body:
                break
    writer.close()

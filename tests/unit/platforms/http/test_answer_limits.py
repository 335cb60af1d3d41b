"""How long an answer may be, and what a long one costs: memory, and time of the event loop."""

import asyncio
import json
import resource
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from export_worker.contract.request import GrowingioTagUsers
from export_worker.credentials import Redactor
from export_worker.errors import ErrorCode, PlatformMalformedError, TooManyFilesError
from export_worker.lifecycle.observations import FILES_MAX, Ready, RemoteFile
from export_worker.platforms.http import client as http
from export_worker.platforms.http.auth import StaticAuth
from export_worker.platforms.http.client import ANONYMOUS, Call, HttpClient
from export_worker.platforms.http.responses import json_value
from support.drivers import GRAPHQL, growingio_driver, growingio_rest_driver
from support.scripted_server import ScriptedServer, json_replied, replied

EXPORT = GrowingioTagUsers(tag_id="aBcD1234")
AUTH = StaticAuth(ANONYMOUS)
MIB = 2**20


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def longest(items: str, size_bytes: int) -> bytes:
    """Returns a poll's answer of about this length, whose list of files has only these items."""
    head = '{"data":{"jobResult":{"id":"1","stage":"FINISH","uris":['
    count = (size_bytes - len(head) - 5) // (len(items) + 1)
    return (head + ",".join([items] * count) + "]}}}").encode()


@asynccontextmanager
async def client_of(server: ScriptedServer, **options: Any) -> AsyncIterator[HttpClient]:
    client = HttpClient("gio", server.url, Redactor(), **options)
    try:
        yield client
    finally:
        await client.close()


async def test_poll_answer_above_the_limit_is_refused_with_the_setting_that_raises_it() -> None:
    async with ScriptedServer() as server, growingio_driver(server) as driver:
        server.on(GRAPHQL, replied(longest("{}", 16 * MIB), content_type="application/json"))
        before_mib = peak_mib()
        with pytest.raises(PlatformMalformedError, match=r"more than 1024 KiB; connections\.gio\.answer_max_kib"):
            await driver.poll(EXPORT, "1")
        # The server of this test has the whole answer in memory already.
        assert peak_mib() - before_mib < 20


async def test_answer_max_kib_raises_the_limit() -> None:
    body = json.dumps("a" * 3 * MIB)
    async with ScriptedServer() as server, client_of(server, answer_max_kib=4096) as client:
        server.on("/x", replied(body, content_type="application/json"))
        assert len(await client.call(Call("GET", "/x"), AUTH)) == 3 * MIB


async def test_listing_may_be_longer_than_other_answers() -> None:
    body = json.dumps("a" * 3 * MIB)
    async with ScriptedServer() as server, client_of(server) as client:
        server.on("/x", replied(body, content_type="application/json"))
        assert len(await client.call(Call("GET", "/x", is_listing=True), AUTH)) == 3 * MIB
        with pytest.raises(PlatformMalformedError):
            await client.call(Call("GET", "/x"), AUTH)


async def test_listing_above_its_own_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LISTING_MAX_BYTES", 2 * MIB)
    async with ScriptedServer() as server, client_of(server) as client:
        server.on("/x", replied(json.dumps("a" * 3 * MIB), content_type="application/json"))
        with pytest.raises(PlatformMalformedError, match=r"more than 2048 KiB$"):
            await client.call(Call("GET", "/x", is_listing=True), AUTH)


async def test_catalogs_are_listings() -> None:
    items = [{"id": str(number), "name": "x" * 1000} for number in range(2000)]
    async with ScriptedServer() as server, growingio_driver(server) as driver:
        server.on(GRAPHQL, json_replied({"data": {"projects": items}}))
        assert len(await driver.catalog("projects", None)) == 2000
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on("/v1/api/projects", json_replied(items))
        assert len(await rest.catalog("projects", None)) == 2000


async def test_long_answer_is_parsed_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return json_value(*arguments)

    monkeypatch.setattr(http, "json_value", noted)
    async with ScriptedServer() as server, client_of(server) as client:
        server.on("/short", replied(json.dumps("a" * 1000)))
        server.on("/long", replied(json.dumps("a" * 100_000)))
        await client.call(Call("GET", "/short"), AUTH)
        await client.call(Call("GET", "/long"), AUTH)
    assert threads == [True, False]


async def test_worst_answer_within_the_limit_keeps_the_loop_free_enough_for_leases() -> None:
    stalls_s = [0.0]

    async def tick() -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(0.005)
            stalls_s.append(time.monotonic() - before_s)

    async with ScriptedServer() as server, growingio_driver(server) as driver:
        server.on(GRAPHQL, replied(longest("{}", MIB), content_type="application/json"))
        before_mib, ticking = peak_mib(), asyncio.create_task(tick())
        with pytest.raises(TooManyFilesError):
            await driver.poll(EXPORT, "1")
        ticking.cancel()
    assert peak_mib() - before_mib < 64
    # Leases are renewed once a second and last three seconds at least.
    assert max(stalls_s) < 1.0


@pytest.mark.parametrize("count", [FILES_MAX, FILES_MAX + 1])
async def test_more_files_than_the_limit_are_refused_by_name(count: int) -> None:
    uris = [f"/a/{number}.csv" for number in range(count)]
    async with ScriptedServer() as server, growingio_driver(server) as driver, growingio_rest_driver(server) as rest:
        server.on(GRAPHQL, json_replied({"data": {"jobResult": {"id": "1", "stage": "FINISH", "uris": uris}}}))
        server.on("/v1/api/job/result/1", json_replied({"id": "1", "stage": "FINISH", "uris": uris}))
        for poll in (driver.poll(EXPORT, "1"), rest.poll(EXPORT, "1")):
            if count <= FILES_MAX:
                polled = await poll
                assert isinstance(polled, Ready)
                assert len(polled.files) == count
                continue
            with pytest.raises(TooManyFilesError, match="10001 files; an export may have at most 10000") as caught:
                await poll
            assert (caught.value.code, caught.value.retryable) == (ErrorCode.TOO_MANY_FILES, False)


def test_driver_of_any_package_cannot_return_too_many_files() -> None:
    with pytest.raises(TooManyFilesError):
        Ready("FINISH", tuple(RemoteFile(f"/{number}", str(number)) for number in range(FILES_MAX + 1)))

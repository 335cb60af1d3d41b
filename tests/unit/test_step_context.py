"""The request gate: all requests to the platform's own origin wait for it, and no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from export_worker.credentials import Redactor
from export_worker.errors import PlatformPausedError, PlatformThrottledError
from export_worker.platforms.base import ResumePoint
from export_worker.platforms.http.auth import StaticAuth
from export_worker.platforms.http.client import ANONYMOUS, Call, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.oauth import ClientCredentialsAuth
from export_worker.step_context import gated, wait_for_gate
from support.scripted_server import CANARY, ScriptedServer, json_replied, redirected, replied


class Counter:
    """A gate that allows every request, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1


@asynccontextmanager
async def opened(server: ScriptedServer) -> AsyncIterator[HttpClient]:
    client = HttpClient("gio", server.url, Redactor())
    try:
        yield client
    finally:
        await client.close()


async def test_gate_counts_calls_and_token_requests() -> None:
    counter = Counter()
    async with ScriptedServer() as server, opened(server) as client:
        server.on(
            "/accounts/oauth/access_token", json_replied({"access_token": "t"}), json_replied({"access_token": "u"})
        )
        server.on("/x", json_replied({}, status=401), json_replied({}))
        auth = ClientCredentialsAuth(client, CANARY, "Token")
        with gated(counter):
            await client.call(Call("GET", "/x"), auth)
        await auth.close()
        # A token, the call, a second token after the first was refused, and the call again.
        assert counter.count == len(server.seen) == 4


async def test_gate_counts_streamed_responses() -> None:
    counter = Counter()
    async with ScriptedServer() as server, opened(server) as client:
        server.on("/x", json_replied({}))
        with gated(counter):
            (await client.open_stream(Call("POST", "/x"), ANONYMOUS)).close()
        assert counter.count == 1


@pytest.mark.parametrize("mark", [None, ResumePoint(1, '"a"', 3)], ids=["whole", "from the middle"])
async def test_gate_counts_each_hop_of_download_from_platform(mark: ResumePoint | None) -> None:
    counter = Counter()
    async with ScriptedServer() as server, opened(server) as client:
        server.on("/download", redirected("/files/a.csv"))
        server.on("/files/a.csv", replied(b"abc"))
        files = Downloader(client, StaticAuth(ANONYMOUS), ())
        with gated(counter):
            async with files.open(URL(f"{server.url}/download?file=a"), "a.csv", mark):
                pass
        assert counter.count == len(server.seen) == 2


async def test_gate_does_not_count_downloads_from_other_hosts() -> None:
    counter = Counter()
    async with ScriptedServer() as server, ScriptedServer() as storage, opened(server) as client:
        server.on("/download", redirected(f"{storage.url}/a.csv"))
        storage.on("/a.csv", replied(b"abc"))
        host = storage.url.removeprefix("http://")
        files = Downloader(client, StaticAuth(ANONYMOUS), (host,))
        with gated(counter):
            async with files.open(URL(f"{server.url}/download?file=a"), "a.csv"):
                pass
        assert (counter.count, len(storage.seen)) == (1, 1)


async def test_request_refused_by_gate_is_not_sent() -> None:
    async def never() -> None:
        raise PlatformPausedError("paused", retry_after_s=60)

    async with ScriptedServer() as server, opened(server) as client:
        files = Downloader(client, StaticAuth(ANONYMOUS), ())
        with gated(never):
            with pytest.raises(PlatformThrottledError):
                await client.exchange(Call("GET", "/x"))
            with pytest.raises(PlatformThrottledError):
                await client.open_stream(Call("GET", "/x"), ANONYMOUS)
            with pytest.raises(PlatformThrottledError):
                async with files.open(URL(f"{server.url}/x"), "a.csv"):
                    pass
        assert server.seen == []


async def test_gate_is_inherited_by_tasks_only() -> None:
    counter, other = Counter(), Counter()
    with gated(counter):
        inherited = asyncio.create_task(wait_for_gate())
        with gated(None):
            await wait_for_gate()
    with gated(other):
        await inherited
    await wait_for_gate()
    assert (counter.count, other.count) == (1, 0)

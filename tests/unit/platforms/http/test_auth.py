"""Authentication: static tokens, and the client-credentials grant with one renewal for all waiting callers."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from export_worker.credentials import Redactor
from export_worker.errors import (
    AuthFailedError,
    ConfigError,
    PlatformError,
    PlatformMalformedError,
    PlatformUnavailableError,
)
from export_worker.platforms.http.auth import (
    AuthScheme,
    StaticAuth,
    authorization,
    check_header_value,
)
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.oauth import ClientCredentialsAuth
from support.scripted_server import CANARY, Reply, ScriptedServer, Seen, json_replied, replied

TOKEN_PATH = "/accounts/oauth/access_token"
CALL = Call("GET", "/x")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Connection:
    """A client with client-credentials authentication, against a scripted server."""

    def __init__(self, server: ScriptedServer) -> None:
        self.clock = Clock()
        self.redactor = Redactor()
        self.redactor.add(CANARY)
        self.client = HttpClient("gio", server.url, self.redactor)
        self.auth = ClientCredentialsAuth(self.client, CANARY, "Token", clock=self.clock)

    async def call(self) -> object:
        return await self.client.call(CALL, self.auth)


@asynccontextmanager
async def connected(server: ScriptedServer) -> AsyncIterator[Connection]:
    opened = Connection(server)
    try:
        yield opened
    finally:
        await opened.auth.close()
        await opened.client.close()


def accepting(*tokens: str) -> Reply:
    """Accepts requests with one of the tokens, and responds 401 to all others."""

    async def reply(seen: Seen) -> web.StreamResponse:
        if seen.headers.get("Authorization") in {f"Token {token}" for token in tokens}:
            return web.json_response({"ok": True})
        return web.Response(status=401, text=f"no: {seen.headers.get('Authorization')}")

    return reply


def grants(*tokens: str, **fields: object) -> list[Reply]:
    return [json_replied({"access_token": token, **fields}) for token in tokens]


@pytest.mark.parametrize(
    ("scheme", "header"), [("Token", f"Token {CANARY}"), ("Bearer", f"Bearer {CANARY}"), ("raw", CANARY)]
)
async def test_static_token_is_sent_with_its_scheme(scheme: AuthScheme, header: str) -> None:
    auth = StaticAuth(authorization(scheme, CANARY))
    assert (await auth.credential()).headers == {"Authorization": header}


async def test_refused_static_token_raises_auth_failed_without_retry() -> None:
    async with ScriptedServer() as server:
        server.on("/x", accepting("another"))
        redactor = Redactor()
        redactor.add(CANARY)
        client = HttpClient("gio", server.url, redactor)
        with pytest.raises(AuthFailedError) as caught:
            await client.call(CALL, StaticAuth(authorization("Token", CANARY)))
        await client.close()
    assert len(server.seen) == 1
    assert "canary" not in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("value", ["", "se\ncret", "secret\n", " secret", "secret标签", "secret\x00"])
def test_value_that_is_not_allowed_in_header_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^connections\.gio\.token: ") as caught:
        check_header_value(value, "connections.gio.token")
    assert "cret" not in str(caught.value)


async def test_grant_request_has_documented_form() -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        server.on(TOKEN_PATH, *grants("fresh-token"))
        server.on("/x", accepting("fresh-token"))
        assert await opened.call() == {"ok": True}
        assert await opened.call() == {"ok": True}
        assert opened.redactor.text("a fresh-token") == "a ***"
    [seen] = server.asked(TOKEN_PATH)
    assert seen.method == "POST"
    assert seen.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Authorization" not in seen.headers
    assert seen.form == {
        "grant_type": ["client_credentials"],
        "client_id": ["api"],
        "client_secret": [CANARY],
        "scope": ["system"],
    }


async def test_twenty_calls_with_401_share_one_renewal() -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        arrived = asyncio.Event()

        async def refuse_when_all_have_arrived(seen: Seen) -> web.StreamResponse:
            if seen.headers["Authorization"] == "Token second-token":
                return web.json_response({"ok": True})
            if len(server.asked("/x")) == 21:
                arrived.set()
            await arrived.wait()
            return web.Response(status=401)

        server.on(TOKEN_PATH, *grants("first-token", "second-token"))
        server.on("/x", json_replied({"ok": "warm"}), refuse_when_all_have_arrived)
        await opened.call()
        results = await asyncio.gather(*(opened.call() for _ in range(20)))
    assert results == [{"ok": True}] * 20
    assert len(server.asked(TOKEN_PATH)) == 2
    assert len(server.asked("/x")) == 41


async def test_concurrent_first_calls_share_one_grant() -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        server.on(TOKEN_PATH, *grants("first-token"))
        server.on("/x", accepting("first-token"))
        await asyncio.gather(*(opened.call() for _ in range(20)))
    assert len(server.asked(TOKEN_PATH)) == 1


async def test_renew_of_old_token_returns_current_token_without_request() -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        server.on(TOKEN_PATH, *grants("first-token", "second-token", "third-token"))
        old = await opened.auth.credential()
        new = await opened.auth.renew(old)
        assert await opened.auth.renew(old) is new
        assert await opened.auth.credential() is new
    assert len(server.asked(TOKEN_PATH)) == 2


async def test_renewal_that_returns_same_token_counts_as_new() -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        server.on(TOKEN_PATH, *grants("same-token"))
        old = await opened.auth.credential()
        new = await opened.auth.renew(old)
        assert await opened.auth.renew(old) is new
    assert len(server.asked(TOKEN_PATH)) == 2


async def test_second_401_raises_auth_failed() -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        server.on(TOKEN_PATH, *grants("first-token", "second-token"))
        server.on("/x", accepting())
        with pytest.raises(AuthFailedError) as caught:
            await opened.call()
    assert len(server.asked("/x")) == 2
    assert "second-token" not in "".join(traceback.format_exception(caught.value))


async def test_cancelled_caller_does_not_cancel_shared_renewal() -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        requested, respond = asyncio.Event(), asyncio.Event()

        async def slow(_: Seen) -> web.StreamResponse:
            requested.set()
            await respond.wait()
            return web.json_response({"access_token": "first-token"})

        server.on(TOKEN_PATH, slow)
        server.on("/x", accepting("first-token"))
        first = asyncio.create_task(opened.call())
        await requested.wait()
        second = asyncio.create_task(opened.call())
        await asyncio.sleep(0)
        first.cancel()
        respond.set()
        assert await second == {"ok": True}
        assert first.cancelled()
    assert len(server.asked(TOKEN_PATH)) == 1


async def test_close_cancels_hanging_renewal() -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        requested = asyncio.Event()

        async def never(_: Seen) -> web.StreamResponse:
            requested.set()
            await asyncio.Event().wait()
            return web.Response()

        server.on(TOKEN_PATH, never)
        caller = asyncio.create_task(opened.call())
        await requested.wait()
        await opened.auth.close()
        with pytest.raises(asyncio.CancelledError):
            await caller


@pytest.mark.parametrize(("expires_in", "still_good_s", "renewed_s"), [(3600, 3539, 3540), ("100", 89, 90)])
async def test_token_is_renewed_before_it_expires(expires_in: object, still_good_s: float, renewed_s: float) -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        server.on(TOKEN_PATH, *grants("first-token", "second-token", expires_in=expires_in))
        first = await opened.auth.credential()
        opened.clock.now_s += still_good_s
        assert await opened.auth.credential() is first
        opened.clock.now_s += renewed_s - still_good_s
        assert await opened.auth.credential() is not first


@pytest.mark.parametrize("expires_in", [None, "never", -1, 0, [], "nan"])
async def test_token_with_unusable_expires_in_is_not_renewed_by_time(expires_in: object) -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        server.on(TOKEN_PATH, *grants("first-token", "second-token", expires_in=expires_in))
        first = await opened.auth.credential()
        opened.clock.now_s += 1e9
        assert await opened.auth.credential() is first


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (json_replied({"error": "invalid_client"}, status=400), AuthFailedError),
        (json_replied({"error": "invalid_client"}, status=401), AuthFailedError),
        (json_replied({"error": "invalid_client"}), AuthFailedError),
        (replied(status=404), AuthFailedError),
        (replied(status=503), PlatformUnavailableError),
        (replied("access_token=unreadable-token"), PlatformMalformedError),
        (json_replied(["unreadable-token"]), PlatformMalformedError),
        (json_replied({"token": "unreadable-token"}), PlatformMalformedError),
        (json_replied({"access_token": "unreadable-token\r\nX: y"}), PlatformMalformedError),
        (json_replied({"access_token": 17}), PlatformMalformedError),
    ],
)
async def test_grant_without_usable_token_raises(reply: Reply, kind: type[PlatformError]) -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        server.on(TOKEN_PATH, reply)
        with pytest.raises(PlatformError) as caught:
            await opened.call()
    assert type(caught.value) is kind
    assert TOKEN_PATH in str(caught.value)
    assert "unreadable-token" not in str(caught.value)
    assert server.asked("/x") == []


async def test_call_after_failed_renewal_requests_token_again() -> None:
    async with ScriptedServer() as server, connected(server) as opened:
        server.on(TOKEN_PATH, replied(status=503), *grants("first-token"))
        server.on("/x", accepting("first-token"))
        with pytest.raises(PlatformUnavailableError):
            await opened.call()
        assert await opened.call() == {"ok": True}

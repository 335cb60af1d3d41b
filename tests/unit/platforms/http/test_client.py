"""The HTTP client: statuses, delays, limits, and secrets in its errors."""

import asyncio
import gzip
import json
import socket
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from yarl import URL

from export_worker.credentials import Redactor
from export_worker.errors import (
    AuthFailedError,
    ConfigError,
    PlatformError,
    PlatformMalformedError,
    PlatformNotFoundError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
)
from export_worker.platforms.http import client as http
from export_worker.platforms.http.auth import StaticAuth, authorization
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.outgoing import Credential
from export_worker.platforms.http.responses import RETRY_AFTER_MAX_S, one_line, retry_after_s
from export_worker.platforms.http.urls import with_query
from support.scripted_server import CANARY, ScriptedServer, Seen, echoed, json_replied, raw_server, redirected, replied

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def redactor() -> Redactor:
    known = Redactor()
    known.add(CANARY)
    return known


async def call(url: str, request: Call, credential: Credential | None = None) -> object:
    client = HttpClient("gio", url, redactor())
    try:
        return await client.call(request, StaticAuth(credential or authorization("Token", CANARY)))
    finally:
        await client.close()


async def failure(url: str, request: Call, credential: Credential | None = None) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await call(url, request, credential)
    return caught.value


async def test_call_sends_json_and_returns_json_of_response() -> None:
    async with ScriptedServer() as server:
        server.on("/op/graphql", json_replied({"data": "下载"}))
        response = await call(f"{server.url}/op/", Call("POST", "/graphql", query={"q": "a b&c"}, json={"x": "标签"}))
    assert response == {"data": "下载"}
    [seen] = server.seen
    assert (seen.method, seen.target) == ("POST", "/op/graphql?q=a%20b%26c")
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["Authorization"] == f"Token {CANARY}"
    assert seen.json == {"x": "标签"}


async def test_credential_in_query_is_appended_to_query_string() -> None:
    async with ScriptedServer() as server:
        server.on("/api", json_replied([]))
        await call(server.url, Call("GET", "/api", query={"a": "1"}), Credential(query={"token": CANARY}))
    assert server.seen[0].target == "/api?a=1&token=canary-Token%2Bwith%2Fodd%3Dsigns"


def test_with_query_appends_parameters_and_keeps_existing_encoding() -> None:
    url = URL("http://a.cn/download?file=%2Fjobs%2F%41%2B", encoded=True)
    assert str(with_query(url, {"token": "a+b/ä"})) == f"{url}&token=a%2Bb%2F%C3%A4"
    assert str(with_query(url, {})) == str(url)


def test_repr_of_credential_shows_no_secret() -> None:
    assert CANARY not in repr(Credential({"Authorization": CANARY}, {"token": CANARY}))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, PlatformRefusedError),
        (302, PlatformRefusedError),
        (400, PlatformRefusedError),
        (401, AuthFailedError),
        (403, AuthFailedError),
        (404, PlatformRefusedError),
        (408, PlatformUnavailableError),
        (429, PlatformThrottledError),
        (500, PlatformUnavailableError),
        (502, PlatformUnavailableError),
        (503, PlatformUnavailableError),
    ],
)
async def test_error_status_raises_matching_error(status: int, kind: type[PlatformError]) -> None:
    async with ScriptedServer() as server:
        server.on("/x", replied("no\r\n\x00way", status=status, content_type="text/plain"))
        error = await failure(server.url, Call("GET", "/x", query={"token": "hidden"}))
    assert type(error) is kind
    assert str(error).startswith(f"GET /x: the response is HTTP {status}: no way")
    assert "hidden" not in str(error)
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    ("body", "kind"), [('{"error": "no such job"}', PlatformNotFoundError), ("<html>", PlatformRefusedError)]
)
async def test_only_the_platform_itself_states_that_an_id_is_unknown(
    status: int, body: str, kind: type[PlatformError]
) -> None:
    async with ScriptedServer() as server:
        server.on("/x", replied(body, status=status))
        assert type(await failure(server.url, Call("GET", "/x"))) is kind


async def test_redirect_of_call_is_refused_and_not_followed() -> None:
    async with ScriptedServer() as server:
        server.on("/x", redirected("/y", status=307))
        server.on("/y", json_replied({}))
        error = await failure(server.url, Call("POST", "/x", json={}))
    assert type(error) is PlatformRefusedError
    assert "base_url" in str(error)
    assert server.asked("/y") == []


@pytest.mark.parametrize(("status", "kind"), [(429, PlatformThrottledError), (503, PlatformUnavailableError)])
async def test_error_carries_delay_of_retry_after(status: int, kind: type[PlatformError]) -> None:
    async with ScriptedServer() as server:
        server.on("/x", replied(status=status, headers={"Retry-After": "7"}))
        error = await failure(server.url, Call("GET", "/x"))
    assert type(error) is kind
    assert error.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("inf", None),
        ("0", 0.0),
        ("12", 12.0),
        (" 1.5 ", 1.5),
        pytest.param("9" * 5000, RETRY_AFTER_MAX_S, id="a very large number"),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Sun, 22 Nov 2026 03:00:30 -0000", 30.0),
        ("Sun, 22 Nov 2066 03:00:30 GMT", RETRY_AFTER_MAX_S),
        ("Sun, 99 Nov 2026 03:00:30 GMT", None),
    ],
)
def test_retry_after_is_parsed_and_limited(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


@pytest.mark.parametrize(
    "body",
    [b"<html>login</html>", b"", b"{", b"\xff\xfe\x00", b"[" * 100_000],
    ids=["page", "empty", "truncated", "not UTF-8", "too deep"],
)
async def test_response_that_is_no_json_raises_malformed(body: bytes) -> None:
    async with ScriptedServer() as server:
        server.on("/x", replied(body, content_type="application/json"))
        error = await failure(server.url, Call("GET", "/x"))
    assert type(error) is PlatformMalformedError
    assert len(str(error)) < 400
    assert "\n" not in str(error)


async def test_response_above_size_limit_raises_malformed() -> None:
    limit_bytes = http.ANSWER_MAX_KIB * 1024
    async with ScriptedServer() as server:
        bomb = gzip.compress(json.dumps("a" * (limit_bytes - 1)).encode())
        server.on("/bomb", replied(bomb, headers={"Content-Encoding": "gzip"}))
        server.on("/fits", json_replied("a" * (limit_bytes - 2)))
        error = await failure(server.url, Call("GET", "/bomb"))
        assert await call(server.url, Call("GET", "/fits")) == "a" * (limit_bytes - 2)
    assert type(error) is PlatformMalformedError
    assert "1024 KiB" in str(error)


async def test_long_error_page_is_read_in_part() -> None:
    async with ScriptedServer() as server:
        server.on("/x", replied("y" * 5_000_000, status=500, content_type="text/plain"))
        error = await failure(server.url, Call("GET", "/x"))
    assert type(error) is PlatformUnavailableError
    assert str(error).endswith("yyy…")


async def test_response_without_head_raises_unavailable_after_timeout() -> None:
    async with raw_server(b"", hold=True) as url:
        error = await failure(url, Call("GET", "/x", query={"token": "hidden"}, timeout_s=0.05))
    assert type(error) is PlatformUnavailableError
    assert str(error) == "GET /x: no response within the timeout"


async def test_response_without_end_raises_unavailable_after_timeout() -> None:
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", hold=True) as url:
        error = await failure(url, Call("GET", "/x", timeout_s=0.05))
    assert type(error) is PlatformUnavailableError


async def test_refused_connection_raises_unavailable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        error = await failure(f"http://127.0.0.1:{port}", Call("GET", "/x"))
    assert type(error) is PlatformUnavailableError
    assert str(error) == f"GET /x: cannot connect to 127.0.0.1:{port} (connection refused)"
    assert error.__suppress_context__


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (b"", PlatformUnavailableError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", PlatformUnavailableError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc", PlatformMalformedError),
        (b"it is not HTTP\r\n\r\n", PlatformMalformedError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: minus\r\n\r\n", PlatformMalformedError),
    ],
)
async def test_broken_response_raises_matching_error(response: bytes, kind: type[PlatformError]) -> None:
    async with raw_server(response) as url:
        error = await failure(url, Call("GET", "/x", query={"token": "hidden"}))
    assert type(error) is kind
    assert "hidden" not in "".join(traceback.format_exception(error))


async def test_error_masks_secret_that_server_repeats() -> None:
    async def long_page(seen: Seen) -> web.StreamResponse:
        # The excerpt ends within the secret.
        return web.Response(text="x" * 290 + seen.headers["Authorization"], status=400)

    async with ScriptedServer() as server:
        server.on("/echo", echoed)
        server.on("/long", long_page)
        in_header = await failure(server.url, Call("POST", "/echo", json={"secret": CANARY}))
        in_query = await failure(server.url, Call("GET", "/echo"), Credential(query={"token": CANARY}))
        cut = await failure(server.url, Call("GET", "/long"))
    for error in (in_header, in_query, cut):
        shown = "".join(traceback.format_exception(error)) + repr(error)
        assert "***" in str(error)
        assert "canary" not in shown
        assert "\n" not in str(error)


def test_one_line_replaces_surrogates_and_control_characters() -> None:
    assert one_line("a\ud800\u2028b\tc", Redactor()) == "a? b c"


async def test_client_stores_no_cookies() -> None:
    async with ScriptedServer() as server:
        server.on("/x", json_replied(1, headers={"Set-Cookie": "session=abc"}))
        client = HttpClient("gio", server.url, redactor())
        for _ in range(2):
            await client.call(Call("GET", "/x"), StaticAuth(Credential()))
        await client.close()
    assert all("Cookie" not in seen.headers for seen in server.seen)


async def test_credential_is_set_on_request_and_not_on_session() -> None:
    async with ScriptedServer() as server:
        server.on("/x", json_replied(1))
        client = HttpClient("gio", server.url, redactor())
        await client.call(Call("GET", "/x"), StaticAuth(authorization("Token", CANARY)))
        await client.exchange(Call("GET", "/x"))
        await client.close()
    assert ["Authorization" in seen.headers for seen in server.seen] == [True, False]


def test_client_without_a_call_is_closed_without_error() -> None:
    client = HttpClient("gio", "https://op.example.cn/", Redactor())
    assert str(client.url("/graphql")) == "https://op.example.cn/graphql"
    asyncio.run(client.close())


@pytest.mark.parametrize(
    "base_url", ["http://[bad", "http://a..b", "http://a:0", "http://a:99999", "ftp://a.cn", f"http://{'a' * 70}.cn"]
)
def test_unusable_base_url_is_refused(base_url: str) -> None:
    with pytest.raises(ConfigError, match=r"^connections\.gio\.base_url: must be"):
        HttpClient("gio", base_url, Redactor())

"""Which failures of a call that starts work leave unclear whether the platform has received it."""

import asyncio
import gzip
import json
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from export_worker.credentials import Redactor
from export_worker.errors import PlatformError, StepError
from export_worker.platforms.http import client as http
from export_worker.platforms.http.auth import StaticAuth, authorization
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.graphql import Document, GraphQL
from export_worker.platforms.http.oauth import ClientCredentialsAuth
from export_worker.step_context import checking_submits
from support.certificates import certificate
from support.misbehaving_server import answering
from support.scripted_server import CANARY, ScriptedServer, json_replied, raw_server, replied

SUBMIT = Call("POST", "/submit", json={"tag": "t"}, timeout_s=0.5, starts_work=True)
READ = Call("POST", "/submit", json={"tag": "t"}, timeout_s=0.5)
OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def failure(url: str, request: Call = SUBMIT, *, oauth: bool = False) -> StepError:
    client = HttpClient("gio", url, Redactor())
    auth = ClientCredentialsAuth(client, CANARY, "Token") if oauth else StaticAuth(authorization("Token", CANARY))
    try:
        with pytest.raises(PlatformError) as caught:
            await client.call(request, auth)
    finally:
        await auth.close()
        await client.close()
    return caught.value


# Responses of the platform or of a gateway before it.

STATUSES = {
    "gateway timeout": (504, {}, True),
    "gateway timeout with a delay": (504, {"Retry-After": "1"}, True),
    "bad gateway": (502, {}, True),
    "server error": (500, {}, True),
    "unavailable without a delay": (503, {}, True),
    "unavailable with a delay that cannot be read": (503, {"Retry-After": "soon"}, True),
    "unavailable with a delay": (503, {"Retry-After": "0"}, False),
    "request timeout": (408, {}, True),
    "too many requests": (429, {}, False),
    "unauthorized": (401, {}, False),
    "refused": (400, {}, False),
}


@pytest.mark.parametrize(("status", "headers", "unclear"), STATUSES.values(), ids=STATUSES)
async def test_status_shows_whether_a_submit_may_have_been_received(
    status: int, headers: dict[str, str], *, unclear: bool
) -> None:
    async with ScriptedServer() as server:
        server.on("/submit", replied("no", status, headers=headers))
        assert (await failure(server.url)).unclear is unclear
        assert not (await failure(server.url, READ)).unclear


@pytest.mark.parametrize("body", [b"", b"<html>ok</html>", b'{"id": "op', b"\xff\xfe"])
async def test_successful_response_that_cannot_be_read_is_unclear(body: bytes) -> None:
    async with ScriptedServer() as server:
        server.on("/submit", replied(body))
        assert (await failure(server.url)).unclear
        assert not (await failure(server.url, READ)).unclear


async def test_response_above_the_size_limit_is_unclear() -> None:
    async with ScriptedServer() as server:
        server.on("/submit", json_replied("x" * http.ANSWER_MAX_KIB * 1024))
        assert (await failure(server.url)).unclear


RESPONSES = {
    "disconnect after the request": b"",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "head above the limit": OK_HEAD + b"X-Trace: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "cut head": OK_HEAD + b"Set-Cookie: Trace",
    "cut body": OK_HEAD + b"Content-Length: 100\r\n\r\n{",
    "cut compressed body": OK_HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n" + gzip.compress(b"{}")[:9],
}


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
async def test_broken_response_is_unclear(response: bytes) -> None:
    async with raw_server(response) as url:
        error = await failure(url)
        assert error.unclear
        assert "Trace" not in str(error)
        assert not (await failure(url, READ)).unclear


async def test_timeout_after_the_request_is_unclear() -> None:
    async with raw_server(b"", hold=True) as url:
        assert (await failure(url)).unclear


# Failures before the request was sent.


async def test_refused_connection_is_safe() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert error.retryable
    assert not error.unclear


async def test_name_that_does_not_resolve_is_safe() -> None:
    error = await failure("http://platform.invalid")
    assert error.retryable
    assert not error.unclear


async def test_connection_that_is_not_accepted_in_time_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_TIMEOUT_S", 0.2)
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        error = await failure(f"http://127.0.0.1:{full.getsockname()[1]}")
    assert not error.unclear


async def test_failed_tls_handshake_is_safe(tmp_path: Path) -> None:
    untrusted: ssl.SSLContext = certificate(tmp_path).server()
    async with raw_server(b"", tls=untrusted) as url:
        assert not (await failure(url)).unclear
    async with answering(None) as url:
        assert not (await failure(url.replace("http:", "https:"))).unclear


async def test_token_that_cannot_be_fetched_is_safe() -> None:
    async with ScriptedServer() as server:
        server.on("/accounts/oauth/access_token", replied("no", 504))
        error = await failure(server.url, oauth=True)
        assert not server.asked("/submit")
    assert error.retryable
    assert not error.unclear


async def test_token_that_cannot_be_renewed_is_safe() -> None:
    async with ScriptedServer() as server:
        server.on("/accounts/oauth/access_token", json_replied({"access_token": "first"}), replied("no", 504))
        server.on("/submit", replied("expired", 401))
        error = await failure(server.url, oauth=True)
        assert len(server.asked("/submit")) == 1
    assert error.retryable
    assert not error.unclear


# The check before each request that starts work.


async def test_check_is_called_before_each_request_that_starts_work() -> None:
    seen_at_check: list[int] = []

    async def note_requests() -> None:
        seen_at_check.append(len(server.seen))

    async with ScriptedServer() as server:
        server.on("/submit", replied("no", 504))
        with checking_submits(note_requests):
            await failure(server.url)
            await failure(server.url, READ)
    assert (seen_at_check, len(server.seen)) == ([0], 2)


# GraphQL.

DOCUMENT = Document("Submit", "submit", "mutation Submit { submit { id } }", starts_work=True)
ENVELOPES = {
    "no object": ("text", True),
    "neither data nor errors": ({}, True),
    "temporary error": ({"errors": [{"message": "slow", "extensions": {"code": "TIMEOUT"}}]}, True),
    "refusal": ({"errors": [{"message": "no such tag"}], "data": None}, False),
}


@pytest.mark.parametrize(("envelope", "unclear"), ENVELOPES.values(), ids=ENVELOPES)
async def test_graphql_response_shows_whether_work_may_have_started(envelope: object, *, unclear: bool) -> None:
    async with ScriptedServer() as server:
        server.on("/graphql", replied(json.dumps(envelope)))
        client = HttpClient("gio", server.url, Redactor())
        graphql = GraphQL(client, StaticAuth(authorization("Token", CANARY)))
        with pytest.raises(PlatformError) as caught:
            await graphql.execute(DOCUMENT, {})
        await client.close()
    assert caught.value.unclear is unclear


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_submit_is_sent_once_when_its_connection_breaks(method: str) -> None:
    received: list[bytes] = []

    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(drop, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(f"http://127.0.0.1:{port}", replace(SUBMIT, method=method))
    assert error.unclear
    assert received == [f"{method} /submit HTTP/1.1\r\n".encode()]

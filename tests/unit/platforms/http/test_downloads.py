"""Downloads: allowed hosts, credentials that are sent, and responses that are not the file."""

import asyncio
import gzip
import socket
import traceback
import zlib
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from yarl import URL

from export_worker.errors import (
    AuthFailedError,
    DownloadForbiddenError,
    DownloadInterruptedError,
    DownloadInvalidError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    ResultMissingError,
    StepError,
)
from export_worker.platforms.base import Download
from export_worker.platforms.http.downloads import REDIRECTS_MAX
from export_worker.platforms.http.outgoing import Credential
from support.drivers import downloader
from support.scripted_server import CANARY, ScriptedServer, Seen, echoed, json_replied, raw_server, redirected, replied

FILE = "/download?file=/jobs/a.csv"


async def read(download: Download) -> bytes:
    return b"".join([chunk async for chunk in download.chunks()])


async def fetch(base_url: str, *allow_hosts: str, target: str = FILE, name: str = "a.csv") -> bytes:
    url = URL(base_url + target, encoded=True)
    async with downloader(base_url, *allow_hosts) as files, files.open(url, name) as download:
        return await read(download)


async def failure(base_url: str, *allow_hosts: str, target: str = FILE, name: str = "a.csv") -> StepError:
    with pytest.raises(StepError) as caught:
        await fetch(base_url, *allow_hosts, target=target, name=name)
    assert "?" not in str(caught.value).partition(": ")[0]
    return caught.value


def own_port(server: ScriptedServer) -> str:
    """Returns the entry of `allow_hosts` for a server on another port of the connection's host."""
    return server.url.removeprefix("http://")


async def test_file_is_downloaded_unchanged() -> None:
    async with ScriptedServer() as server, downloader(server.url) as files:
        server.on("/download", replied(b"a,b\n" * 100_000, content_type="Text/CSV; charset=utf-16le"))
        async with files.open(URL(server.url + FILE, encoded=True), "a.csv") as download:
            assert download.total_bytes == 400_000
            assert download.content_type == "text/csv"
            assert await read(download) == b"a,b\n" * 100_000
    [seen] = server.seen
    assert seen.target == FILE
    assert seen.headers["Accept-Encoding"] == "identity"
    assert seen.headers["Authorization"] == f"Token {CANARY}"


@pytest.mark.parametrize(("etag", "validator"), [('"v1"', '"v1"'), (f'"{CANARY}"', None), ('W/"v1"', None)])
async def test_version_that_has_the_token_is_not_used(etag: str, validator: str | None) -> None:
    """The record of an export has the version, and it is sent back unchanged."""
    async with ScriptedServer() as server, downloader(server.url) as files:
        server.on("/download", replied(b"id\n", headers={"ETag": etag}))
        async with files.open(URL(server.url + FILE, encoded=True), "a.csv") as download:
            assert download.validator == validator


async def test_empty_file_yields_no_bytes() -> None:
    async with ScriptedServer() as server, downloader(server.url) as files:
        server.on("/download", replied(b""))
        async with files.open(URL(server.url + FILE, encoded=True), "a.csv") as download:
            assert download.total_bytes == 0
            assert await read(download) == b""


async def test_total_bytes_of_chunked_body_is_none() -> None:
    async def chunked(_: Seen) -> web.StreamResponse:
        return web.Response(body=iterated(b"ab", b"cd"))

    async def iterated(*parts: bytes) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async with ScriptedServer() as server, downloader(server.url) as files:
        server.on("/download", chunked)
        async with files.open(URL(server.url + FILE, encoded=True), "a.csv") as download:
            assert download.total_bytes is None
            assert await read(download) == b"abcd"


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", gzip.compress(b"a,b\n" * 1000)), ("deflate", zlib.compress(b"a,b\n" * 1000))],
    ids=["gzip", "deflate"],
)
async def test_compressed_body_is_decompressed(coding: str, body: bytes) -> None:
    async with ScriptedServer() as server, downloader(server.url) as files:
        server.on("/download", replied(body, headers={"Content-Encoding": coding}))
        async with files.open(URL(server.url + FILE, encoded=True), "a.csv") as download:
            assert download.total_bytes is None
            assert await read(download) == b"a,b\n" * 1000


async def test_body_in_unsupported_coding_raises_invalid() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: x-lzma\r\n\r\nabc"
    async with raw_server(answer) as url:
        error = await failure(url)
    assert type(error) is DownloadInvalidError
    assert "x-lzma" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (204, DownloadInvalidError),
        (206, DownloadInvalidError),
        (304, PlatformRefusedError),
        (400, PlatformRefusedError),
        (401, AuthFailedError),
        (403, AuthFailedError),
        (404, ResultMissingError),
        (410, ResultMissingError),
        (429, PlatformThrottledError),
        (500, PlatformUnavailableError),
        (503, PlatformUnavailableError),
    ],
)
async def test_error_status_raises_matching_error(status: int, kind: type[StepError]) -> None:
    async with ScriptedServer() as server:
        server.on("/download", replied("why", status=status, headers={"Retry-After": "9"}))
        error = await failure(server.url)
    assert type(error) is kind
    assert str(error).startswith("GET /download: ")
    assert len(server.seen) == 1
    assert error.retry_after_s == (9.0 if status in {429, 500, 503} else None)


@pytest.mark.parametrize("part", ["bytes 0-5/600", "Bytes 6-599/600", "bytes 6-11/*"])
async def test_part_with_status_200_raises_invalid(part: str) -> None:
    async with ScriptedServer() as server:
        server.on("/download", replied(b"id\n1\n2", headers={"Content-Range": part}))
        error = await failure(server.url)
    assert type(error) is DownloadInvalidError
    assert f"{part.lower().replace('/', ' of ')} with HTTP 200 where a whole file was announced" in str(error)


@pytest.mark.parametrize(
    "whole", ["bytes 0-5/6", "bytes 0-5/*", "bytes */600", "bytes 0-5", "bytes 6-5/600", "bytes 0-5/5", "lines 0-5/600"]
)
async def test_range_that_is_whole_or_unreadable_is_accepted_with_status_200(whole: str) -> None:
    async with ScriptedServer() as server:
        server.on("/download", replied(b"id\n1\n2", headers={"Content-Range": whole}))
        assert await fetch(server.url) == b"id\n1\n2"


async def test_secret_in_error_page_is_masked() -> None:
    async with ScriptedServer() as server:
        server.on("/download", echoed)
        error = await failure(server.url)
    assert "***" in str(error)
    assert "canary" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("text/html; charset=utf-8", "a.csv"),
        ("TEXT/HTML", "a.json"),
        ("application/json", "a.csv"),
        ("application/json", "json"),
        ("application/problem+json", "a.csv"),
        ("application/xml", "a.csv"),
        ("text/xml", "a.json"),
        ("application/xhtml+xml", "a.csv"),
        ("image/svg+xml", "a"),
    ],
)
async def test_error_page_with_status_200_raises_invalid(content_type: str, name: str) -> None:
    async with ScriptedServer() as server:
        server.on("/download", replied(f"<html>sorry,\n{CANARY}", content_type=content_type))
        error = await failure(server.url, name=name)
    assert type(error) is DownloadInvalidError
    assert str(error).endswith("where a file was announced: <html>sorry, ***")
    assert error.retryable


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", "phone,name\n13800000000,Zhang San\n"),
        ("text/html", "full name\nZhang Denied\n"),
        ("application/json", '[{"phone": "13800000000", "name": "Zhang"}]'),
        ("application/json", '{"title": "Dr", "phone": "13800000000", "name": "Zhang"}'),
        ("application/json", '{"message": "hello", "name": "Zhang"}\n{"message": "", "name": "Zhang"}\n'),
    ],
)
async def test_rows_that_are_labelled_as_a_page_are_not_quoted(content_type: str, body: str) -> None:
    async with ScriptedServer() as server:
        server.on("/download", replied(body, content_type=content_type))
        error = await failure(server.url)
    assert type(error) is DownloadInvalidError
    assert str(error).endswith(f"announced: {len(body)} bytes, not quoted since they may be rows of users")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", "Access Denied"),
        ("application/json", '{"code": 401, "message": "expired", "data": null}'),
        ("text/xml", "<Error><Code>NoSuchKey</Code></Error>"),
    ],
)
async def test_error_with_status_200_is_quoted(content_type: str, body: str) -> None:
    async with ScriptedServer() as server:
        server.on("/download", replied(body, content_type=content_type))
        assert str(await failure(server.url)).endswith(f"where a file was announced: {body}")


@pytest.mark.parametrize(("content_type", "name"), [("application/xml", "a.XML"), ("text/html", "a.htm")])
async def test_markup_is_accepted_for_its_file(content_type: str, name: str) -> None:
    async with ScriptedServer() as server:
        server.on("/download", replied("<a/>", content_type=content_type))
        assert await fetch(server.url, name=name) == b"<a/>"


@pytest.mark.parametrize("content_type", ["text/html; charset=gbk", "Application/JSON"])
async def test_media_type_that_the_connection_allows_is_accepted(content_type: str) -> None:
    allowed = ("Text/HTML", "application/json")
    async with ScriptedServer() as server, downloader(server.url, file_content_types=allowed) as files:
        server.on("/download", replied("a,b", content_type=content_type))
        async with files.open(URL(server.url + FILE, encoded=True), "a.csv") as download:
            assert await read(download) == b"a,b"


@pytest.mark.parametrize("name", ["a.json", "a.JSON", "a.jsonl", "a.ndjson"])
async def test_json_response_is_accepted_for_json_file(name: str) -> None:
    async with ScriptedServer() as server:
        server.on("/download", json_replied({"gio_id": 1}))
        assert await fetch(server.url, name=name) == b'{"gio_id": 1}'


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"abc" * 99)[:5],
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef",
    ],
    ids=["short", "chunks without end", "short and compressed", "not compressed", "long"],
)
async def test_body_of_wrong_length_raises_interrupted(answer: bytes) -> None:
    async with raw_server(answer) as url:
        error = await failure(url)
    assert type(error) is DownloadInterruptedError
    assert error.__suppress_context__


async def test_stalled_body_raises_interrupted() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    async with (
        raw_server(answer, hold=True) as url,
        downloader(url, stall_s=3.0) as files,  # long enough for a loaded machine to receive the first bytes
        files.open(URL(url + FILE, encoded=True), "a.csv") as download,
    ):
        chunks = download.chunks()
        assert await anext(chunks) == b"abc"
        with pytest.raises(DownloadInterruptedError, match="stalled"):
            await anext(chunks)


async def test_response_without_head_raises_unavailable() -> None:
    async with raw_server(b"", hold=True) as url, downloader(url, stall_s=0.1) as files:
        with pytest.raises(PlatformUnavailableError, match=r"^GET /download: no response within the timeout$"):
            async with files.open(URL(url + FILE, encoded=True), "a.csv"):
                pass


async def test_aborted_download_is_closed() -> None:
    async with ScriptedServer() as server, downloader(server.url) as files:
        server.on("/download", replied(b"x" * 5_000_000))
        with pytest.raises(KeyError):
            async with files.open(URL(server.url + FILE, encoded=True), "a.csv"):
                raise KeyError
        async with files.open(URL(server.url + FILE, encoded=True), "a.csv") as download:
            assert len(await read(download)) == 5_000_000


async def test_redirect_within_own_origin_sends_credential() -> None:
    async with ScriptedServer() as server:
        server.on("/download", redirected("/files/a.csv?sign=%2F%41+b"))
        server.on("/files/a.csv", replied(b"abc"))
        assert await fetch(server.url) == b"abc"
    [seen] = server.asked("/files/a.csv")
    assert seen.target == "/files/a.csv?sign=%2F%41+b"
    assert seen.headers["Authorization"] == f"Token {CANARY}"


async def test_redirect_to_other_origin_sends_no_credential() -> None:
    # Another port of the own host is another origin.
    async with ScriptedServer() as server, ScriptedServer() as storage:
        server.on("/download", redirected(f"{storage.url}/a.csv?X-Signature=abc", status=307))
        storage.on("/a.csv", replied(b"abc"))
        assert await fetch(server.url, own_port(storage)) == b"abc"
    [seen] = storage.seen
    assert "Authorization" not in seen.headers
    assert CANARY not in str(seen)


async def test_redirect_to_other_origin_sends_no_credential_in_query() -> None:
    async with ScriptedServer() as server, ScriptedServer() as storage:
        server.on("/download", redirected(f"{storage.url}/a.csv"))
        storage.on("/a.csv", replied(b"abc"))
        url = URL(server.url + FILE, encoded=True)
        in_query = Credential(query={"token": CANARY})
        allowed = own_port(storage)
        async with downloader(server.url, allowed, credential=in_query) as files, files.open(url, "a.csv") as download:
            assert await read(download) == b"abc"
    assert server.seen[0].target == f"{FILE}&token=canary-Token%2Bwith%2Fodd%3Dsigns"
    assert storage.seen[0].target == "/a.csv"


async def test_redirect_to_another_port_of_the_own_host_needs_it_allowed() -> None:
    async with ScriptedServer() as server, ScriptedServer() as inner:
        server.on("/download", redirected(f"{inner.url}/a.csv"))
        inner.on("/a.csv", replied(b"abc"))
        port = URL(inner.url).port
        error = await failure(server.url)
        assert type(error) is DownloadForbiddenError
        assert f"port {port} is not the connection's own; allow_hosts can allow it as 127.0.0.1:{port}" in str(error)
        assert type(await failure(server.url, "127.0.0.1:1", "localhost")) is DownloadForbiddenError
        assert inner.seen == []
        assert await fetch(server.url, f"127.0.0.1:{port}") == b"abc"
        assert await fetch(server.url, "127.0.0.1") == b"abc"


async def test_first_link_to_another_port_of_the_own_host_is_refused() -> None:
    """A driver may take a complete link from an answer."""
    async with ScriptedServer() as server, ScriptedServer() as inner, downloader(server.url) as files:
        with pytest.raises(DownloadForbiddenError, match="is not the connection's own"):
            async with files.open(URL(f"{inner.url}/a.csv"), "a.csv"):
                pass
    assert inner.seen == []


async def test_redirect_to_another_spelling_of_the_own_host_is_followed_without_the_credential(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **options: real("127.0.0.1", *rest, **options))
    async with ScriptedServer() as server:
        port = URL(server.url).port
        server.on("/download", redirected(f"http://LOCALHOST.:{port}/a.csv"))
        server.on("/a.csv", replied(b"abc"))
        assert await fetch(f"http://localhost:{port}") == b"abc"
    [seen] = server.asked("/a.csv")
    assert "Authorization" not in seen.headers


async def test_redirect_to_forbidden_host_is_not_requested() -> None:
    async with ScriptedServer() as server, ScriptedServer() as storage:
        port = URL(storage.url).port
        server.on("/download", redirected(f"http://localhost:{port}/a.csv"))
        storage.on("/a.csv", replied(b"abc"))
        error = await failure(server.url)
        assert storage.seen == []
        assert await fetch(server.url, "LOCALHOST") == b"abc"
        assert await fetch(server.url, f"localhost:{port}") == b"abc"
        assert type(await failure(server.url, "localhost:1")) is DownloadForbiddenError
    assert type(error) is DownloadForbiddenError
    assert "localhost is neither the connection's host nor in allow_hosts" in str(error)
    assert not error.retryable


@pytest.mark.parametrize(("status", "kind"), [(401, ResultMissingError), (403, ResultMissingError)])
async def test_status_401_or_403_of_other_host_raises_result_missing(status: int, kind: type[StepError]) -> None:
    async with ScriptedServer() as server, ScriptedServer() as storage:
        server.on("/download", redirected(f"{storage.url}/a.csv"))
        storage.on("/a.csv", replied("expired", status=status))
        error = await failure(server.url, own_port(storage))
    assert type(error) is kind
    assert "expired" in str(error)


async def test_signature_of_a_link_is_masked_in_the_page_of_the_store() -> None:
    """Everyone who knows the link can download the file until the link expires."""
    query = "X-Amz-Signature=0123456789abcdef01&x-oss-security-token=CAIS%2Bsecret%3D%3D&response-content-type=text"

    async def refuse(seen: Seen) -> web.StreamResponse:
        shown = parse_qs(seen.target.partition("?")[2])
        return web.Response(text=f"no: {seen.target} {shown} text", status=403)

    async with ScriptedServer() as server, ScriptedServer() as storage:
        server.on("/download", redirected(f"{storage.url}/a.csv?{query}"))
        storage.on("/a.csv", refuse)
        message = str(await failure(server.url, own_port(storage)))
    assert "no: /a.csv?X-Amz-Signature=***&x-oss-security-token=***&response-content-type=text" in message
    assert "abcdef" not in message
    assert "CAIS" not in message


async def test_raw_characters_in_redirect_are_encoded_once() -> None:
    answer = "HTTP/1.1 302 Found\r\nLocation: /files/下载 a%41.csv\r\nContent-Length: 0\r\n\r\n".encode()
    async with raw_server(answer) as url, downloader(url) as files:
        with pytest.raises(DownloadInvalidError) as caught:
            async with files.open(URL(url + FILE, encoded=True), "a.csv"):
                pass
    assert "GET /files/%E4%B8%8B%E8%BD%BD%20a%41.csv: more than" in str(caught.value)


async def test_too_many_redirects_raise_invalid() -> None:
    async with ScriptedServer() as server:
        server.on("/download", redirected("/download?again"))
        error = await failure(server.url)
    assert type(error) is DownloadInvalidError
    assert len(server.seen) == REDIRECTS_MAX + 1


async def test_maximum_number_of_redirects_is_followed() -> None:
    async with ScriptedServer() as server:
        server.on("/download", *[redirected("/download") for _ in range(REDIRECTS_MAX)], replied(b"abc"))
        assert await fetch(server.url) == b"abc"


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("", DownloadInvalidError),
        ("http://[bad/", DownloadInvalidError),
        ("http://127.0.0.1:99999/", DownloadInvalidError),
        ("http://a..b/", DownloadInvalidError),
        ("http://user:word@127.0.0.1/", DownloadInvalidError),
        ("file:///etc/passwd", DownloadForbiddenError),
        ("mailto:a@b.cn", DownloadForbiddenError),
    ],
)
async def test_redirect_to_unusable_url_is_refused(location: str, kind: type[StepError]) -> None:
    async with ScriptedServer() as server:
        server.on("/download", redirected(location))
        assert type(await failure(server.url)) is kind


async def test_redirect_from_https_to_http_is_refused_before_any_request() -> None:
    async with ScriptedServer() as server, downloader(server.url.replace("http:", "https:")) as files:
        with pytest.raises(DownloadForbiddenError, match="leads from https to http"):
            async with files.open(URL(server.url + FILE, encoded=True), "a.csv"):
                pass
    assert server.seen == []


async def test_concurrent_downloads_with_401_share_one_renewal() -> None:
    async def answer(seen: Seen) -> web.StreamResponse:
        good = seen.headers.get("Authorization") == "Token second-token"
        return web.Response(body=b"abc") if good else web.Response(status=401)

    async with ScriptedServer() as server, downloader(server.url, oauth=True) as files:
        tokens = [json_replied({"access_token": token}) for token in ("first-token", "second-token")]
        server.on("/accounts/oauth/access_token", *tokens)
        server.on("/download", answer)

        async def one() -> bytes:
            async with files.open(URL(server.url + FILE, encoded=True), "a.csv") as download:
                return await read(download)

        assert await asyncio.gather(*(one() for _ in range(5))) == [b"abc"] * 5
    assert len(server.asked("/accounts/oauth/access_token")) == 2


async def test_second_401_of_download_raises_auth_failed() -> None:
    async with ScriptedServer() as server, downloader(server.url, oauth=True) as files:
        server.on("/accounts/oauth/access_token", json_replied({"access_token": "some-token"}))
        server.on("/download", replied(status=401))
        with pytest.raises(AuthFailedError):
            async with files.open(URL(server.url + FILE, encoded=True), "a.csv"):
                pass
    assert len(server.asked("/download")) == 2


async def test_failed_renewal_closes_response() -> None:
    async with ScriptedServer() as server, downloader(server.url, oauth=True) as files:
        server.on("/accounts/oauth/access_token", json_replied({"access_token": "some-token"}), replied(status=503))
        server.on("/download", replied(status=401))
        with pytest.raises(PlatformUnavailableError, match="access_token"):
            async with files.open(URL(server.url + FILE, encoded=True), "a.csv"):
                pass

"""A platform that sends more and more: each answer, listing and result has a limit."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from yarl import URL

from export_worker.contract.request import ThinkingdataClusterUsers
from export_worker.credentials import Redactor
from export_worker.errors import DownloadInvalidError, PlatformMalformedError, PlatformRefusedError
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.codings import CODINGS_MAX
from export_worker.platforms.http.listings import LISTING_TOTAL_MAX_BYTES, PAGES_MAX
from export_worker.platforms.http.oauth import KNOWN_TOKENS, ClientCredentialsAuth
from support.drivers import downloader, growingio_rest_driver, sensorsdata_driver, thinkingdata_driver
from support.scripted_server import ScriptedServer, Seen, json_replied, raw_server

MIB = 2**20
CODED = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Encoding: %s\r\nContent-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize("count", [CODINGS_MAX + 1, 3000])
async def test_download_with_many_codings_is_refused(count: int) -> None:
    async with raw_server(CODED % b",".join([b"gzip"] * count)) as url, downloader(url) as files:
        with pytest.raises(DownloadInvalidError, match=f"cannot be undone: {count} codings, one in the other"):
            async with files.open(URL(f"{url}/f"), "a.csv"):
                pass


async def test_answer_with_many_codings_is_refused() -> None:
    async with raw_server(CODED % b",".join([b"gzip"] * 3000)) as url:
        client = HttpClient("gio", url, Redactor())
        with pytest.raises(PlatformMalformedError, match="codings, one in the other"):
            await client.exchange(Call("GET", "/api"))
        await client.close()


def padded(number: int, size: int) -> dict[str, Any]:
    """Returns an item of a listing that no other page has."""
    return {"id": number, "name": "x" * size}


async def test_catalog_of_growingio_without_end_is_refused() -> None:
    async def endless(seen: Seen) -> web.StreamResponse:
        offset = int(parse_qs(urlsplit(seen.target).query)["offset"][0])
        return web.json_response({"values": [padded(offset, 1)], "hasNextPage": True})

    async with ScriptedServer() as server, growingio_rest_driver(server) as driver:
        server.on("/v1/api/projects/WlGk4Daj/segment_profiles", endless)
        with pytest.raises(PlatformMalformedError, match="does not end"):
            await driver.catalog("segments", "WlGk4Daj")
        assert len(server.seen) == PAGES_MAX + 1


@pytest.mark.parametrize(("size", "pages"), [(1, PAGES_MAX + 1), (8 * MIB, LISTING_TOTAL_MAX_BYTES // (8 * MIB))])
async def test_catalog_of_thinkingdata_without_end_is_refused(size: int, pages: int) -> None:
    async def endless(seen: Seen) -> web.StreamResponse:
        number = seen.json["pagerHeader"]["pageNum"]
        data = {"userClusters": [padded(number, size)], "pagerResult": {"totalNum": 10**12}}
        return web.json_response({"return_code": 0, "data": data})

    async with ScriptedServer() as server, thinkingdata_driver(server, list_page_size=1) as driver:
        server.on("/open/user-cluster-list", endless)
        with pytest.raises(PlatformMalformedError, match="does not end"):
            await driver.catalog("clusters", "102")
        assert len(server.seen) == pages


@pytest.mark.parametrize(
    "stat",
    [
        {"rowCount": 2, "pageCount": 10**12},
        {"rowCount": 0, "pageCount": 2},
        {"rowCount": "2", "pageCount": "1" + "0" * 5000},
        {"rowCount": "9" * 5000, "pageCount": 1},
    ],
)
async def test_result_with_more_pages_than_rows_is_refused_before_any_page(stat: dict[str, Any]) -> None:
    request = ThinkingdataClusterUsers(project_id=102, cluster_id=970)
    async with ScriptedServer() as server, thinkingdata_driver(server) as driver:
        info = {"status": "FINISHED", "resultStat": stat}
        server.on("/open/sql-task-info", json_replied({"return_code": 0, "data": info}))
        with pytest.raises(PlatformMalformedError):
            async with driver.open_result(request, RemoteFile("/open/sql-result-page?taskId=t-1", "recent.csv")):
                pass
        assert len(server.seen) == 1


async def test_code_with_thousands_of_digits_is_malformed() -> None:
    request = ThinkingdataClusterUsers(project_id=102, cluster_id=970)
    async with ScriptedServer() as server, thinkingdata_driver(server) as driver:
        server.on("/open/user-cluster-detail", json_replied({"return_code": "1" * 5000}))
        with pytest.raises(PlatformMalformedError, match="has no return_code"):
            await driver.submit(request)


async def test_rows_of_a_statement_have_a_limit_of_bytes() -> None:
    async def rows(_: Seen) -> web.StreamResponse:
        line = json.dumps({"n": "x" * 4 * MIB}).encode() + b"\n"

        async def body() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield line

        return web.Response(body=body())

    async with ScriptedServer() as server, sensorsdata_driver(server) as driver:
        server.on("/api/sql/query", rows)
        with pytest.raises(PlatformRefusedError, match="more than 10000 rows or 16 MiB; add a LIMIT"):
            await driver.call(driver.operations["sql-query"], {"sql": "SELECT 1"}, None)


async def test_only_the_last_tokens_of_a_platform_are_kept_for_masking() -> None:
    """A platform may refuse each token and issue another one."""
    tokens = [f"issued-token-{number:04d}" for number in range(50)]
    redactor = Redactor()
    async with ScriptedServer() as server:
        server.on("/accounts/oauth/access_token", *[json_replied({"access_token": token}) for token in tokens])
        client = HttpClient("gio", server.url, redactor)
        auth = ClientCredentialsAuth(client, "secret-of-the-grant", "Token")
        current = await auth.credential()
        for _ in tokens[1:]:
            current = await auth.renew(current)
        await auth.close()
        await client.close()
    masked = [token for token in tokens if redactor.text(token) == "***"]
    assert masked == tokens[-KNOWN_TOKENS:]

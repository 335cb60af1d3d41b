"""Servers that send one byte now and then: the head of a download, and its error page, have a limit."""

import asyncio

import pytest
from yarl import URL

from export_worker.credentials import Redactor
from export_worker.errors import PlatformUnavailableError, ResultMissingError
from export_worker.platforms.http.client import ANONYMOUS, Call, HttpClient
from support.drivers import downloader
from support.scripted_server import dripping_server

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nX-Filler: " + b"a" * 1000 + b"\r\nContent-Length: 4\r\n\r\n"
PAUSE_S, LIMIT_S, GIVE_UP_S = 0.05, 2.0, 30.0


async def test_head_of_a_download_that_drips_is_no_response() -> None:
    async with dripping_server(HEAD + b"a,b\n", 10, PAUSE_S) as base_url, asyncio.timeout(GIVE_UP_S):
        url = URL(base_url + "/download?file=/a.csv", encoded=True)
        async with downloader(base_url, stall_s=LIMIT_S) as files:
            with pytest.raises(PlatformUnavailableError, match="no response within the timeout"):
                await files.open(url, "a.csv").__aenter__()


async def test_error_page_that_drips_ends_with_the_status_of_its_head() -> None:
    head = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 2000\r\n\r\nno such file "
    async with dripping_server(head + b"." * 2000, len(head), PAUSE_S) as base_url, asyncio.timeout(GIVE_UP_S):
        url = URL(base_url + "/download?file=/a.csv", encoded=True)
        async with downloader(base_url, stall_s=LIMIT_S) as files:
            with pytest.raises(ResultMissingError, match=r"HTTP 404\): no such file"):
                await files.open(url, "a.csv").__aenter__()


async def test_head_of_a_query_that_drips_is_no_response() -> None:
    async with dripping_server(HEAD, 10, PAUSE_S) as base_url, asyncio.timeout(GIVE_UP_S):
        client = HttpClient("sensors", base_url, Redactor())
        with pytest.raises(PlatformUnavailableError), client.translate_errors("POST /query"):
            await client.open_stream(Call("POST", "/query", timeout_s=LIMIT_S), ANONYMOUS)
        await client.close()

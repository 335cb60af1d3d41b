"""A secret is moved over every boundary at which a part of an answer is cut for a message, and no part of it is shown.

Each message comes from the code that makes it: a real client reads a real response from a socket.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from export_worker.contract.request import (
    ExportKind,
    GrowingioTagUsers,
    GrowingioUserTagUsers,
    SensorsdataUserGroupUsers,
    ThinkingdataClusterUsers,
)
from export_worker.credentials import Redactor
from export_worker.errors import StepError
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.base import Driver
from export_worker.platforms.http.bodies import ERROR_BODY_MAX_BYTES, read_error_page
from export_worker.platforms.http.responses import excerpt_of_body
from export_worker.transfer.error_pages import SNIFF_BYTES, ErrorPages
from support.drivers import (
    GRAPHQL,
    downloader,
    growingio_driver,
    growingio_rest_driver,
    sensorsdata_driver,
    thinkingdata_driver,
)
from support.scripted_server import CANARY, ScriptedServer, Seen, raw_server

SHOWN_MIN = 6
"""A shorter part of the secret may occur in any text."""
PARTS = {CANARY.lower()[start : start + SHOWN_MIN] for start in range(len(CANARY) - SHOWN_MIN + 1)}
LIMITS = (300, 4096, ERROR_BODY_MAX_BYTES)
"""Characters of a message, characters that are masked, bytes that are read."""


def bodies(before: str, after: str, limits: tuple[int, ...] = LIMITS) -> list[str]:
    """Returns bodies in which each limit is at each place of the secret. Blanks are folded, so they hide nothing.

    Args:
        before: Beginning of the body.
        after: End of the body.
        limits: Lengths at which the body may be cut.
    """
    places = [limit - shift for limit in limits for shift in range(-2, len(CANARY) + 3, 2)]
    fillers = [filler * (place - len(before)) for place in places for filler in (" ", "x")]
    return [f"{before}{filler}{CANARY}{end}" for filler in fillers for end in (after, " " * 20_000 + after)]


def check(message: str) -> None:
    """Fails if the message shows a part of the secret."""
    assert not [part for part in PARTS if part in message.lower()], message


async def message_of(call: Callable[[], Awaitable[object]]) -> str:
    """Returns the message of the error that a call raises."""
    with pytest.raises(StepError) as caught:
        await call()
    return str(caught.value)


@dataclass
class Answer:
    """What the server answers next."""

    body: str = ""
    status: int = 200
    content_type: str = "text/plain"

    async def reply(self, _: Seen) -> web.StreamResponse:
        """Answers every request."""
        headers = {"Content-Type": self.content_type}
        return web.Response(body=self.body.encode(), status=self.status, headers=headers)


@asynccontextmanager
async def answering(answer: Answer, *paths: str) -> AsyncIterator[ScriptedServer]:
    """A server that answers requests to these paths."""
    async with ScriptedServer() as server:
        for path in paths:
            server.on(path, answer.reply)
        yield server


@pytest.mark.parametrize(
    ("answer", "before", "after"),
    [
        (Answer(status=404), "", "end"),
        (Answer(status=500), "", "end"),
        (Answer(content_type="text/html"), "<html>", "</html>"),
    ],
    ids=["404", "500", "a page with 200"],
)
async def test_page_in_place_of_a_file(answer: Answer, before: str, after: str) -> None:
    async with answering(answer, "/f") as server, downloader(server.url) as files:

        async def open_file() -> None:
            async with files.open(URL(f"{server.url}/f"), "a.csv"):
                pass

        for answer.body in bodies(before, after):
            check(await message_of(open_file))


TAG = GrowingioTagUsers(tag_key="t")
USER_TAG = GrowingioUserTagUsers(tag_key="t")
GROUP = SensorsdataUserGroupUsers(group_id=1)
CLUSTER = ThinkingdataClusterUsers(project_id=1, cluster_id=1)


async def test_refused_submit_to_every_platform() -> None:
    answer = Answer(status=500)
    async with (
        ScriptedServer() as server,
        growingio_driver(server) as gio,
        growingio_rest_driver(server) as rest,
        sensorsdata_driver(server) as sensors,
        thinkingdata_driver(server) as ta,
    ):
        drivers: list[tuple[Driver, ExportKind]] = [(gio, TAG), (rest, USER_TAG), (sensors, GROUP), (ta, CLUSTER)]
        submits = [partial(driver.submit, export) for driver, export in drivers]
        for submit in submits:
            await message_of(submit)
        for path in {seen.target.partition("?")[0] for seen in server.seen}:
            server.on(path, answer.reply)
        for answer.body in bodies("", "end")[::4]:
            for submit in submits:
                check(await message_of(submit))


@pytest.mark.parametrize(
    "envelope",
    [
        lambda text: {"errors": [{"message": text}]},
        lambda text: {"errors": [text, text]},
        lambda text: {"data": {}, "errors": {"message": {"a": text}}},
    ],
)
async def test_errors_of_graphql(envelope: Callable[[str], object]) -> None:
    answer = Answer(content_type="application/json")
    async with answering(answer, GRAPHQL) as server, growingio_driver(server) as driver:
        for text in bodies("", "end", LIMITS[:2]):
            answer.body = json.dumps(envelope(text))
            check(await message_of(lambda: driver.submit(TAG)))


async def test_error_of_thinkingdata_in_a_response_of_status_200() -> None:
    answer = Answer(content_type="application/json")
    async with answering(answer, "/open/user-cluster-detail") as server, thinkingdata_driver(server) as driver:
        for text in bodies("", "end", LIMITS[:2]):
            for value in ({"return_code": -1, "return_message": text}, {"code": text}):
                answer.body = json.dumps(value)
                check(await message_of(lambda: driver.submit(CLUSTER)))


def test_page_that_is_a_whole_download() -> None:
    redactor = Redactor()
    redactor.add(CANARY)
    pages = ErrorPages("users.csv", redactor)
    for text in bodies("<html>", "</html>", (*LIMITS, SNIFF_BYTES)):
        check_error(pages.check_whole, text.encode())
        check_error(pages.check_beginning, text.encode()[:SNIFF_BYTES])
    for text in bodies("<html>", "</html>", (4096, SNIFF_BYTES // 2))[::8]:
        for charset in ("utf-16", "utf-16-le", "utf-16-be"):
            check_error(pages.check_beginning, text.encode(charset)[:SNIFF_BYTES])
    for text in bodies("", "<html>", (SNIFF_BYTES - 10,)):
        # Blanks before the page hide how long the text was before it was cut.
        check_error(pages.check_beginning, f"{' ' * 60_000}<html>{text}".encode()[:SNIFF_BYTES])
        check_error(pages.check_beginning, f"{' ' * (SNIFF_BYTES - 30)}<html>{CANARY}".encode()[:SNIFF_BYTES])
    for text in bodies('{"message": "', '"}', LIMITS[:2]):
        check_error(pages.check_whole, text.replace("\n", " ").encode())


HALVES = (b"\x81", b"\xfe", b"\xff", b"\xe4\xb8", b"\xf0\x9f", b"\xb0\xa1\x81", b"\x810\x81")
"""Beginnings of characters in GB18030 and UTF-8. What follows may be read as the rest of the character."""


@pytest.mark.parametrize("half", HALVES)
async def test_secret_after_half_a_character(half: bytes) -> None:
    redactor = Redactor()
    redactor.add(CANARY)
    pages, secret = ErrorPages("users.csv", redactor), CANARY.encode()
    for page in (b"<html>%s", b"<html>%s \xb0\xa1", b'{"error": "%s"}'):
        for size in (*range(8, len(secret), 5), len(secret)):
            check(excerpt_of_body(page.partition(b"%s")[0] + half + secret[:size], redactor))
        check_error(pages.check_whole, page % (half + secret))


def check_error(examine: Callable[[bytes], None], body: bytes) -> None:
    """Checks the message of an error page."""
    with pytest.raises(StepError) as caught:
        examine(body)
    check(str(caught.value))


async def test_message_in_place_of_a_list_of_users() -> None:
    answer = Answer()
    async with answering(answer, "/download") as server, growingio_rest_driver(server) as driver:

        async def read_file() -> None:
            async with driver.open_result(USER_TAG, RemoteFile("/a.csv", "a.csv")) as download:
                async for _ in download.chunks():
                    pass

        for answer.body in [body for body in bodies("no ", "", (300, 4080)) if len(body) <= 4096]:
            check(await message_of(read_file))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n"
QUOTING: dict[str, Callable[[bytes], bytes]] = {
    "a field that is too long": lambda text: HEAD + b"X-A: " + text + b"a" * 70_000 + b"\r\n\r\n",
    "a name that is too long": lambda text: HEAD + text + b"a" * 70_000 + b": 1\r\n\r\n",
    "a reason that is too long": lambda text: b"HTTP/1.1 200 " + text + b"a" * 70_000 + b"\r\n\r\n",
    "a name with a control character": lambda text: HEAD + b"X \x01: " + text + b"\r\n\r\n",
    "a version": lambda text: b"HTTP/9.1 " + text + b"\r\n\r\n",
    "no HTTP": lambda text: text + b"\r\n\r\n",
    "a length": lambda text: HEAD + b"Content-Length: 3" + text + b"\r\n\r\n",
    "the size of a chunk": lambda text: HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nid\r\nzz" + text,
    "the end of a chunk": lambda text: HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nid" + text + b"\r\n0\r\n\r\n",
    "bytes after the end": lambda text: HEAD + b"Content-Length: 2\r\n\r\nid" + text,
    "a coding": lambda text: HEAD + b"Content-Encoding: " + text + b"\r\nContent-Length: 2\r\n\r\nid",
    "a media type": lambda text: b"HTTP/1.1 200 OK\r\nContent-Type: text/html;" + text + b"\r\n\r\n<html>" + text,
    "the target of a redirect": lambda text: b"HTTP/1.1 302 Found\r\nLocation: http://h/" + text + b"\r\n\r\n",
    "the host of a redirect": lambda text: b"HTTP/1.1 302 Found\r\nLocation: http://" + text + b"/\r\n\r\n",
    "a stalled page": lambda text: b"HTTP/1.1 404 No\r\nContent-Length: 99999\r\n\r\n" + text,
}
SHOWN = {"a coding", "a media type", "the target of a redirect", "the host of a redirect", "a stalled page"}
"""Cases whose text is no part of a file, and is shown on purpose."""
ROW = b"13800138000,User"


@pytest.mark.parametrize("case", QUOTING)
async def test_response_that_is_no_valid_http(case: str) -> None:
    """The parser of HTTP quotes the first hundred bytes of what is wrong. It is moved over the secret."""
    for text in [ROW, *(b"a" * (100 - size) + CANARY.encode() for size in range(0, len(CANARY) + 3, 3))]:
        async with raw_server(QUOTING[case](text)) as url, downloader(url, stall_s=5) as files:

            async def read_file() -> None:
                async with files.open(URL(f"{url}/f"), "a.csv") as download:
                    async for _ in download.chunks():
                        pass

            message = await message_of(read_file)
            check(message)
            assert case in SHOWN or "138001" not in message


async def test_page_is_quoted_although_its_connection_has_the_shorter_timeout() -> None:
    answer = b"HTTP/1.1 404 No\r\nContent-Length: 99\r\n\r\nno such"
    timeout = aiohttp.ClientTimeout(sock_read=0.2)
    async with (
        raw_server(answer, hold=True) as url,
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url) as response,
    ):
        assert await read_error_page(response, 60) == b"no such"


async def test_page_that_stalls_within_the_secret() -> None:
    """All pages stall at the same time, so that a loaded machine has long enough to receive them."""

    async def message_of_page(size: int) -> str:
        answer = b"HTTP/1.1 404 No\r\nContent-Length: 99\r\n\r\nno " + CANARY.encode()[:size]
        async with raw_server(answer, hold=True) as url, downloader(url, stall_s=8.0) as files:

            async def open_file() -> None:
                async with files.open(URL(f"{url}/f"), "a.csv"):
                    pass

            return await message_of(open_file)

    for message in await asyncio.gather(*map(message_of_page, range(1, len(CANARY), 5))):
        check(message)
        assert message.endswith(": no")

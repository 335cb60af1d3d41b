"""Pages in Chinese: no sentence is in English, also those that workers have stored, and times are those of the page."""

# ruff: noqa: RUF001 - messages in Chinese have wide marks

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from html.parser import HTMLParser

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_worker.contract.status import Phase
from support.console_crawl import crawl
from support.console_pages import fields_of, text
from support.console_world import CONNECTION, World, fill
from support.gateway_site import GatewaySite, open_gateway

CHINESE = {"Accept-Language": "zh-CN"}
MESSAGE = (
    "POST https://op.example.cn/graphql: no response within the timeout; the platform does not answer a cheap call "
    "either: cannot connect to op.example.cn:443 (connection refused)"
)
"""What workers and sinks have reported: messages of ours in one another."""
READ = (
    "POST https://op.example.cn/graphql：超时，没有应答；"
    "平台对简单的探测调用也没有应答：无法连接 op.example.cn:443（连接被拒绝）"
)
RAW = {"code", "pre", "script", "style", "option", "textarea"}
"""Elements with names, commands and documents, which are the same in every language."""
SPOKEN = {"aria-label", "title", "placeholder", "alt"}
NAMES = {"export-worker retry"}
"""English words that Chinese texts have as well."""
_ENGLISH = re.compile(r"(?<![\w.-])[A-Za-z][A-Za-z'-]+(?: [a-z][a-z'-]+\b(?![.:/=_-]\S))+")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T")


class Words(HTMLParser):
    """The texts that people read on a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        if tag not in {"input", "meta", "link", "br", "rect", "hr"}:
            self.open.append(tag)
        self.texts += [value for name, value in attrs if name in SPOKEN and value]

    def handle_endtag(self, tag: str) -> None:
        """See `HTMLParser`."""
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        """See `HTMLParser`."""
        if not RAW & set(self.open):
            self.texts.append(data)


def english(source: str) -> Iterator[str]:
    """Yields the English phrases of a page."""
    for each in Words(source).texts:
        yield from (found for found in _ENGLISH.findall(each) if found not in NAMES)


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with (
        open_gateway(arq_redis, redis_url, namespace, connections=(CONNECTION, "ta")) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        yield replace(gateway, client=client)


@pytest.fixture
async def world(console: GatewaySite) -> World:
    return await fill(console.site, "北京用户", MESSAGE)


async def test_no_page_has_a_sentence_in_english(console: GatewaySite, world: World) -> None:
    found: dict[str, set[str]] = {}
    async for path, response in crawl(console, world.paths(), "zh"):
        if path.startswith("/console/"):
            for phrase in english(text(response)):
                found.setdefault(phrase, set()).add(path)
    assert {phrase: sorted(paths)[:3] for phrase, paths in found.items()} == {}


async def test_message_of_a_worker_is_read_on_each_page_that_shows_it(console: GatewaySite, world: World) -> None:
    failed = f"/console/exports/{world.exports[Phase.FAILED]}"
    for path in (failed, "/console/exports", "/console/workers", "/console/events", "/console/"):
        assert READ in text(await console.call("GET", path, headers=CHINESE)), path
        assert MESSAGE in text(await console.call("GET", path)), path
    # The cause of a failure has no address.
    assert "无法连接 …" in text(await console.call("GET", "/console/failures", headers=CHINESE))


WRONG = """{"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_id": "7", "charset": 8, "tagkey": "a"},
 "output": {"compression": "gzipp"}, "deadline_s": 0, "metadata": [], "notify": [], "idempotency_key": ""}"""


async def test_what_is_wrong_with_a_form_is_said_in_chinese(console: GatewaySite, world: World) -> None:
    form = dict(
        fields_of(await console.call("GET", "/console/new?connection=gio&kind=growingio.tag_users"), "/console/new")
    )
    sent = {"token": form["token"], "key": form["key"], "do": "check"}
    for request in (WRONG, "connection = 'gio'", "", '{"connection": "gio", "export": {"kind": "tag"}}'):
        response = await console.call("POST", "/console/new", data=sent | {"json": request}, headers=CHINESE)
        assert (response.status, list(english(text(response)))) == (422, []), request
    problems = [("/console/exports?since=yesterday", 400), ("/console/activity?cursor=x", 400)]
    for path, status in problems:
        response = await console.call("GET", path, headers=CHINESE)
        assert (response.status, list(english(text(response)))) == (status, []), path


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_times_in_sentences_are_those_of_the_page(console: GatewaySite, world: World, language: str) -> None:
    for export_id in world.exports.values():
        page = text(await console.call("GET", f"/console/exports/{export_id}", headers={"Accept-Language": language}))
        assert [each for each in Words(page).texts if _TIME.search(each)] == []
    failed = text(await console.call("GET", f"/console/exports/{world.exports[Phase.FAILED]}"))
    assert re.search(r'id="part-why".*?<time datetime="[^"]+Z"', failed, re.DOTALL)

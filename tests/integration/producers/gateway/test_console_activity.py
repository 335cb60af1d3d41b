"""The page Activity and the command `activity`: what they show, to whom, and in which order."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape

import aiohttp
import click
import pytest
from arq.connections import ArqRedis
from click.testing import CliRunner

from export_producers.activity import Act, ActivityRange
from export_producers.client import ExportQueue
from export_producers.commands.activity import acts
from export_producers.commands.declarations import activity as command
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from support.gateway_site import OPTIONS, GatewaySite, open_gateway

KEYS = tuple(NamedKey(role, f"secret-of-{role}", role) for role in Role)
HOSTILE = "<script>alert(1)</script>\u202e"


def act_of(who: str, **more: str) -> Act:
    return Act(who=who, kind="key", role="operator", **({"action": "cancel", "outcome": "done"} | more))


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    """A console with acts of two people, the newest last."""
    async with (
        open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, keys=KEYS)) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        log = gateway.site.queue.activity
        await log.add(act_of("viewer", export_id="0" * 32, connection="gio"))
        await log.add(act_of("operator", connection="gio", action="of_the_future", outcome="internal_error"))
        reason = act_of("operator", connection="gio", action="connection_pause")
        await log.add(reason.model_copy(update={"detail": {"reason": HOSTILE}}))
        yield replace(gateway, client=client)


async def page(console: GatewaySite, role: str, query: str = "") -> str:
    """Returns the page as a person with a role sees it."""
    await console.call("POST", "/console/login", data={"key": f"secret-of-{role}"}, allow_redirects=False)
    answer = await console.call("GET", f"/console/activity{query}")
    assert answer.status == 200, answer.body
    return answer.body.decode()


def people(page: str) -> list[str]:
    return re.findall(r'data-label="(?:Who|操作者)"><bdi>(\w+)</bdi>', page)


async def test_operators_see_all_acts_and_viewers_their_own(console: GatewaySite) -> None:
    shown = await page(console, "operator")
    assert people(shown) == ["operator", "operator", "viewer"]
    assert "paused a connection" in shown
    assert "<bdi>of_the_future</bdi>" in shown
    assert "✕ internal_error" in shown
    assert f'href="/console/exports/{"0" * 32}"' in shown
    assert "&lt;script&gt;" in shown
    assert not re.search(r"<script(?! src=)|\u202e", shown)
    for role in ("viewer", "admin"):
        own = await page(console, role, "?lang=zh")
        assert len(people(own)) == (1 if role == "viewer" else 3)
        assert ("您只能看到自己的操作" in own) is (role == "viewer")


async def test_filters_and_cursor_are_in_the_address(console: GatewaySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export_producers.console.pages.activity.PAGE_ROWS", 2)
    first = await page(console, "operator", "?who=&since=24h")
    assert len(people(first)) == 2
    (older,) = re.findall(r'href="([^"]+)" rel="next"', first)
    assert "since=24h" in older
    assert people(await page(console, "operator", unescape(older).removeprefix("/console/activity"))) == ["viewer"]
    one = await page(console, "operator", "?action=connection_pause&who=operator")
    assert len(people(one)) == 1
    assert "export-worker activity --who operator --action connection_pause" in one
    assert "No act matches" in await page(console, "operator", "?who=other")


@pytest.mark.parametrize("query", ["since=yesterday", "cursor=x", "what=1"])
async def test_wrong_address_is_explained(console: GatewaySite, query: str) -> None:
    await page(console, "operator")
    answer = await console.call("GET", f"/console/activity?{query}")
    assert (answer.status, "This did not work" in answer.body.decode()) == (400, True)


async def test_command_reads_until_it_has_enough(console: GatewaySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export_producers.activity.EXAMINED_MAX", 1)
    queue = console.site.queue
    assert [each.who for each in await acts(queue, {"who": "viewer"}, ActivityRange(), 5)] == ["viewer"]
    assert [each.action for each in await acts(queue, {}, ActivityRange(), 2)] == ["connection_pause", "of_the_future"]


def test_command_prints_lines_and_json(redis_url: str, namespace: str) -> None:
    def open_queue() -> ExportQueue:
        return ExportQueue(redis_url, namespace=namespace)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(command, arguments, obj=open_queue)
        assert result.exit_code == 0, result.output
        return result.output

    assert isinstance(command, click.Command)
    assert run() == "no acts\n"
    assert run("--who", "ci", "--since", "6h") == "no acts match\n"
    add = act_of("ci", export_id="a", connection="gio", address="10.0.0.1")

    async def store() -> None:
        async with open_queue() as queue:
            await queue.activity.add(add.model_copy(update={"detail": {"reason": HOSTILE}}))

    asyncio.run(store())
    line = run("--who", "ci")
    assert re.fullmatch(r"\S+Z ci \(operator, 10\.0\.0\.1\) cancel a on gio: done, reason: .+\n", line)
    assert "\u202e" not in line
    (entry,) = json.loads(run("--json", "--limit", "1"))
    assert (entry["who"], entry["detail"]["reason"]) == ("ci", HOSTILE)

"""The pages Connections and Connection over real sockets: what they show, to whom, and pauses by their forms."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.installation import ConfiguredConnection, Installation
from export_producers.gateway.options import NamedKey
from export_producers.gateway.server import listening
from export_worker.contract.redis_keys import Keys
from export_worker.errors import PlatformNotFoundError
from support.gateway_site import OPTIONS, GatewaySite, Response
from support.redis_site import QueueSite

KEYS = (
    NamedKey("viewer", "secret-of-viewer", Role.VIEWER),
    NamedKey("operator", "secret-of-operator", Role.OPERATOR),
    NamedKey("ta", "secret-of-ta", Role.OPERATOR, frozenset({"ta"})),
)
ADDRESS = "https://op.example.cn/v1"
HOSTILE = "<script>alert(1)</script>\u202e"


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    """A console whose clock for shared reads makes each read a new one."""

    async def catalog(connection: str, resource: str, project: str | None) -> list[dict[str, Any]]:
        return [{"id": f"{connection}/{project}", "name": HOSTILE + "x" * 500, "of": {"n": 1}}] * 250

    ticks = iter(range(10**9))
    configured = {"gio": ConfiguredConnection(ADDRESS, 5.0, 20.0)}
    async with (
        ExportQueue(redis_url, namespace=namespace, connections={"gio": "growingio", "ta": "thinkingdata"}) as queue,
        listening(
            replace(OPTIONS, keys=KEYS),
            queue,
            catalog,
            lambda: float(next(ticks)),
            installation=Installation(configured),
        ) as url,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        yield GatewaySite(url, client, QueueSite(arq_redis, queue, Keys(namespace)))


async def log_in(console: GatewaySite, name: str) -> None:
    answer = await console.call("POST", "/console/login", data={"key": f"secret-of-{name}"}, allow_redirects=False)
    assert answer.status == 303


async def page(console: GatewaySite, path: str, status: int = 200) -> str:
    answer = await console.call("GET", f"/console/{path}")
    assert answer.status == status, answer.body
    return answer.body.decode()


async def post(console: GatewaySite, path: str, **form: str) -> Response:
    """Sends a form of the page of the connection."""
    (token, *_) = re.findall(r'name="token" value="([^"]+)"', await page(console, "connections"))
    return await console.call("POST", f"/console/connections/{path}", data={"token": token} | form)


async def test_list_has_every_connection_that_the_visitor_may_see(console: GatewaySite) -> None:
    for name, shown in (("viewer", ["gio", "ta"]), ("ta", ["ta"])):
        await log_in(console, name)
        listed = await page(console, "connections")
        assert re.findall(r'<th scope="row"><a href="/console/connections/(\w+)"', listed) == shown
        assert "thinkingdata" in listed
    await page(console, "connections/gio", status=403)
    await page(console, "connections/gio/catalog?resource=tags", status=403)
    assert (await post(console, "gio/pause")).status == 403


async def test_page_has_address_limits_breakers_durations_and_errors(console: GatewaySite) -> None:
    site = console.site
    await site.ended(None)
    await site.ended(PlatformNotFoundError(HOSTILE))
    until_ms = site.now_ms + 90_000
    await site.redis.hset(site.keys.breaker("gio"), mapping={"until": until_ms, "pauses": 3})
    await site.redis.hset(site.keys.breaker("gio", "transfer"), mapping={"failures": 2})
    await site.redis.lpush(site.keys.durations("gio", "growingio.tag_users"), 1500, 62_000, 65_000)
    await site.redis.set(site.keys.rate("gio"), site.now_ms + 61_000)
    await log_in(console, "viewer")
    shown = await page(console, "connections/gio")
    assert f"<code>{ADDRESS}</code>" in shown
    assert "5.0 a second" in shown
    assert "20.0 MiB a second at most" in shown
    assert re.search(r"Platform</dt><dd[^>]*>✕ open for 1 min \d+ s, after failures: 3", shown)
    assert re.search(r"Files</dt><dd[^>]*>✓ closed, after failures: 2", shown)
    assert re.search(r"Submits</dt><dd[^>]*>✓ closed: calls succeed", shown)
    assert re.search(r"the next request waits (59 s|1 min)", shown)
    assert "Tag users <small>Usual duration" in shown
    assert re.search(r"connection=gio[^>]+error=(\w+)\"><code>\1</code></a></dt><dd>1</dd>", shown)
    assert re.findall(r'<rect class="bin"', shown) == ['<rect class="bin"'] * 3
    assert re.search(r'<th scope="row">up to 5 min</th><td>2</td>', shown)
    assert "/pause" not in shown
    chinese = await page(console, "connections/gio?lang=zh")
    assert "熔断器" in chinese
    document = (await console.call("GET", "/v1/connections/gio", headers=by("viewer"))).json
    assert document["address"] == ADDRESS
    assert document["state"]["breaker"]["platform"]["failures"] == 3
    assert document["limits"] == {"max_in_flight": None, "requests_per_second": 5.0, "mib_per_second": 20.0}
    assert 58 < document["use"]["rate_wait_s"] <= 60


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer secret-of-{name}"}


async def test_unknown_connection_is_not_found(console: GatewaySite) -> None:
    await log_in(console, "operator")
    await page(console, "connections/none", status=404)
    assert (await post(console, "none/pause")).status == 404
    assert (await console.call("GET", "/v1/connections/none", headers=by("viewer"))).status == 404


async def test_pause_and_resume_are_recorded_and_shown_everywhere(console: GatewaySite) -> None:
    await console.site.enqueue()
    await log_in(console, "viewer")
    assert (await post(console, "gio/pause")).status == 403
    await log_in(console, "operator")
    done = await post(console, "gio/pause", until="30m", reason=HOSTILE)
    text = done.body.decode()
    assert "The connection is paused." in text
    assert "paused by operator for 29 min" in text or "paused by operator for 30 min" in text
    assert not re.search(r"<script(?! src=)|\u202e", text)
    pause = (await console.call("GET", "/v1/connections/gio", headers=by("viewer"))).json["pause"]
    assert pause["by"] == "operator"
    assert 1700 < (datetime.fromisoformat(pause["until"]) - datetime.now(UTC)).total_seconds() <= 1800
    for path in ("", "connections"):
        assert "paused by operator" in await page(console, path)
    resumed = await post(console, "gio/resume")
    assert "The connection is not paused." in resumed.body.decode()
    acts = (await console.call("GET", "/v1/activity", headers=by("operator"))).json["entries"]
    assert [(act["action"], act["connection"]) for act in acts] == [
        ("connection_resume", "gio"),
        ("connection_pause", "gio"),
    ]
    await post(console, "gio/pause")
    assert "1 个导出等待提交" in await page(console, "?lang=zh")
    assert acts[1]["detail"]["reason"].startswith("<script>")


@pytest.mark.parametrize(
    ("form", "status"),
    [({"until": "soon"}, 400), ({"until": "2020-01-01T00:00:00Z"}, 422), ({"reason": "r" * 201}, 422)],
)
async def test_wrong_pause_is_explained(console: GatewaySite, form: dict[str, str], status: int) -> None:
    await log_in(console, "operator")
    answer = await post(console, "ta/pause", **form)
    assert (answer.status, "This did not work" in answer.body.decode()) == (status, True)


async def test_catalog_is_bounded_and_shown_as_text(console: GatewaySite) -> None:
    await log_in(console, "viewer")
    shown = await page(console, "connections/gio/catalog?resource=segments&project=p%26")
    assert "Items: 250 The page shows the first 200." in shown
    assert len(re.findall("<tr>", shown)) == 201
    assert "gio/p&amp;" in shown
    assert not re.search(r"<script(?! src=)|\u202e", shown)
    assert max(map(len, re.findall(r"<bdi>([^<]*)</bdi>", shown))) < 300
    assert "export-worker catalog gio segments --project &#39;p&amp;&#39;" in shown
    await page(console, "connections/gio/catalog?resource=secrets", status=404)

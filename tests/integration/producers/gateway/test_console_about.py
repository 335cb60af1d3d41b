"""The page About, the configuration, and the checks of `doctor`: who may see and run them, and how lines arrive."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.handlers import installation as handlers
from export_producers.gateway.installation import Installation
from export_producers.gateway.options import NamedKey
from export_producers.gateway.server import listening
from export_worker.contract.redis_keys import Keys
from support.gateway_site import OPTIONS, GatewaySite
from support.redis_site import QueueSite

KEYS = (
    *(NamedKey(role, f"secret-of-{role}", role) for role in Role),
    NamedKey("of-gio", "secret-of-of-gio", Role.ADMIN, frozenset({"gio"})),
)
SETTINGS = {"s3": {"bucket": "my-exports"}, "connections": {"gio": {"token": "***", "mib_per_second": None}}}
HOSTILE = "<script>alert(1)</script>\u202e"


def finding(about: str, level: str, fix: str = "") -> dict[str, str]:
    return {"about": about, "level": level, "says": HOSTILE, "fix": fix}


@dataclass
class Doctor:
    """Checks that continue when the test says so.

    Args:
        ended: Whether the generator was closed.
    """

    next: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def findings(self) -> AsyncGenerator[Mapping[str, str], None]:
        try:
            yield finding("redis", "ok")
            await self.next.wait()
            yield finding("s3", "error", fix="set the bucket")
        finally:
            self.ended.set()


@pytest.fixture
def doctor() -> Doctor:
    return Doctor()


@pytest.fixture
async def console(
    arq_redis: ArqRedis, redis_url: str, namespace: str, doctor: Doctor, request: pytest.FixtureRequest
) -> AsyncIterator[GatewaySite]:
    """A gateway with a configuration, and with checks unless the test has a parameter."""
    call = doctor.findings if getattr(request, "param", True) else None
    known = Installation(settings=lambda: SETTINGS, doctor=call)
    async with (
        ExportQueue(redis_url, namespace=namespace, connections={"gio": "growingio"}) as queue,
        listening(replace(OPTIONS, keys=KEYS), queue, installation=known) as url,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        yield GatewaySite(url, client, QueueSite(arq_redis, queue, Keys(namespace)))


def by(name: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer secret-of-{name}"}}


async def page(console: GatewaySite, key: str, query: str = "") -> str:
    await console.call("POST", "/console/login", data={"key": f"secret-of-{key}"}, allow_redirects=False)
    answer = await console.call("GET", f"/console/about{query}")
    assert answer.status == 200, answer.body
    return answer.body.decode()


def form(page: str) -> dict[str, Any]:
    """Returns the arguments of a call with the form of a page."""
    return {"data": {"token": re.findall(r'name="token" value="([^"]+)"', page)[0]}}


@pytest.mark.parametrize("key", ["viewer", "operator", "of-gio"])
async def test_only_administrators_of_everything_see_settings_and_doctor(console: GatewaySite, key: str) -> None:
    shown = await page(console, key)
    assert "my-exports" not in shown
    assert "/console/about/doctor" not in shown
    assert "Administrators also see" in shown
    assert "export-worker schema request" in shown
    refused = await console.call("POST", "/console/about/doctor", **form(shown))
    assert (refused.status, "my-exports" in refused.body.decode()) == (403, False)
    assert (await console.call("GET", "/v1/configuration", **by(key))).status == 403
    assert (await console.call("POST", "/v1/doctor", **by(key))).status == 403


async def test_administrator_sees_the_configuration_in_both_languages(console: GatewaySite) -> None:
    shown = await page(console, "admin")
    assert "s3.bucket = &#34;my-exports&#34;\nconnections.gio.token = &#34;***&#34;\n" in shown
    assert "mib_per_second" not in shown
    assert "生效的配置" in await page(console, "admin", "?lang=zh")
    assert (await console.call("GET", "/v1/configuration", **by("admin"))).json == {"settings": SETTINGS}


async def test_lines_of_the_checks_arrive_one_by_one_and_one_run_at_a_time(
    console: GatewaySite, doctor: Doctor
) -> None:
    shown = await page(console, "admin")
    async with console.client.post(f"{console.url}/console/about/doctor", **form(shown)) as run:
        assert (run.status, run.content_type) == (200, "text/html")
        assert "script-src 'self'" in run.headers["Content-Security-Policy"]
        received = b""
        async with asyncio.timeout(20):
            while b"<li>" not in received:
                received += await run.content.readany()
        assert b"redis" in received
        assert b"</html>" not in received
        busy = await console.call("POST", "/v1/doctor", **by("admin"))
        assert (busy.status, busy.json["code"]) == (409, "in_progress")
        doctor.next.set()
        received += await run.content.read()
    text = received.decode()
    assert "✕ error</span> <b><bdi>s3</bdi></b>" in text
    assert "set the bucket" in text
    assert "Finished. Good: 1. Warnings: 0. Errors: 1." in text
    assert text.rstrip().endswith("</html>")
    assert not re.search(r"<script(?! src=)|\u202e", text)
    report = (await console.call("POST", "/v1/doctor", **by("admin"))).json
    assert (report["ok"], [each["about"] for each in report["findings"]]) == (False, ["redis", "s3"])
    acts = (await console.call("GET", "/v1/activity", **by("admin"))).json["entries"]
    assert [act["action"] for act in acts] == ["doctor", "doctor"]


async def test_checks_end_after_their_limit(
    console: GatewaySite, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "DOCTOR_MAX_S", 0.2)
    report = (await console.call("POST", "/v1/doctor", **by("admin"))).json
    assert [each["about"] for each in report["findings"]] == ["redis", "doctor"]
    assert doctor.ended.is_set()


async def test_visitor_who_leaves_ends_the_checks(console: GatewaySite, doctor: Doctor) -> None:
    shown = await page(console, "admin")
    run = await console.client.post(f"{console.url}/console/about/doctor", **form(shown))
    await run.content.readany()
    run.close()
    doctor.next.set()
    async with asyncio.timeout(20):
        await doctor.ended.wait()


@pytest.mark.parametrize("console", [False], indirect=True, ids=["without doctor"])
async def test_gateway_without_the_extra_names_the_command(console: GatewaySite) -> None:
    shown = await page(console, "admin")
    assert "Doctor is not installed with this gateway" in shown
    assert "export-worker doctor" in shown
    answer = await console.call("POST", "/v1/doctor", **by("admin"))
    assert (answer.status, "export-worker doctor" in answer.json["detail"]) == (501, True)

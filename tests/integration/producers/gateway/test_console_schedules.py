"""The page Schedules over real sockets: what it shows, to whom, and its forms."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_producers.gateway.server import listening
from export_producers.schedules.firing import FiringQueue
from export_producers.schedules.operating import Schedules
from export_worker.contract.redis_keys import Keys
from export_worker.contract.schedule import ScheduleDefinition
from support.gateway_site import OPTIONS, GatewaySite
from support.redis_site import QueueSite

KEYS = (
    NamedKey("viewer", "secret-of-viewer", Role.VIEWER),
    NamedKey("operator", "secret-of-operator", Role.OPERATOR),
    NamedKey("ta", "secret-of-ta", Role.OPERATOR, frozenset({"ta"})),
)
EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    """A console with the schedule `nightly` of a worker."""
    keys = Keys(namespace)
    async with (
        ExportQueue(redis_url, namespace=namespace, connections={"gio": "growingio", "ta": "thinkingdata"}) as queue,
        listening(replace(OPTIONS, keys=KEYS), queue) as url,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        site = QueueSite(arq_redis, queue, keys)
        definition = ScheduleDefinition(
            cron="0 6 * * *", timezone="Asia/Shanghai", request={"connection": "gio", "export": EXPORT}
        )
        firing = FiringQueue(arq_redis, keys, {"nightly": definition})
        await firing.announce({"nightly": site.now}, {"nightly": site.now + timedelta(hours=1)}, site.now)
        yield GatewaySite(url, client, site)


async def page_of(console: GatewaySite, name: str) -> str:
    """Logs a visitor in, and returns the page."""
    await console.call("POST", "/console/login", data={"key": f"secret-of-{name}"}, allow_redirects=False)
    answer = await console.call("GET", "/console/schedules")
    assert answer.status == 200, answer.body
    return answer.body.decode()


async def test_page_shows_schedules_and_has_forms_for_operators(console: GatewaySite) -> None:
    for name, rows, forms in (("viewer", 1, 0), ("operator", 1, 2), ("ta", 0, 0)):
        shown = await page_of(console, name)
        assert shown.count("0 6 * * *") == rows
        assert len(re.findall(r'action="/console/schedules/nightly/\w+"', shown)) == forms


async def test_forms_pause_resume_and_run(console: GatewaySite) -> None:
    (token, *_) = re.findall(r'name="token" value="([^"]+)"', await page_of(console, "operator"))

    async def post(what: str, **form: str) -> str:
        answer = await console.call("POST", f"/console/schedules/nightly/{what}", data={"token": token} | form)
        assert answer.status == 200, answer.body
        return answer.body.decode()

    paused = await post("pause", reason=HOSTILE)
    assert "The schedule is paused." in paused
    assert HOSTILE not in paused
    (state,) = await Schedules(console.site.queue).all()
    assert state.pause is not None
    assert (state.pause.by, state.pause.reason, state.next_at) == ("operator", HOSTILE, None)
    assert "The schedule is not paused." in await post("resume")
    assert "The export was requested." in await post("run")
    (status,) = await console.site.queue.list_exports()
    assert status.requested_by == "schedule:nightly"

"""The pages Events and Triggers over real sockets: what each visitor sees, and what their forms do."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.console.visitors.sessions import form_token
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_producers.triggers.configured import ConfiguredTrigger
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.message import Message
from export_producers.triggers.template import Template
from export_worker.errors import ConfigError
from export_worker.redis.outbox import Delivery, Outbox
from support.console_pages import text
from support.gateway_site import OPTIONS, GatewaySite, open_gateway
from support.redis_site import REFUSED

COOKIE = "a-cookie-of-the-visitor"
REQUEST = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "{data.tag}"}}


class Configuration:
    """The triggers of the configuration. While an operator edits it, it is wrong."""

    is_wrong = False

    async def __call__(self) -> dict[str, ConfiguredTrigger]:
        """Returns two triggers: the requests of one have the connection gio, and of the other any connection."""
        if self.is_wrong:
            raise ConfigError("triggers: is wrong")
        return {
            "ready": ConfiguredTrigger(Template("triggers.ready.request", REQUEST)),
            "any": ConfiguredTrigger(None),
        }


@pytest.fixture
def configuration() -> Configuration:
    return Configuration()


@pytest.fixture
async def console(
    arq_redis: ArqRedis, redis_url: str, namespace: str, configuration: Configuration
) -> AsyncIterator[GatewaySite]:
    keys = (
        NamedKey("viewer", "secret-of-viewer", Role.VIEWER),
        NamedKey("operator", "secret-of-operator", Role.OPERATOR),
        NamedKey("gio", "secret-of-gio", Role.OPERATOR, frozenset({"gio"})),
    )
    options = replace(OPTIONS, keys=keys)
    async with open_gateway(arq_redis, redis_url, namespace, options, triggers=configuration) as gateway:
        await gateway.site.redis.hset(gateway.site.keys.sinks, mapping={"stream": "redis-stream", "hook": "webhook"})
        yield gateway


def by(name: str) -> dict[str, Any]:
    """Returns the headers of a visitor, whose forms carry the token of `COOKIE`."""
    return {"headers": {"Authorization": f"Bearer secret-of-{name}", "Cookie": f"ew={COOKIE}"}}


async def post(console: GatewaySite, name: str, path: str, **form: str) -> str:
    """Sends a form, and returns the page to which it leads."""
    response = await console.call("POST", path, data={"token": form_token(COOKIE)} | form, **by(name))
    return text(response)


async def page(console: GatewaySite, name: str, path: str) -> str:
    return text(await console.call("GET", path, **by(name)))


async def test_empty_pages_say_so_in_both_languages(console: GatewaySite) -> None:
    events = {"": "Every event has been taken", "?state=given_up": "No event was given up", "?lang=zh": "所有事件都已"}
    for query, expected in events.items():
        assert expected in await page(console, "viewer", f"/console/events{query}")
    assert "No trigger has been started" in await page(console, "viewer", "/console/triggers?lang=en")
    gone = await console.call("GET", "/console/events/none.1?lang=en", **by("viewer"))
    assert (gone.status, "the retention of the event is over" in text(gone)) == (404, True)


async def test_open_pages_have_the_forms_of_their_own_visitors(console: GatewaySite) -> None:
    async def first(path: str, name: str) -> str:
        async with console.client.get(f"{console.url}/console/live/{path}", **by(name)) as stream:
            return (await stream.content.readuntil(b"\n\n") + await stream.content.readuntil(b"\n\n")).decode()

    await console.site.enqueue()
    await console.site.fail(await console.site.one(), REFUSED)
    async with console.client.get(f"{console.url}/console/live/events", **by("operator")):
        for path, sign in (("events", form_token(COOKIE)), ("failures", "/console/bulk/new")):
            assert sign in await first(path, "operator")
            assert sign not in await first(path, "viewer")


async def test_events_that_were_given_up_are_delivered_since_a_time(console: GatewaySite) -> None:
    site = console.site
    ids = [f"{await site.ended()}.1" for _ in range(2)]
    outbox = Outbox(site.redis, site.keys)
    await site.redis.delete(site.keys.outbox("hook"))
    for event_id in ids:
        await outbox.give_up("hook", Delivery(event_id, "{}"), site.now, "HTTP 410")
    shown = await page(console, "operator", "/console/events?state=given_up&sink=hook")
    assert "HTTP 410" in shown
    assert 'value="24h"' in shown
    (main,) = re.findall(r"<main.*?</main>", await page(console, "viewer", "/console/events"), flags=re.DOTALL)
    assert "<button" not in main
    done = await post(console, "operator", "/console/events/deliver", since="1h", sink="hook")
    assert "Events that running workers deliver now: 2." in done
    site.catch_up()
    assert {each.event_id for each in await outbox.take("hook", site.now)} == set(ids)
    assert "must be a date and time" in await post(console, "operator", "/console/events/deliver", since="soon")


async def test_key_of_some_connections_sees_the_dead_letters_of_their_triggers(
    console: GatewaySite, configuration: Configuration
) -> None:
    site = console.site
    await site.redis.hset(site.keys.triggers, mapping={"ready": "{}", "any": "{}"})
    for name in ("ready", "any"):
        await DeadLetters(site.redis, site.keys.dead(name)).add(Message("1", b"{}"), f"canary of {name}")
    listed = await page(console, "gio", "/console/triggers")
    assert ('href="/console/triggers/ready"' in listed, 'href="/console/triggers/any"' in listed) == (True, False)
    assert "not visible with your connections" in listed
    assert "canary of ready" in await page(console, "gio", "/console/triggers/ready")
    refused = await console.call("GET", "/console/triggers/any", **by("gio"))
    assert (refused.status, "canary" in text(refused)) == (403, False)
    configuration.is_wrong = True
    edited = await page(console, "operator", "/console/triggers/ready")
    assert ("canary of ready" in edited, "/again" in edited, "/drop" in edited) == (True, False, True)
    assert "not visible" in await page(console, "gio", "/console/triggers")

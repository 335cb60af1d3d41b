"""Journeys of an operator in a real browser: deliver an event now, test a sink, and try a dead letter again."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from arq.connections import ArqRedis
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from export_producers.triggers.configured import ConfiguredTrigger
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.message import Message
from export_producers.triggers.template import Template
from export_worker.lifecycle.backoff import Backoff
from export_worker.redis.outbox import Outbox
from export_worker.sinks.base import SinkRoute
from export_worker.sinks.dispatcher import EventDispatcher
from export_worker.sinks.webhook import Webhook
from support import browser
from support.console_browser import click, drive, shown
from support.console_world import HOSTILE
from support.event_sinks import running
from support.gateway_site import GatewaySite, open_gateway

NEVER = Backoff(3600.0, 3600.0)
"""Waits between deliveries of one event that no test outlasts: only an operator delivers it earlier."""


@dataclass
class Receiver:
    """A receiver of webhooks, which refuses events until it is well."""

    is_well: bool = False
    taken: list[str] = field(default_factory=list)

    async def receive(self, request: web.Request) -> web.Response:
        """Takes one event."""
        if not self.is_well:
            return web.Response(status=503)
        self.taken.append(json.loads(await request.read())["type"])
        return web.Response(status=204)


@asynccontextmanager
async def delivering(site_of: GatewaySite, receiver: Receiver) -> AsyncIterator[None]:
    """Delivers the events of the sink `hook` to a receiver, as a worker does."""
    site, app = site_of.site, web.Application()
    app.router.add_post("/hook", receiver.receive)
    await site.redis.hset(site.keys.sinks, mapping={"hook": "webhook"})
    async with TestServer(app) as server:
        sink = Webhook(str(server.make_url("/hook")), [b"k" * 24], timeout_s=5.0, allow_private=True)
        route = SinkRoute(sink, 4, NEVER, 86_400.0)
        outbox = Outbox(site.redis, site.keys)
        async with running(EventDispatcher(outbox, {"hook": route}, lambda: datetime.now(UTC), lambda: 1.0)):
            yield
        await sink.close()


async def test_operator_delivers_a_refused_event_after_its_receiver_was_repaired(
    arq_redis: ArqRedis, redis_url: str, namespace: str, driver: Chrome, pictures: Path
) -> None:
    receiver = Receiver()
    async with open_gateway(arq_redis, redis_url, namespace) as console, delivering(console, receiver):
        export_id = await console.site.ended()

        def journey() -> None:
            driver.get(f"{console.url}/console/exports/{export_id}")
            shown(driver, "#part-deliveries .failed, #part-deliveries .now", "127.0.0.1 answered 503")
            browser.picture(driver, pictures, "export-deliveries")
            driver.get(f"{console.url}/console/events")
            shown(driver, "#sinks", "Sinks")
            shown(driver, "main > .wide tbody .now", "127.0.0.1 answered 503")
            browser.picture(driver, pictures, "events-refused")
            click(driver, 'button[aria-label^="Send a test event"]')
            shown(driver, "[role=status]", "The test event was sent.")
            shown(driver, "#part-deliveries .phase", "given up")
            receiver.is_well = True
            driver.get(f"{console.url}/console/events?sink=hook")
            click(driver, f'th a[href="/console/events/{export_id}.1"]')
            shown(driver, "h1", "export.failed")
            assert browser.accessibility_findings(driver) == []
            click(driver, "main form button")
            shown(driver, "[role=status]", "A running worker delivers the event")
            shown(driver, "#part-deliveries .phase", "taken")
            browser.picture(driver, pictures, "event-taken")
            driver.get(f"{console.url}/console/events?state=delivered")
            shown(driver, "main > .wide tbody .phase", "taken")
            driver.get(f"{console.url}/console/events")
            shown(driver, ".empty", "Every event has been taken or given up.")

        await drive(journey)
        assert receiver.taken == ["export.failed"]


@dataclass
class Triggers:
    """The only trigger of the configuration, whose template an operator corrects."""

    tag: str

    async def __call__(self) -> dict[str, ConfiguredTrigger]:
        """Returns it."""
        request = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": f"{{data.{self.tag}}}"}}
        return {"ready": ConfiguredTrigger(Template("triggers.ready.request", request))}


def event(number: int, **data: Any) -> bytes:
    found = {"specversion": "1.0", "id": str(number), "source": "/segments", "type": HOSTILE, "data": data}
    return json.dumps(found, ensure_ascii=False).encode()


async def test_operator_tries_a_dead_letter_again_and_drops_another(
    arq_redis: ArqRedis, redis_url: str, namespace: str, driver: Chrome, pictures: Path
) -> None:
    triggers = Triggers("tga")
    async with open_gateway(arq_redis, redis_url, namespace, triggers=triggers) as console:
        keys = console.site.keys
        about = {"type": "redis-stream", "stream": f"{namespace}:in", "group": "g"}
        await console.site.redis.hset(keys.triggers, mapping={"ready": json.dumps(about)})
        dead = DeadLetters(arq_redis, keys.dead("ready"))
        await dead.add(Message(HOSTILE, b"\n".join([b"no json", HOSTILE.encode()])), HOSTILE)
        await dead.add(Message("8-0", event(8, tag="t", name=HOSTILE)), "export.tag_key: is required")

        def journey() -> None:
            driver.get(f"{console.url}/console/triggers")
            click(driver, "tbody a[href$=ready]")
            shown(driver, "h2", "Messages that ready could not use")
            click(driver, "section[id^=dead] summary")
            shown(driver, "section[id^=dead] pre", "<script>alert(1)</script>")
            browser.picture(driver, pictures, "triggers")
            assert browser.accessibility_findings(driver) == []
            click(driver, 'button[aria-label^="Try the message"]')
            shown(driver, "section[id^=dead] [role=alert]", "tag_key")
            triggers.tag = "tag"
            click(driver, 'button[aria-label^="Try the message"]')
            shown(driver, "[role=status]", "The message was enqueued as this export")
            shown(driver, "h1", "tag t")
            driver.get(f"{console.url}/console/triggers/ready")
            assert len(driver.find_elements(By.CSS_SELECTOR, "section[id^=dead]")) == 1
            browser.resize(driver, (320, 640))
            assert browser.parts_beyond_the_window(driver) == []
            click(driver, "section[id^=dead] .actions summary")
            click(driver, "button.danger")
            shown(driver, "[role=status]", "The dead letter is removed.")
            shown(driver, ".empty", "This trigger has no dead letter.")

        await drive(journey)
        (status,) = await console.site.queue.list_exports()
        assert status.requested_by == "trigger:ready"
        assert await arq_redis.xlen(keys.dead("ready")) == 0

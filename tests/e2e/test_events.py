"""Completion events of a whole worker: delivered to a webhook, to the sinks that a request names, and by `replay`."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from arq.connections import ArqRedis
from standardwebhooks.webhooks import Webhook as Verifier

from export_producers.moments import since
from export_worker.contract.model import isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import free_port
from export_worker.errors import ConfigError, InvalidRequestError
from export_worker.redis.client import close_redis, open_redis
from support import misbehaving_server, worker_site
from support.worker_site import Site

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
REQUEST: dict[str, Any] = {
    "connection": "gio",
    "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
}
EVENT_DELAY_MAX_S = 30.0
"""The promise: the work of a killed worker continues within this time."""
NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


@pytest.fixture
async def hook() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver that answers its first call with 503. Yields its URL and the verified events."""
    verified: list[dict[str, Any]] = []
    calls = 0

    async def receive(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            return web.Response(status=503)
        verified.append(Verifier(SECRET).verify(await request.read(), dict(request.headers)))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/hook", verified
    await runner.cleanup()


def add_hook(site: Site, url: str) -> None:
    """Configures the webhook beside the stream."""
    stream = {"type": "redis-stream", "stream": site.stream}
    hook = {"type": "webhook", "url": url, "secret": SECRET, "allow_private": True, "retry_first_s": 0.1}
    site.settings = {"sinks": {"stream": stream, "hook": hook}}


async def wait_for_events(verified: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while len(verified) < count:
            await asyncio.sleep(0.02)
    return verified


async def test_event_is_delivered_to_every_sink_and_replayed_with_the_same_id(
    site: Site, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, verified = hook
    add_hook(site, url)
    async with worker_site.worker(site):
        status = await worker_site.export(site, json.dumps(REQUEST))
        (event,) = await site.events(status.export_id)
        (sent,) = await wait_for_events(verified, 1)
        assert (sent["id"], sent["data"]["phase"]) == (event.id, "succeeded")

        shown = await asyncio.to_thread(site.command, "status", status.export_id, "--deliveries", "--json")
        deliveries = json.loads(shown.stdout)["deliveries"]
        assert {(each["sink"], each["type"], each["event_id"]) for each in deliveries} == {
            ("stream", "redis-stream", event.id),
            ("hook", "webhook", event.id),
        }
        lines = (await asyncio.to_thread(site.command, "status", status.export_id, "--deliveries")).stdout
        assert [line for line in lines.splitlines() if "hook (webhook)" in line]

        ran = await asyncio.to_thread(site.command, "events", "replay", "--since", "1h", "--dry-run", "--json")
        assert ran.status == 0, ran.stderr
        (listed,) = json.loads(ran.stdout)
        assert (listed["event_id"], sorted(listed["sinks"])) == (event.id, ["hook", "stream"])
        ran = await asyncio.to_thread(site.command, "events", "replay", "--since", "1h", "--sink", "hook")
        assert ran.stdout.startswith(f"delivering {event.id} (export.succeeded) to hook")
        assert [item["id"] for item in await wait_for_events(verified, 2)] == [event.id] * 2
        assert len(await site.events(status.export_id)) == 1


async def test_event_of_a_killed_worker_is_delivered_within_30_s(
    site: Site, hook: tuple[str, list[dict[str, Any]]], arq_redis: ArqRedis
) -> None:
    url, verified = hook
    async with site.queue() as queue, misbehaving_server.answering(None) as silent_url:
        add_hook(site, silent_url)
        with site.process("run"):
            accepted = await queue.enqueue(json.dumps(REQUEST))
            # The sink stream gets the event at the same time.
            await site.events(accepted.export_id, timeout_s=60)
        # The process was killed while it delivered the event to the webhook.
        assert await arq_redis.zcard(Keys(site.namespace).outbox("hook")) == 1
        add_hook(site, url)
        async with worker_site.worker(site), asyncio.timeout(EVENT_DELAY_MAX_S):
            while not verified:
                await asyncio.sleep(0.05)
    assert [event["subject"] for event in verified] == [accepted.export_id]


async def test_request_with_notify_uses_only_those_sinks_and_unknown_sink_is_refused(
    site: Site, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, verified = hook
    add_hook(site, url)
    async with worker_site.worker(site):
        only = await worker_site.export(site, json.dumps(REQUEST | {"notify": ["stream"]}))
        both = await worker_site.export(site, json.dumps(REQUEST | {"notify": ["stream", "hook"]}))
        assert [item["subject"] for item in await wait_for_events(verified, 1)] == [both.export_id]
        assert len(await site.events(only.export_id)) == 1
        with pytest.raises(InvalidRequestError, match="notify: unknown sink 'pigeon'; known: hook, stream"):
            await worker_site.export(site, json.dumps(REQUEST | {"notify": ["pigeon"]}))


async def give_up(site: Site, times: list[datetime]) -> None:
    """Writes notes about events that a worker has given up."""
    notes = {
        f"{number:032d}.1": json.dumps({"at": isoformat(at), "failures": 9, "reason": "HTTP 500"})
        for number, at in enumerate(times)
    }
    redis: Any = open_redis(site.redis_url)
    await redis.hset(Keys(site.namespace).undelivered("stream"), mapping=notes)
    await close_redis(redis)


async def test_undelivered_events_are_listed_and_wrong_options_exit_2(site: Site) -> None:
    ran = site.command("events", "undelivered", "--json")
    assert (ran.status, json.loads(ran.stdout)) == (0, [])
    await give_up(site, [datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=ago) for ago in (2, 1)])
    ran = site.command("events", "undelivered", "--json", "--limit", "1")
    (last,) = json.loads(ran.stdout)
    assert (last["event_id"], last["failures"], last["reason"], last["sink"]) == (
        f"{1:032d}.1",
        9,
        "HTTP 500",
        "stream",
    )
    assert "1 of 2 events" not in ran.stderr, "a program reads the list"
    assert "1 of 2 events" in site.command("events", "undelivered", "--limit", "1").stderr
    ran = site.command("events", "undelivered", "--sink", "pigeon")
    assert (ran.status, "--sink: unknown sink 'pigeon'; known: stream" in ran.stderr) == (2, True)
    ran = site.command("events", "replay", "--since", "yesterday")
    assert (ran.status, "neither a date and time" in ran.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30s", "2026-11-22T02:59:30+00:00"),
        ("2d", "2026-11-20T03:00:00+00:00"),
        ("2026-11-22T03:00:00Z", "2026-11-22T03:00:00+00:00"),
        ("2026-11-22T11:00:00+08:00", "2026-11-22T03:00:00+00:00"),
        ("2026-11-22", "2026-11-22T00:00:00+00:00"),
    ],
)
def test_since_accepts_durations_and_times(text: str, moment: str) -> None:
    assert since(text, NOW) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ({"secret": "env:NO_SUCH_VARIABLE"}, "sinks.hook.secret: environment variable NO_SUCH_VARIABLE is not set"),
        ({"secret": "no base64!"}, "sinks.hook.secret: must be base64"),
        ({"secret": "whsec_" + "QQ" * 11}, "sinks.hook.secret: must have at least 24 bytes before base64, not 16"),
        ({"url": "env:HOME"}, "sinks.hook.url: must be an http:// or https:// address"),
    ],
)
async def test_worker_with_wrong_webhook_setting_does_not_start(site: Site, hook: dict[str, str], message: str) -> None:
    site.settings = {"sinks": {"hook": {"type": "webhook", "url": "https://a.example", "secret": SECRET} | hook}}
    with pytest.raises(ConfigError, match=message):
        async with worker_site.worker(site):
            pass


async def test_pending_event_is_listed_and_delivered_on_request(site: Site) -> None:
    # No receiver listens there.
    add_hook(site, f"http://127.0.0.1:{free_port()}/hook")
    async with worker_site.worker(site):
        ended = await worker_site.export(site, json.dumps(REQUEST))
        async with asyncio.timeout(30):
            while not (await pending_events(site))["failures"]:
                await asyncio.sleep(0.1)
    found = await pending_events(site)
    assert (found["event_id"], found["sink"], found["type"]) == (f"{ended.export_id}.1", "hook", "webhook")
    assert found["answer"]
    listed = await asyncio.to_thread(site.command, "events", "pending", "--sink", "hook")
    assert found["event_id"] in listed.stdout
    delivered = await asyncio.to_thread(site.command, "events", "deliver", found["event_id"])
    assert delivered.stdout == f"delivering {found['event_id']} (export.succeeded) to stream, hook\n"
    assert (await pending_events(site))["failures"] == 0
    unknown = await asyncio.to_thread(site.command, "events", "deliver", "none.1")
    assert (unknown.status, "is not stored" in unknown.stderr) == (2, True)


async def pending_events(site: Site) -> dict[str, Any]:
    """Returns the only pending event of the webhook."""
    async with asyncio.timeout(30):
        while True:
            ran = await asyncio.to_thread(site.command, "events", "pending", "--sink", "hook", "--json")
            events: list[dict[str, Any]] = json.loads(ran.stdout)
            if events:
                return events[0]


async def test_sink_is_tested_on_the_command_line(site: Site, hook: tuple[str, list[dict[str, Any]]]) -> None:
    url, verified = hook
    add_hook(site, url)
    async with worker_site.worker(site):
        refused = await asyncio.to_thread(site.command, "events", "test", "hook", "--json")
        assert (refused.status, json.loads(refused.stdout)["answer"]) == (1, "127.0.0.1 answered 503")
        taken = await asyncio.to_thread(site.command, "events", "test", "hook")
        assert (taken.status, taken.stdout.startswith("sink hook has taken the event test-")) == (0, True)
    assert [(event["type"], event["data"]) for event in verified] == [("sink.test", {"sink": "hook"})]
    unknown = await asyncio.to_thread(site.command, "events", "test", "pigeon")
    assert (unknown.status, "SINK: unknown sink 'pigeon'" in unknown.stderr) == (2, True)

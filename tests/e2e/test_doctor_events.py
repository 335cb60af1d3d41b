"""`doctor` with good and broken sinks and triggers. The check sends no event, takes no message, and creates nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import boto3
import pytest
from aiohttp import web

from export_worker.demo.processes import free_port
from export_worker.doctor.finding import FIX_FIELD
from export_worker.redis.client import close_redis, open_redis
from support import secret_canaries
from support.worker_site import CommandResult, Site

REGION = "us-east-1"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
REQUEST = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "{data.key}"}}


async def doctor(
    site: Site, sinks: dict[str, Any], triggers: dict[str, Any]
) -> tuple[CommandResult, dict[str, dict[str, str]]]:
    """Runs `doctor --json`. Returns the findings about sinks and triggers, one each, by what they are about."""
    site.settings = {"sinks": sinks, "triggers": triggers}
    ran = await asyncio.to_thread(site.command, "doctor", "--json")
    secret_canaries.check("the report", (ran.stdout + ran.stderr).encode())
    assert "Traceback" not in ran.stderr
    found = [item for item in json.loads(ran.stdout)["findings"] if item["about"].startswith(("sink ", "trigger "))]
    assert [item["about"] for item in found] == [f"sink {name}" for name in sinks] + [f"trigger {n}" for n in triggers]
    assert all(item["level"] == "ok" or item[FIX_FIELD] for item in found)
    return ran, {item["about"]: item for item in found}


@asynccontextmanager
async def receiver(status: int) -> AsyncIterator[tuple[str, list[str]]]:
    """Runs the receiver of a webhook. Yields its URL, and the methods of the requests so far."""
    methods: list[str] = []

    async def receive(request: web.Request) -> web.Response:
        methods.append(request.method)
        return web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/hook", receive)
    runner, port = web.AppRunner(app), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/hook?token={secret_canaries.TOKEN}", methods
    await runner.cleanup()


def hook(url: str) -> dict[str, Any]:
    return {"type": "webhook", "url": url, "secret": SECRET, "allow_private": True}


def aws(s3_url: str, **more: str) -> dict[str, Any]:
    return {"region": REGION, "endpoint_url": s3_url, **more}


def create_endpoints(s3_url: str) -> tuple[str, str, str]:
    """Creates a queue with one message, a topic and an event bus."""
    name = f"d{uuid4().hex}"
    session = boto3.session.Session()
    queues = session.client("sqs", endpoint_url=s3_url, region_name=REGION)
    queue_url = queues.create_queue(QueueName=name)["QueueUrl"]
    queues.send_message(QueueUrl=queue_url, MessageBody="{}")
    topics = session.client("sns", endpoint_url=s3_url, region_name=REGION)
    topic_arn = topics.create_topic(Name=name)["TopicArn"]
    buses = session.client("events", endpoint_url=s3_url, region_name=REGION)
    buses.create_event_bus(Name=name)
    for client in (queues, topics, buses):
        client.close()
    return queue_url, topic_arn, name


async def test_working_sinks_and_triggers_are_ok_and_receive_no_event(site: Site) -> None:
    queue_url, topic_arn, bus = await asyncio.to_thread(create_endpoints, site.s3_url)
    server = aws(site.s3_url)
    async with receiver(405) as (url, methods):
        sinks = {
            "stream": {"type": "redis-stream", "stream": site.stream},
            "hook": hook(url),
            "queue": {"type": "sqs", "queue_url": queue_url, **server},
            "topic": {"type": "sns", "topic_arn": topic_arn, **server},
            "bus": {"type": "eventbridge", "event_bus": bus, **server},
        }
        triggers = {
            "stream": {"type": "redis-stream", "stream": f"{site.namespace}:in", "request": json.dumps(REQUEST)},
            "queue": {"type": "sqs", "queue_url": queue_url, **server},
        }
        ran, found = await doctor(site, sinks, triggers)
    assert ran.status == 0, found
    assert {finding["level"] for finding in found.values()} == {"ok"}
    assert methods == ["HEAD"]
    assert "about 1 messages wait" in found["trigger queue"]["says"]
    assert "the trigger creates it" in found["trigger stream"]["says"]
    client = open_redis(site.redis_url)
    assert await client.exists(site.stream, f"{site.namespace}:in") == 0
    await close_redis(client)


async def test_broken_sinks_and_triggers_are_errors_with_advice(site: Site) -> None:
    queue_url, topic_arn, bus = await asyncio.to_thread(create_endpoints, site.s3_url)
    server, unreachable = aws(site.s3_url), aws(f"http://127.0.0.1:{free_port()}")
    async with receiver(410) as (gone, _):
        sinks = {
            "gone": hook(gone),
            "away": hook(f"http://127.0.0.1:{free_port()}/?token={secret_canaries.TOKEN}"),
            "unsigned": hook(gone) | {"secret": "whsec_!"},
            "guessed": hook(gone) | {"secret": "whsec_Y2FuYXJ5LWhvb2s="},
            "queue": {"type": "sqs", "queue_url": f"{queue_url}-not", **server},
            "topic": {"type": "sns", "topic_arn": f"{topic_arn}-not", **server},
            "bus": {"type": "eventbridge", "event_bus": f"{bus}-not", **server},
            "cloud": {"type": "sqs", "queue_url": queue_url, **unreachable},
            "nats": {
                "type": "broker",
                "broker": "nats",
                "url": f"nats://u:{secret_canaries.TOKEN}@127.0.0.1:{free_port()}",
                "destination": "d",
                "stream": "s",
            },
        }
        odd = REQUEST | {"connection": "{data.["}
        triggers = {"template": {"type": "redis-stream", "stream": "in", "request": json.dumps(odd)}}
        ran, found = await doctor(site, sinks, triggers)
    assert ran.status == 4
    advice = {about: finding[FIX_FIELD] for about, finding in found.items()}
    assert advice["sink gone"] == "correct sinks.gone.url, or remove this sink"
    assert advice["sink away"] == "check sinks.away.url, and whether the receiver runs"
    assert advice["sink unsigned"] == "correct this setting"
    assert found["sink guessed"]["says"] == "sinks.guessed.secret: must have at least 24 bytes before base64, not 11"
    assert advice["sink guessed"] == "make one with: openssl rand -base64 24"
    for name in ("queue", "topic", "bus"):
        assert advice[f"sink {name}"] == f"correct sinks.{name}, or create what it names"
    assert advice["sink cloud"].startswith("check region and endpoint_url of sinks.cloud")
    assert advice["sink nats"] == "check sinks.nats.url, and whether the broker runs"
    assert "triggers.template.request" in found["trigger template"]["says"]
    assert {finding["level"] for finding in found.values()} == {"error"}


@pytest.fixture
async def restricted_user_url(site: Site) -> AsyncIterator[str]:
    """The URL of a user who may neither write to foreign streams nor claim and acknowledge entries."""
    administrator, name = open_redis(site.redis_url), f"u{uuid4().hex[:8]}"
    execute: Any = administrator.execute_command  # redis-py leaves it untyped
    await execute("ACL", "SETUSER", name, "on", "nopass", "~*", "&*", "+@all", "-xautoclaim", "-xack")
    await execute("ACL", "SETUSER", name, "resetkeys", f"~{site.namespace}:*", "~arq:*", f"%R~{site.stream}x", "~in")
    await administrator.set("in", "no stream")
    yield site.redis_url.replace("redis://", f"redis://{name}:any@")
    await administrator.delete("in")
    await execute("ACL", "DELUSER", name)
    await close_redis(administrator)


async def test_missing_permissions_on_streams_are_named(site: Site, restricted_user_url: str) -> None:
    site.redis_url = restricted_user_url
    sinks = {
        "good": {"type": "redis-stream", "stream": site.stream},
        "foreign": {"type": "redis-stream", "stream": "of-another-program"},
        "string": {"type": "redis-stream", "stream": "in"},
    }
    ran, found = await doctor(site, sinks, {"stream": {"type": "redis-stream", "stream": f"{site.namespace}:in"}})
    assert ran.status == 2
    assert found["sink good"]["level"] == "ok"
    assert found["sink foreign"][FIX_FIELD] == "give the user the permissions that k8s/README.md lists"
    assert found["sink string"]["says"] == "the key in exists, and is not a stream"
    assert "may not run XAUTOCLAIM, XACK on stream" in found["trigger stream"]["says"]

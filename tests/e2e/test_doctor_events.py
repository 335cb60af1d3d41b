"""`doctor` on sinks and triggers: good ones and broken ones, and that nothing is sent, taken or made by a look."""

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
from export_worker.redis.client import close_redis, open_redis
from support import secret_canaries
from support.worker_site import CommandResult, Site

REGION = "us-east-1"
SECRET = "whsec_Y2FuYXJ5LWhvb2s="
REQUEST = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "{data.key}"}}


async def doctor(
    site: Site, sinks: dict[str, Any], triggers: dict[str, Any]
) -> tuple[CommandResult, dict[str, dict[str, str]]]:
    """The findings about sinks and triggers, one each, by what was looked at."""
    site.settings = {"sinks": sinks, "triggers": triggers}
    ran = await asyncio.to_thread(site.command, "doctor", "--json")
    secret_canaries.check("the report", (ran.stdout + ran.stderr).encode())
    assert "Traceback" not in ran.stderr
    found = [item for item in json.loads(ran.stdout)["findings"] if item["about"].startswith(("sink ", "trigger "))]
    assert [item["about"] for item in found] == [f"sink {name}" for name in sinks] + [f"trigger {n}" for n in triggers]
    assert all(item["level"] == "ok" or item["mend"] for item in found)
    return ran, {item["about"]: item for item in found}


@asynccontextmanager
async def receiver(status: int) -> AsyncIterator[tuple[str, list[str]]]:
    """A webhook's other side; its address, and the methods that it was asked with."""
    asked: list[str] = []

    async def take(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/hook", take)
    runner, port = web.AppRunner(app), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/hook?token={secret_canaries.TOKEN}", asked
    await runner.cleanup()


def hook(url: str) -> dict[str, Any]:
    return {"type": "webhook", "url": url, "secret": SECRET, "allow_private": True}


def aws(s3_url: str, **more: str) -> dict[str, Any]:
    return {"region": REGION, "endpoint_url": s3_url, **more}


def made(s3_url: str) -> tuple[str, str, str]:
    """A queue with a message, a topic and a bus."""
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


async def test_good_ones_are_told_so_and_see_no_event(site: Site) -> None:
    queue_url, topic_arn, bus = await asyncio.to_thread(made, site.s3_url)
    place = aws(site.s3_url)
    async with receiver(405) as (url, asked):
        sinks = {
            "stream": {"type": "redis-stream", "stream": site.stream},
            "hook": hook(url),
            "queue": {"type": "sqs", "queue_url": queue_url, **place},
            "topic": {"type": "sns", "topic_arn": topic_arn, **place},
            "bus": {"type": "eventbridge", "event_bus": bus, **place},
        }
        triggers = {
            "stream": {"type": "redis-stream", "stream": f"{site.namespace}:in", "request": json.dumps(REQUEST)},
            "queue": {"type": "sqs", "queue_url": queue_url, **place},
        }
        ran, found = await doctor(site, sinks, triggers)
    assert ran.status == 0, found
    assert {finding["level"] for finding in found.values()} == {"ok"}
    assert asked == ["HEAD"]
    assert "some 1 messages wait" in found["trigger queue"]["says"]
    assert "the trigger makes it" in found["trigger stream"]["says"]
    client = open_redis(site.redis_url)
    assert await client.exists(site.stream, f"{site.namespace}:in") == 0
    await close_redis(client)


async def test_broken_ones_are_told_each_with_the_mend(site: Site) -> None:
    queue_url, topic_arn, bus = await asyncio.to_thread(made, site.s3_url)
    place, nowhere = aws(site.s3_url), aws(f"http://127.0.0.1:{free_port()}")
    async with receiver(410) as (gone, _):
        sinks = {
            "gone": hook(gone),
            "away": hook(f"http://127.0.0.1:{free_port()}/?token={secret_canaries.TOKEN}"),
            "unsigned": hook(gone) | {"secret": "whsec_!"},
            "queue": {"type": "sqs", "queue_url": f"{queue_url}-not", **place},
            "topic": {"type": "sns", "topic_arn": f"{topic_arn}-not", **place},
            "bus": {"type": "eventbridge", "event_bus": f"{bus}-not", **place},
            "cloud": {"type": "sqs", "queue_url": queue_url, **nowhere},
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
    mends = {about: finding["mend"] for about, finding in found.items()}
    assert mends["sink gone"] == "correct sinks.gone.url, or take this sink out"
    assert mends["sink away"] == "is sinks.away.url right, and the receiver up?"
    assert mends["sink unsigned"] == "correct this setting"
    for name in ("queue", "topic", "bus"):
        assert mends[f"sink {name}"] == f"correct sinks.{name}, or make what it names"
    assert mends["sink cloud"].startswith("are region and endpoint_url of sinks.cloud right")
    assert mends["sink nats"] == "is sinks.nats.url right, and the broker up?"
    assert "triggers.template.request" in found["trigger template"]["says"]
    assert {finding["level"] for finding in found.values()} == {"error"}


@pytest.fixture
async def narrow(site: Site) -> AsyncIterator[str]:
    """A user who may do everything but append to streams and take entries over; gives its URL."""
    administrator, name = open_redis(site.redis_url), f"u{uuid4().hex[:8]}"
    words: Any = administrator.execute_command  # redis-py leaves it untyped
    await words("ACL", "SETUSER", name, "on", "nopass", "~*", "&*", "+@all", "-xautoclaim", "-xack")
    await words("ACL", "SETUSER", name, "resetkeys", f"~{site.namespace}:*", "~arq:*", f"%R~{site.stream}x", "~in")
    await administrator.set("in", "no stream")
    yield site.redis_url.replace("redis://", f"redis://{name}:any@")
    await administrator.delete("in")
    await words("ACL", "DELUSER", name)
    await close_redis(administrator)


async def test_rights_on_streams_are_tried(site: Site, narrow: str) -> None:
    site.redis_url = narrow
    sinks = {
        "good": {"type": "redis-stream", "stream": site.stream},
        "foreign": {"type": "redis-stream", "stream": "of-somebody-else"},
        "string": {"type": "redis-stream", "stream": "in"},
    }
    ran, found = await doctor(site, sinks, {"stream": {"type": "redis-stream", "stream": f"{site.namespace}:in"}})
    assert ran.status == 2
    assert found["sink good"]["level"] == "ok"
    assert found["sink foreign"]["mend"] == "give the user the rights that k8s/README.md lists"
    assert found["sink string"]["says"] == "the key in is there, and is no stream"
    assert "may not XAUTOCLAIM, XACK on stream" in found["trigger stream"]["says"]

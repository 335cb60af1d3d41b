"""The conformance suite, run for each sink against a real server. The brokers have a separate file."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import boto3
import pytest
from aiohttp import web
from arq.connections import ArqRedis

from conformance.sink_suite import Bench, SinkSuite
from export_worker.demo.processes import free_port
from export_worker.redis.client import close_redis, commands, open_redis
from export_worker.sinks.aws import AwsEndpoint
from export_worker.sinks.base import Sink
from export_worker.sinks.eventbridge import EventBridge
from export_worker.sinks.redis_stream import RedisStream
from export_worker.sinks.sns import Sns
from export_worker.sinks.sqs import Sqs
from export_worker.sinks.webhook import Webhook
from support import secret_canaries

REGION = "us-east-1"


@asynccontextmanager
async def closing(*sinks: Sink) -> AsyncIterator[None]:
    yield
    for sink in sinks:
        await sink.close()


class TestRedisStream(SinkSuite):
    @pytest.fixture
    async def bench(self, arq_redis: ArqRedis, namespace: str) -> AsyncIterator[Bench]:
        stream, unreachable = f"{namespace}:events", open_redis(f"redis://127.0.0.1:{free_port()}", retries=0)
        last = "-"

        async def received() -> list[str]:
            nonlocal last
            entries = await arq_redis.xrange(stream, min=last)
            last = f"({entries[-1][0].decode()}" if entries else last
            return [fields[b"event"].decode() for _, fields in entries]

        sink, broken = RedisStream(commands(arq_redis), stream, 1000), RedisStream(commands(unreachable), "s", 10)
        yield Bench(sink, received, broken)
        await close_redis(unreachable)


class TestWebhook(SinkSuite):
    @pytest.fixture
    async def bench(self) -> AsyncIterator[Bench]:
        arrived: list[str] = []

        async def take(request: web.Request) -> web.Response:
            arrived.append(await request.text())
            return web.Response(status=204)

        async def received() -> list[str]:
            found = arrived[:]
            arrived.clear()
            return found

        app = web.Application()
        app.router.add_post("/hook", take)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        sink = Webhook(f"http://127.0.0.1:{port}/hook", [b"key"], timeout_s=20, allow_private=True)
        broken = Webhook(
            f"http://127.0.0.1:{free_port()}/?token={secret_canaries.TOKEN}", [b"key"], timeout_s=20, allow_private=True
        )
        async with closing(sink, broken):
            yield Bench(sink, received, broken)
        await runner.cleanup()


def queue_of(s3_url: str, *, fifo: bool = False) -> tuple[Any, str]:
    client: Any = boto3.session.Session().client("sqs", endpoint_url=s3_url, region_name=REGION)
    name, attributes = (f"q{uuid4().hex}.fifo", {"FifoQueue": "true"}) if fifo else (f"q{uuid4().hex}", {})
    return client, client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]


class AwsSuite(SinkSuite):
    """Common part of SQS, SNS and EventBridge: the events arrive in an SQS queue, from which the test reads them."""

    def sinks(self, s3_url: str, queue_url: str) -> tuple[Sink, Sink]:
        raise AssertionError("each subclass defines its sinks")

    def event_in(self, body: str) -> str:
        return body

    fifo = False

    @pytest.fixture
    async def bench(self, s3_url: str) -> AsyncIterator[Bench]:
        client, queue_url = queue_of(s3_url, fifo=self.fifo)

        async def received() -> list[str]:
            messages = client.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages", [])
            for message in messages:
                client.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
            return [self.event_in(message["Body"]) for message in messages]

        sink, broken = self.sinks(s3_url, queue_url)
        async with closing(sink, broken):
            yield Bench(sink, received, broken)
        client.close()


def arn_of(queue_url: str) -> str:
    return f"arn:aws:sqs:{REGION}:123456789012:{queue_url.rpartition('/')[2]}"


class TestSqs(AwsSuite):
    def sinks(self, s3_url: str, queue_url: str) -> tuple[Sink, Sink]:
        endpoint = AwsEndpoint(REGION, s3_url)
        return Sqs(queue_url, endpoint, 4), Sqs(f"{queue_url}-not-there", endpoint, 4)


class TestSqsFifo(TestSqs):
    fifo = True


class TestSns(AwsSuite):
    def sinks(self, s3_url: str, queue_url: str) -> tuple[Sink, Sink]:
        client = boto3.session.Session().client("sns", endpoint_url=s3_url, region_name=REGION)
        topic = client.create_topic(Name=f"t{uuid4().hex}")["TopicArn"]
        client.subscribe(
            TopicArn=topic,
            Protocol="sqs",
            Endpoint=arn_of(queue_url),
            Attributes={"FilterPolicy": json.dumps({"type": ["export.failed"]})},
        )
        client.close()
        endpoint = AwsEndpoint(REGION, s3_url)
        return Sns(topic, endpoint, 4), Sns(f"{topic}-not-there", endpoint, 4)

    def event_in(self, body: str) -> str:
        return str(json.loads(body)["Message"])


class TestEventBridge(AwsSuite):
    def sinks(self, s3_url: str, queue_url: str) -> tuple[Sink, Sink]:
        client = boto3.session.Session().client("events", endpoint_url=s3_url, region_name=REGION)
        bus = f"b{uuid4().hex}"
        client.create_event_bus(Name=bus)
        pattern = {"source": ["export-worker"], "detail-type": ["export.failed"]}
        client.put_rule(Name="all", EventBusName=bus, EventPattern=json.dumps(pattern))
        client.put_targets(Rule="all", EventBusName=bus, Targets=[{"Id": "q", "Arn": arn_of(queue_url)}])
        client.close()
        # moto accepts events for a bus that does not exist, so the broken sink has the address of no server.
        unreachable = AwsEndpoint(REGION, f"http://127.0.0.1:{free_port()}")
        return EventBridge(bus, AwsEndpoint(REGION, s3_url), 4), EventBridge(bus, unreachable, 4)

    def event_in(self, body: str) -> str:
        return json.dumps(json.loads(body)["detail"])

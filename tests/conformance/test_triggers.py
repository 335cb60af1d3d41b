"""The trigger suite for Redis streams and SQS. `test_brokers.py` runs it for message brokers."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import boto3
import pytest
from arq.connections import ArqRedis

from conformance.trigger_suite import (
    REQUEST,
    IntakeSite,
    MessageSource,
    TriggerSuite,
    open_intake_site,
    running,
    until_acknowledged,
)
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.intake import Intake, Trigger
from export_producers.triggers.redis_stream import Consumer, ConsumerGroup, RedisStreamTrigger
from export_producers.triggers.sqs import SqsTrigger
from export_worker.demo.processes import free_port
from export_worker.redis.client import close_redis, open_redis
from export_worker.wiring.aws import new_sqs_client

REGION = "us-east-1"


@pytest.fixture
async def site(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[IntakeSite]:
    async with open_intake_site(arq_redis, redis_url, namespace) as site:
        yield site


def stream_trigger(redis: ArqRedis, intake: Intake, stream: str) -> RedisStreamTrigger:
    consumer = Consumer(ConsumerGroup(stream, "g"), uuid4().hex, field="request", claim_after_s=0.1)
    return RedisStreamTrigger(redis, intake, consumer)


class TestRedisStream(TriggerSuite):
    @pytest.fixture
    async def source(self, arq_redis: ArqRedis, namespace: str) -> MessageSource:
        stream = f"{namespace}:in"

        async def publish(body: bytes, fields: Mapping[str, str]) -> None:
            entry: dict[Any, Any] = {"request": body, **fields}
            await arq_redis.xadd(stream, entry)

        async def unacknowledged() -> int:
            groups = await arq_redis.xinfo_groups(stream)
            # Until the trigger has created its group, it has read nothing.
            return int(groups[0]["pending"]) + int(groups[0]["lag"] or 0) if groups else 1

        return MessageSource(
            lambda intake: stream_trigger(arq_redis, intake, stream), publish, unacknowledged, headers=False
        )

    async def test_pending_entries_of_a_dead_consumer_are_claimed(
        self, source: MessageSource, site: IntakeSite, arq_redis: ArqRedis, namespace: str
    ) -> None:
        await arq_redis.xgroup_create(f"{namespace}:in", "g", id="0", mkstream=True)
        for _ in range(20):
            await source.publish(json.dumps(REQUEST).encode(), {})
        await arq_redis.xreadgroup("g", "dead", {f"{namespace}:in": ">"}, count=20)
        async with running(source, site):
            assert len(await site.exports(20)) == 20
            await until_acknowledged(source)
        assert [found["name"] for found in await arq_redis.xinfo_consumers(f"{namespace}:in", "g")] == [b"dead"]

    async def test_message_is_read_from_its_field_or_from_the_only_field(
        self, source: MessageSource, site: IntakeSite, arq_redis: ArqRedis, namespace: str
    ) -> None:
        body = json.dumps(REQUEST)
        await arq_redis.xadd(f"{namespace}:in", {"trace": "1", "request": body})
        await arq_redis.xadd(f"{namespace}:in", {"whatever": body})
        await arq_redis.xadd(f"{namespace}:in", {"a": body, "b": body})
        async with running(source, site):
            await site.exports(2)
            (dead,) = await site.dead(1)
        assert dead["message"] == ""

    async def test_trigger_retries_unreachable_redis_until_it_is_stopped(self, site: IntakeSite) -> None:
        unreachable = open_redis(f"redis://127.0.0.1:{free_port()}", retries=0)
        stop = asyncio.Event()
        dead_letters = DeadLetters(unreachable, site.keys.dead("t"))
        intake = Intake("t", queue=site.queue, dead_letters=dead_letters, template=None, stop=stop)
        working = asyncio.create_task(stream_trigger(unreachable, intake, "s").run(stop))
        await asyncio.sleep(0.5)
        assert not working.done()
        stop.set()
        async with asyncio.timeout(30):
            await working
        await close_redis(unreachable)


class TestRedisStreamOverResp3(TestRedisStream):
    """With the third version of its protocol, Redis answers some commands in other forms."""

    @pytest.fixture
    async def arq_redis(self, redis_url: str) -> AsyncIterator[ArqRedis]:
        client = open_redis(f"{redis_url}?protocol=3")
        yield client
        await close_redis(client)


class TestSqs(TriggerSuite):
    @pytest.fixture
    async def source(self, s3_url: str) -> AsyncIterator[MessageSource]:
        client: Any = boto3.session.Session().client("sqs", endpoint_url=s3_url, region_name=REGION)
        queue_url = client.create_queue(QueueName=f"q{uuid4().hex}")["QueueUrl"]
        counts = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")

        async def publish(body: bytes, headers: Mapping[str, str]) -> None:
            client.send_message(
                QueueUrl=queue_url,
                MessageBody=body.decode(),
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in headers.items()
                },
            )

        async def unacknowledged() -> int:
            attributes = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=counts)["Attributes"]
            return sum(int(count) for count in attributes.values())

        def build(intake: Intake) -> Trigger:
            new_client = partial(new_sqs_client, REGION, s3_url)
            return SqsTrigger(intake, queue_url=queue_url, new_client=new_client, visibility_s=3, wait_s=1)

        yield MessageSource(build, publish, unacknowledged)
        client.close()

    async def test_message_stays_hidden_while_it_is_handled(self, source: MessageSource, site: IntakeSite) -> None:
        await source.publish(json.dumps(REQUEST).encode(), {})
        received = 0

        class Slow(Intake):
            async def accept(self, message: object) -> None:
                nonlocal received
                received += 1
                await asyncio.sleep(7)

        stop = asyncio.Event()
        intake = Slow("t", queue=site.queue, dead_letters=site.dead_letters, template=None, stop=stop)
        tasks = [asyncio.create_task(source.build(intake).run(stop)) for _ in range(2)]
        await until_acknowledged(source)
        stop.set()
        await asyncio.gather(*tasks)
        assert received == 1

"""The triggers that read Redis streams and SQS; brokers stand in a file of their own."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

import boto3
import pytest
from arq.connections import ArqRedis

from conformance.trigger_suite import REQUEST, Desk, Post, TriggerSuite, open_desk, running, until_acknowledged
from export_producers.triggers.intake import Intake, Trigger
from export_producers.triggers.redis_stream import RedisStreamTrigger
from export_producers.triggers.sqs import SqsTrigger
from export_worker.demo.processes import free_port
from export_worker.redis.client import close_redis, open_redis

REGION = "us-east-1"


@pytest.fixture
async def desk(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[Desk]:
    async with open_desk(arq_redis, redis_url, namespace) as desk:
        yield desk


def stream_trigger(redis: ArqRedis, intake: Intake, stream: str, field: str = "request") -> RedisStreamTrigger:
    return RedisStreamTrigger(
        redis, intake, stream=stream, group="g", consumer=uuid4().hex, field=field, claim_after_s=0.1
    )


class TestRedisStream(TriggerSuite):
    @pytest.fixture
    async def post(self, arq_redis: ArqRedis, namespace: str) -> Post:
        stream = f"{namespace}:in"

        async def publish(body: bytes, fields: Mapping[str, str]) -> None:
            entry: dict[Any, Any] = {"request": body, **fields}
            await arq_redis.xadd(stream, entry)

        async def waiting() -> int:
            groups = await arq_redis.xinfo_groups(stream)
            # Before the trigger has made its group, nothing has been taken.
            return int(groups[0]["pending"]) + int(groups[0]["lag"] or 0) if groups else 1

        return Post(lambda intake: stream_trigger(arq_redis, intake, stream), publish, waiting, headers=False)

    async def test_what_a_dead_consumer_held_is_claimed(
        self, post: Post, desk: Desk, arq_redis: ArqRedis, namespace: str
    ) -> None:
        await arq_redis.xgroup_create(f"{namespace}:in", "g", id="0", mkstream=True)
        for _ in range(20):
            await post.publish(json.dumps(REQUEST).encode(), {})
        await arq_redis.xreadgroup("g", "dead", {f"{namespace}:in": ">"}, count=20)
        async with running(post, desk):
            assert len(await desk.exports(20)) == 20
            await until_acknowledged(post)
        assert [known["name"] for known in await arq_redis.xinfo_consumers(f"{namespace}:in", "g")] == [b"dead"]

    async def test_an_entry_says_it_in_its_field_or_in_its_only_one(
        self, post: Post, desk: Desk, arq_redis: ArqRedis, namespace: str
    ) -> None:
        body = json.dumps(REQUEST)
        await arq_redis.xadd(f"{namespace}:in", {"trace": "1", "request": body})
        await arq_redis.xadd(f"{namespace}:in", {"whatever": body})
        await arq_redis.xadd(f"{namespace}:in", {"a": body, "b": body})
        async with running(post, desk):
            await desk.exports(2)
            (dead,) = await desk.dead(1)
        assert dead["message"] == ""

    async def test_a_redis_that_is_away_is_waited_for_until_the_stop(self, desk: Desk) -> None:
        nowhere = open_redis(f"redis://127.0.0.1:{free_port()}", retries=0)
        stop = asyncio.Event()
        intake = Intake("t", queue=desk.queue, redis=nowhere, keys=desk.keys, template=None, stop=stop)
        working = asyncio.create_task(stream_trigger(nowhere, intake, "s").run(stop))
        await asyncio.sleep(0.5)
        assert not working.done()
        stop.set()
        async with asyncio.timeout(30):
            await working
        await close_redis(nowhere)


class TestSqs(TriggerSuite):
    @pytest.fixture
    async def post(self, s3_url: str) -> AsyncIterator[Post]:
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

        async def waiting() -> int:
            known = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=counts)["Attributes"]
            return sum(int(count) for count in known.values())

        def build(intake: Intake) -> Trigger:
            return SqsTrigger(intake, queue_url=queue_url, region=REGION, endpoint_url=s3_url, visibility_s=3, wait_s=1)

        yield Post(build, publish, waiting)
        client.close()

    async def test_a_message_is_hidden_for_as_long_as_it_is_in_hand(self, post: Post, desk: Desk) -> None:
        await post.publish(json.dumps(REQUEST).encode(), {})
        seen = 0

        class Slow(Intake):
            async def take(self, message: object) -> None:
                nonlocal seen
                seen += 1
                await asyncio.sleep(7)

        stop = asyncio.Event()
        intake = Slow("t", queue=desk.queue, redis=desk.redis, keys=desk.keys, template=None, stop=stop)
        tasks = [asyncio.create_task(post.build(intake).run(stop)) for _ in range(2)]
        await until_acknowledged(post)
        stop.set()
        await asyncio.gather(*tasks)
        assert seen == 1

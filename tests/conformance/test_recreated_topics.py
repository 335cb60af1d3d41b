"""A topic or stream that is deleted and created again numbers its messages from the beginning. None may be lost.

Kafka is the broker that librdkafka has for tests: it speaks Kafka's protocol over sockets.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import nats
import pytest
from aiokafka import AIOKafkaProducer
from arq.connections import ArqRedis

from conformance.trigger_suite import REQUEST, IntakeSite, open_intake_site, running_trigger
from export_producers.triggers.brokers import kafka as broker_kafka
from export_producers.triggers.brokers import nats as broker_nats
from export_producers.triggers.brokers.trigger import Accept, BrokerTrigger, Subscribed
from support import message_servers

BODIES = [json.dumps(REQUEST | {"metadata": {"n": str(number)}}).encode() for number in range(10)]


@pytest.fixture
async def site(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[IntakeSite]:
    async with open_intake_site(arq_redis, redis_url, namespace) as site:
        yield site


async def publish_to_kafka(address: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=address) as producer:
        for body in BODIES:
            await producer.send_and_wait("requests", body)


@asynccontextmanager
async def two_groups(site: IntakeSite, subscribe: Callable[[str, Accept], Subscribed]) -> AsyncIterator[None]:
    """Runs a trigger in each of two groups. Each of them receives each message, so that each is delivered twice."""
    async with (
        running_trigger(partial(BrokerTrigger, subscribe=partial(subscribe, "g")), site),
        running_trigger(partial(BrokerTrigger, subscribe=partial(subscribe, "h")), site),
    ):
        yield


async def test_messages_of_a_recreated_kafka_topic_make_exports_and_redelivered_ones_do_not(
    site: IntakeSite, tmp_path: Path
) -> None:
    for number, count in enumerate((10, 20)):
        directory = tmp_path / str(number)
        directory.mkdir()
        with message_servers.kafka_server(directory) as kafka:
            await publish_to_kafka(kafka.address)
            async with two_groups(site, partial(broker_kafka.subscribe, kafka.address, "requests")):
                await site.outcomes(2 * count)
        assert len(await site.queue.list_exports()) == count


async def test_messages_of_a_recreated_nats_stream_make_exports_and_redelivered_ones_do_not(
    site: IntakeSite, tmp_path: Path
) -> None:
    name = f"s{uuid4().hex}"
    with message_servers.nats_server(tmp_path) as url:
        client = await nats.connect(url)
        stream = client.jetstream()
        for count in (10, 20):
            await stream.add_stream(name=name, subjects=[f"{name}.*"])
            for body in BODIES:
                await stream.publish(f"{name}.in", body)

            def subscribe(group: str, accept: Accept) -> Subscribed:
                return broker_nats.subscribe(url, f"{name}.in", group, name, accept)

            async with two_groups(site, subscribe):
                await site.outcomes(2 * count)
            assert len(await site.queue.list_exports()) == count
            await stream.delete_stream(name)
        await client.close()

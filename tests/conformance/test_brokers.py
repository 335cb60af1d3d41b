"""The sink and trigger suites for RabbitMQ, NATS and Kafka, with servers over sockets if they are installed.

Kafka is the broker that librdkafka has for tests. `test_recreated_topics.py` has the tests of its trigger.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from uuid import uuid4

import aio_pika
import nats
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from arq.connections import ArqRedis

from conformance.sink_suite import Bench, SinkSuite
from conformance.trigger_suite import IntakeSite, MessageSource, TriggerSuite, open_intake_site
from export_producers.triggers.brokers import nats as broker_nats
from export_producers.triggers.brokers import rabbitmq as broker_rabbitmq
from export_producers.triggers.brokers.trigger import BrokerTrigger
from export_worker.demo.processes import free_port
from export_worker.sinks.brokers.kafka import KafkaLink
from export_worker.sinks.brokers.nats import NatsLink
from export_worker.sinks.brokers.rabbitmq import RabbitmqLink
from export_worker.sinks.brokers.sink import Broker
from support import message_servers, secret_canaries


@pytest.fixture(scope="module")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with message_servers.rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")) as url:
        yield url


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with message_servers.nats_server(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture(scope="module")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with message_servers.kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        yield server.address


@pytest.fixture
async def site(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[IntakeSite]:
    async with open_intake_site(arq_redis, redis_url, namespace) as site:
        yield site


@pytest.fixture
async def channel(rabbitmq_url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        yield await connection.channel()


class TestRabbitmqSink(SinkSuite):
    @pytest.fixture
    async def bench(self, rabbitmq_url: str, channel: aio_pika.abc.AbstractChannel) -> AsyncIterator[Bench]:
        queue = await channel.declare_queue(f"q{uuid4().hex}", durable=True)

        async def received() -> list[str]:
            message = await queue.get(fail=False)
            if message is None:
                return []
            await message.ack()
            assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
            return [message.body.decode()]

        unreachable = f"amqp://guest:{secret_canaries.TOKEN}@127.0.0.1:{free_port()}/"
        sink = Broker("rabbitmq", lambda: RabbitmqLink(rabbitmq_url, queue.name, None))
        broken = Broker("rabbitmq", lambda: RabbitmqLink(unreachable, "q", None))
        yield Bench(sink, received, broken)
        await sink.close()
        await broken.close()


class TestRabbitmqTrigger(TriggerSuite):
    @pytest.fixture
    async def source(self, rabbitmq_url: str, channel: aio_pika.abc.AbstractChannel) -> MessageSource:
        name = f"q{uuid4().hex}"
        await channel.declare_queue(name, durable=True)

        async def publish(body: bytes, headers: Mapping[str, str]) -> None:
            message = aio_pika.Message(body, headers=dict(headers), message_id=uuid4().hex)
            await channel.default_exchange.publish(message, name)

        async def unacknowledged() -> int:
            return (await channel.declare_queue(name, passive=True)).declaration_result.message_count or 0

        subscribe = partial(broker_rabbitmq.subscribe, rabbitmq_url, name)
        return MessageSource(lambda intake: BrokerTrigger(intake, subscribe), publish, unacknowledged)


class TestNatsSink(SinkSuite):
    @pytest.fixture
    async def bench(self, nats_url: str) -> AsyncIterator[Bench]:
        name = f"s{uuid4().hex}"
        client = await nats.connect(nats_url)
        stream = client.jetstream()
        await stream.add_stream(name=name, subjects=[f"{name}.*"])
        subscription = await stream.pull_subscribe(f"{name}.*", "d")

        async def received() -> list[str]:
            try:
                messages = await subscription.fetch(10, timeout=0.2)
            except nats.errors.TimeoutError:
                return []
            for message in messages:
                await message.ack()
            return [message.data.decode() for message in messages]

        sink = Broker("nats", lambda: NatsLink(nats_url, f"{name}.events", name))
        broken = Broker("nats", lambda: NatsLink(nats_url, f"{name}.events", "not-there"))
        yield Bench(sink, received, broken)
        await sink.close()
        await broken.close()
        await client.close()


class TestNatsTrigger(TriggerSuite):
    @pytest.fixture
    async def source(self, nats_url: str) -> AsyncIterator[MessageSource]:
        name = f"s{uuid4().hex}"
        client = await nats.connect(nats_url)
        stream = client.jetstream()
        await stream.add_stream(name=name, subjects=[f"{name}.*"])

        async def publish(body: bytes, headers: Mapping[str, str]) -> None:
            await stream.publish(f"{name}.in", body, headers=dict(headers))

        async def unacknowledged() -> int:
            try:
                consumer = await stream.consumer_info(name, "g")
            except nats.js.errors.NotFoundError:
                # Until the trigger has created its consumer, it has read nothing.
                return 1
            return (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)

        subscribe = partial(broker_nats.subscribe, nats_url, f"{name}.in", "g", name)
        yield MessageSource(lambda intake: BrokerTrigger(intake, subscribe), publish, unacknowledged)
        await client.close()


class TestKafkaSink(SinkSuite):
    @pytest.fixture
    async def bench(self, kafka_address: str) -> AsyncIterator[Bench]:
        topic = f"t{uuid4().hex}"
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka_address, enable_auto_commit=False)
        await consumer.start()
        consumer.assign([TopicPartition(topic, number) for number in range(message_servers.KAFKA_PARTITIONS)])
        await consumer.seek_to_beginning()

        async def received() -> list[str]:
            found = await consumer.getmany(timeout_ms=200)
            return [message.value.decode() for messages in found.values() for message in messages]

        sink = Broker("kafka", lambda: KafkaLink(kafka_address, topic))
        broken = Broker("kafka", lambda: KafkaLink(f"127.0.0.1:{free_port()}", topic))
        yield Bench(sink, received, broken)
        await sink.close()
        await broken.close()
        await consumer.stop()

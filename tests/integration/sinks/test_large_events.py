"""Events that are larger than a sink takes: they are delivered without their objects, or given up at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import boto3
import nats
import pytest
from aiohttp import web

from export_worker.contract.event import Event
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Phase, Status, StoredObject
from export_worker.sinks.aws import AwsEndpoint
from export_worker.sinks.base import EventTooLargeError, Sink
from export_worker.sinks.brokers.kafka import KafkaLink
from export_worker.sinks.brokers.nats import NatsLink
from export_worker.sinks.brokers.sink import Broker
from export_worker.sinks.eventbridge import EventBridge
from export_worker.sinks.large_events import without_objects
from export_worker.sinks.sns import Sns
from export_worker.sinks.sqs import Sqs
from export_worker.sinks.webhook import Webhook
from support import message_servers
from support.event_sinks import ScriptedSink, dispatcher_of, given_up, outbox_of, running, until
from support.redis_site import QueueSite

REGION = "us-east-1"
MANIFEST = "s3://bucket/k/_manifest.json"


def large_event(size: int, *, objects: bool = True) -> Event:
    """Returns the event of a succeeded export that is a little larger than `size` bytes.

    Args:
        objects: The objects make it large; otherwise the metadata, which cannot be left out.
    """
    now = "2026-11-30T10:00:00.000Z"
    stored = [
        {"uri": f"s3://bucket/k/{number}.csv", "bucket": "bucket", "key": f"k/{number}.csv", "bytes": 1, "etag": "0"}
        | {"checksum": "CRC64NVME:AAAAAAAAAAA=", "file_name": f"{number}-{'ü' * 500}.csv"}
        for number in range(size // 1000 + 1)
    ]
    export_id = uuid4().hex
    status = Status(
        export_id=export_id,
        phase=Phase.SUCCEEDED,
        connection="gio",
        kind="growingio.tag_users",
        created_at=now,
        updated_at=now,
        objects=[StoredObject.model_validate(item) for item in stored] if objects else [],
        manifest=MANIFEST,
        metadata={} if objects else {"a": "x" * size},
    )
    source = "/export-worker/exports"
    return Event(id=f"{export_id}.1", type="export.succeeded", source=source, subject=export_id, time=now, data=status)


def check_received(text: str, event: Event) -> None:
    """Checks that a sink has got the event without its objects."""
    received = Event.model_validate_json(text)
    assert (received.id, received.data.manifest, received.data.objects) == (event.id, MANIFEST, [])
    assert received.objectsomitted == len(event.data.objects)
    assert received.data == event.data.model_copy(update={"objects": []})


async def put(site: QueueSite, sink: str, event: Event) -> None:
    """Puts an event into the outbox of a sink, as a commit does."""
    await site.redis.set(site.keys.event(event.id), event.model_dump_json())
    await site.redis.zadd(site.keys.outbox(sink), {event.id: epoch_ms(site.now)})


class AwsQueue:
    """An SQS queue that gets what is sent to it, to a topic or to a bus."""

    def __init__(self, url: str) -> None:
        name, arn = f"n{uuid4().hex}", f"arn:aws:sqs:{REGION}:123456789012:"
        session = boto3.session.Session(region_name=REGION)
        self._sqs = session.client("sqs", endpoint_url=url)
        sns, events = session.client("sns", endpoint_url=url), session.client("events", endpoint_url=url)
        self._queue_url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        topic = sns.create_topic(Name=name)["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn + name)
        events.create_event_bus(Name=name)
        events.put_rule(Name="all", EventBusName=name, EventPattern=json.dumps({"source": ["export-worker"]}))
        events.put_targets(Rule="all", EventBusName=name, Targets=[{"Id": "q", "Arn": arn + name}])
        endpoint = AwsEndpoint(REGION, url)
        self.sinks: dict[str, Sink] = {
            "sns": Sns(topic, endpoint, 1),
            "sqs": Sqs(self._queue_url, endpoint, 1),
            "eventbridge": EventBridge(name, endpoint, 1),
        }

    def set_limit(self, size: int) -> None:
        self._sqs.set_queue_attributes(QueueUrl=self._queue_url, Attributes={"MaximumMessageSize": str(size)})

    def received(self) -> str:
        (message,) = self._sqs.receive_message(QueueUrl=self._queue_url, WaitTimeSeconds=10)["Messages"]
        self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        body: dict[str, Any] = json.loads(message["Body"])
        return str(body["Message"]) if "Message" in body else json.dumps(body.get("detail", body))


@pytest.fixture(scope="module")
def aws(s3_url: str) -> Iterator[AwsQueue]:
    """One queue for all tests, because clients of AWS take long to make. Each test receives what it has sent."""
    found = AwsQueue(s3_url)
    yield found
    for sink in found.sinks.values():
        asyncio.run(sink.close())


@pytest.mark.parametrize(("service", "size"), [("sns", 2**18), ("sqs", 2**20), ("eventbridge", 2**20)])
async def test_event_above_the_limit_of_an_aws_service_is_delivered_without_its_objects(
    service: str, size: int, aws: AwsQueue, queue_site: QueueSite
) -> None:
    event = large_event(size)
    await put(queue_site, "hook", event)
    async with running(dispatcher_of(queue_site, hook=aws.sinks[service])):
        await until_empty(queue_site)
    assert await given_up(queue_site, "hook") == []
    check_received(aws.received(), event)


@pytest.mark.parametrize("limit", [2**16, 2**18])
async def test_event_above_the_limit_of_its_queue_is_delivered_without_its_objects(
    limit: int, aws: AwsQueue, queue_site: QueueSite
) -> None:
    aws.set_limit(limit)
    # The server for tests counts characters.
    event = large_event(3 * limit)
    await put(queue_site, "hook", event)
    async with running(dispatcher_of(queue_site, hook=aws.sinks["sqs"])):
        await until_empty(queue_site)
    check_received(aws.received(), event)
    aws.set_limit(2**20)


async def test_event_below_the_limit_of_sns_keeps_its_objects(aws: AwsQueue) -> None:
    event = large_event(200_000)
    await aws.sinks["sns"].deliver(event.id, event.model_dump_json())
    assert Event.model_validate_json(aws.received()) == event


@pytest.mark.parametrize("service", ["sns", "sqs", "eventbridge"])
async def test_event_that_is_too_large_without_objects_is_given_up_at_once(
    service: str, aws: AwsQueue, queue_site: QueueSite
) -> None:
    event = large_event(2**20, objects=False)
    await put(queue_site, "hook", event)
    async with running(dispatcher_of(queue_site, hook=aws.sinks[service])):
        await until_empty(queue_site)
    (refused,) = await given_up(queue_site, "hook")
    assert (refused.event_id, refused.failures) == (event.id, 1)
    assert "bytes" in refused.reason


async def until_empty(site: QueueSite) -> None:
    """Waits until every event of the sink was delivered or given up."""
    async with asyncio.timeout(30):
        while not await outbox_of(site).is_empty("hook"):
            await asyncio.sleep(0.01)


async def test_sink_that_takes_only_small_events_gets_them_without_objects(queue_site: QueueSite) -> None:
    class Small(ScriptedSink):
        async def deliver(self, event_id: str, event: str) -> None:
            self.error = EventTooLargeError("too large") if len(event) > 5000 else None
            await super().deliver(event_id, event)

    event, sink = large_event(20_000), Small()
    await put(queue_site, "hook", event)
    async with running(dispatcher_of(queue_site, hook=sink)):
        await until(lambda: bool(sink.taken))
    assert sink.tried == [event.id, event.id]


@asynccontextmanager
async def webhook(limit: int, received: list[str]) -> AsyncIterator[Webhook]:
    """Runs a receiver that takes bodies of at most `limit` bytes, and a sink for it."""

    async def take(request: web.Request) -> web.Response:
        received.append(await request.text())
        return web.Response(status=204)

    app = web.Application(client_max_size=limit)
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sink = Webhook(f"http://127.0.0.1:{runner.addresses[0][1]}/", [b"key"], timeout_s=20, allow_private=True)
    yield sink
    await sink.close()
    await runner.cleanup()


async def test_webhook_that_answers_413_gets_the_event_without_its_objects(queue_site: QueueSite) -> None:
    event, received = large_event(100_000), list[str]()
    await put(queue_site, "hook", event)
    async with webhook(50_000, received) as sink, running(dispatcher_of(queue_site, hook=sink)):
        await until(lambda: bool(received))
    check_received(received[0], event)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[message_servers.KafkaServer]:
    with message_servers.kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with message_servers.nats_server(tmp_path_factory.mktemp("nats")) as url:
        yield url


async def test_event_above_the_limit_of_kafka_is_too_large_and_later_events_are_delivered(
    kafka: message_servers.KafkaServer,
) -> None:
    sink, event = Broker("kafka", lambda: KafkaLink(kafka.address, "events")), large_event(1_100_000)
    with pytest.raises(EventTooLargeError):
        await sink.deliver(event.id, event.model_dump_json())
    await sink.deliver(event.id, without_objects(event.model_dump_json()) or "")
    await sink.close()


@pytest.mark.parametrize("size", [1_100_000, 100_000])
async def test_event_above_the_limit_of_nats_or_of_its_stream_is_too_large(nats_url: str, size: int) -> None:
    name, event = f"s{uuid4().hex}", large_event(size)
    client = await nats.connect(nats_url)
    await client.jetstream().add_stream(name=name, subjects=[f"{name}.*"], max_msg_size=50_000)
    sink = Broker("nats", lambda: NatsLink(nats_url, f"{name}.events", name))
    with pytest.raises(EventTooLargeError):
        await sink.deliver(event.id, event.model_dump_json())
    await sink.deliver(event.id, without_objects(event.model_dump_json()) or "")
    await sink.close()
    await client.close()


def test_event_without_objects_cannot_become_smaller() -> None:
    assert without_objects(large_event(1000, objects=False).model_dump_json()) is None

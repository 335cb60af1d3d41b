"""What the sinks SNS, EventBridge and SQS send can be read by a trigger that reads SQS, on a real server."""

import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, Literal
from uuid import uuid4

import boto3
import pytest
from arq.connections import ArqRedis

from conformance.sink_suite import new_event
from conformance.trigger_suite import REQUEST, IntakeSite, open_intake_site, running_trigger
from export_producers.triggers.intake import Intake
from export_producers.triggers.sqs import SqsTrigger
from export_worker.sinks.aws import AwsEndpoint
from export_worker.sinks.base import Sink
from export_worker.sinks.eventbridge import EventBridge
from export_worker.sinks.sns import Sns
from export_worker.sinks.sqs import Sqs
from export_worker.wiring.aws import new_sqs_client

REGION = "us-east-1"
Service = Literal["sqs", "sns", "eventbridge"]
AFTER_AN_EXPORT = {
    "connection": "gio",
    "export": {"kind": "growingio.tag_users", "tag_key": "next"},
    "metadata": {"after": "{data.export_id}", "type": "{type}"},
}


@pytest.fixture
async def site(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[IntakeSite]:
    async with open_intake_site(arq_redis, redis_url, namespace) as site:
        yield site


class Aws:
    """A queue, with a topic and a bus that deliver to it in their own envelopes."""

    def __init__(self, url: str) -> None:
        self.endpoint = AwsEndpoint(REGION, url)
        self.clients: dict[str, Any] = {
            name: boto3.session.Session().client(name, endpoint_url=url, region_name=REGION)
            for name in ("sqs", "sns", "events")
        }
        self.name = f"n{uuid4().hex}"
        self.queue_url = self.clients["sqs"].create_queue(QueueName=self.name)["QueueUrl"]
        arn = f"arn:aws:sqs:{REGION}:123456789012:{self.name}"
        self.topic = self.clients["sns"].create_topic(Name=self.name)["TopicArn"]
        self.clients["sns"].subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)
        events = self.clients["events"]
        events.create_event_bus(Name=self.name)
        # An empty prefix matches every source.
        events.put_rule(Name="all", EventBusName=self.name, EventPattern=json.dumps({"source": [{"prefix": ""}]}))
        events.put_targets(Rule="all", EventBusName=self.name, Targets=[{"Id": "q", "Arn": arn}])

    def sink(self, service: Service) -> Sink:
        match service:
            case "sqs":
                return Sqs(self.queue_url, self.endpoint, 1)
            case "sns":
                return Sns(self.topic, self.endpoint, 1)
            case "eventbridge":
                return EventBridge(self.name, self.endpoint, 1)

    def publish(self, service: Service, body: dict[str, Any], traceparent: str) -> None:
        match service:
            case "sqs":
                attributes = {"traceparent": {"DataType": "String", "StringValue": traceparent}}
                self.clients["sqs"].send_message(
                    QueueUrl=self.queue_url, MessageBody=json.dumps(body), MessageAttributes=attributes
                )
            case "sns":
                attributes = {"traceparent": {"DataType": "String", "StringValue": traceparent}}
                self.clients["sns"].publish(TopicArn=self.topic, Message=json.dumps(body), MessageAttributes=attributes)
            case "eventbridge":
                entry = {"Source": "shop", "DetailType": "order", "EventBusName": self.name, "Detail": json.dumps(body)}
                self.clients["events"].put_events(Entries=[entry])

    def trigger(self, intake: Intake) -> SqsTrigger:
        new_client = partial(new_sqs_client, REGION, self.endpoint.endpoint_url)
        return SqsTrigger(intake, queue_url=self.queue_url, new_client=new_client, visibility_s=30, wait_s=1)


@pytest.fixture(scope="module")
def aws(s3_url: str) -> Iterator[Aws]:
    """One queue for all tests, because clients of AWS take long to make. Each test reads what it has sent."""
    found = Aws(s3_url)
    yield found
    for client in found.clients.values():
        client.close()


@pytest.mark.parametrize("service", ["sqs", "sns", "eventbridge"])
async def test_event_of_a_sink_requests_the_next_export_once(service: Service, aws: Aws, site: IntakeSite) -> None:
    sink, event = aws.sink(service), new_event()
    for _ in range(2):
        await sink.deliver(event.id, event.model_dump_json())
    await sink.close()
    async with running_trigger(aws.trigger, site, AFTER_AN_EXPORT):
        outcomes = await site.outcomes(2)
    assert sorted(outcomes) == ["deduplicated", "enqueued"]
    (status,) = await site.queue.list_exports()
    assert status.metadata == {"after": event.data.export_id, "type": "export.failed"}


@pytest.mark.parametrize("service", ["sqs", "sns", "eventbridge"])
async def test_request_in_an_envelope_becomes_an_export(service: Service, aws: Aws, site: IntakeSite) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    # Two equal requests are two messages, and a request that cannot be accepted becomes a dead letter.
    for body in (REQUEST, REQUEST, REQUEST | {"connection": "unknown"}):
        aws.publish(service, body, trace)
    async with running_trigger(aws.trigger, site):
        await site.outcomes(3)
    assert sorted(site.handled) == ["enqueued", "enqueued", "unusable"]
    (dead,) = await site.dead(1)
    assert dead["reason"].startswith("connection: unknown connection 'unknown'")
    if service != "eventbridge":
        (status, _) = await site.queue.list_exports()
        stored = await site.redis.hget(site.keys.export(status.export_id), "trace")
        assert json.loads(stored)["traceparent"] == trace


async def test_template_reads_an_event_of_another_service_on_eventbridge(aws: Aws, site: IntakeSite) -> None:
    aws.publish("eventbridge", {"tag": "vip"}, "")
    template = {
        "connection": "gio",
        "export": {"kind": "growingio.tag_users", "tag_key": "{data.tag}"},
        "metadata": {"source": "{source}", "type": "{type}"},
    }
    async with running_trigger(aws.trigger, site, template):
        (status,) = await site.exports(1)
    assert status.metadata == {"source": "shop", "type": "order"}

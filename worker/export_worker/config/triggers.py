"""The sections `triggers.NAME`: the sources of messages that request exports."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from export_worker.config.section import Section
from export_worker.config.sinks import BrokerName, Endpoint, Text, check_broker_fields


class TriggerSettings(Section):
    """The common settings of all triggers."""

    request: dict[str, Any] | None = None
    """A template of the export request. JMESPath expressions in braces are evaluated on the CloudEvent.

    Default: none; then the message itself is a request."""


class RedisStreamTrigger(TriggerSettings):
    """Reads a Redis stream in a consumer group."""

    type: Literal["redis-stream"]
    """`redis-stream`. Required."""
    stream: Text
    """The key of the stream, 1 to 1,024 characters. Required."""
    group: Text = "export-worker"
    """The consumer group. If it does not exist, it is created and starts at the oldest entry.

    Default `export-worker`, 1 to 1,024 characters."""
    claim_after_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds after which an entry that another consumer has read, but not acknowledged, is claimed.

    Default 60, above 0."""


class SqsTrigger(TriggerSettings):
    """Reads an SQS queue. Credentials come only from boto3's own chain."""

    type: Literal["sqs"]
    """`sqs`. Required."""
    queue_url: Endpoint
    """The queue's URL, http:// or https://. Required."""
    region: Text | None = None
    """The AWS region, 1 to 1,024 characters. Default: the region of boto3's configuration."""
    endpoint_url: Endpoint | None = None
    """The address of a service other than AWS, http:// or https://. Default: AWS."""
    visibility_s: Annotated[int, Field(ge=3, le=43_200)] = 30
    """Seconds for which SQS hides a received message from others. Extended while the message is handled.

    Default 30, 3 to 43,200 (12 hours)."""
    wait_s: Annotated[int, Field(ge=0, le=20)] = 5
    """Seconds of one long poll. A stop waits for the poll to end. Default 5, 0 to 20."""


class BrokerTrigger(TriggerSettings):
    """Reads RabbitMQ, NATS JetStream or Kafka."""

    type: Literal["broker"]
    """`broker`. Required."""
    broker: BrokerName
    """`rabbitmq`, `nats` or `kafka`. Each needs the extra of its name. Required."""
    url: SecretStr
    """The broker's address, as for a broker sink. Required."""
    source: Text
    """RabbitMQ: the queue. NATS: the subject. Kafka: the topic. 1 to 1,024 characters. Required."""
    group: Text = "export-worker"
    """NATS: the durable consumer. Kafka: the consumer group. RabbitMQ does not use it.

    Default `export-worker`, 1 to 1,024 characters."""
    stream: Text | None = None
    """The stream of JetStream that stores the subject, 1 to 1,024 characters. Required for NATS, not allowed for
    other brokers. Default: none."""

    @model_validator(mode="after")
    def _fits_broker(self) -> Self:
        check_broker_fields(self.broker, exchange=None, stream=self.stream)
        return self


AnyTrigger = Annotated[RedisStreamTrigger | SqsTrigger | BrokerTrigger, Field(discriminator="type")]

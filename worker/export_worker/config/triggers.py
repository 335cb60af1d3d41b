"""The sections `triggers`: where messages that ask for exports come from."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from export_worker.config.section import Section
from export_worker.config.sinks import BrokerName, Endpoint, Text, check_broker_fields


class TriggerSettings(Section):
    """What all triggers share.

    Args:
        request: A template: the export request, with JMESPath between braces over a CloudEvent. Without it a message
            is a request itself.
    """

    request: dict[str, Any] | None = None


class RedisStreamTrigger(TriggerSettings):
    """Reads a Redis stream as one of a consumer group.

    Args:
        group: Created if it is not there, to begin with the oldest entry.
        claim_after_s: What another consumer has read and not acknowledged for so long is taken over.
    """

    type: Literal["redis-stream"]
    stream: Text
    group: Text = "export-worker"
    claim_after_s: Annotated[float, Field(gt=0)] = 60.0


class SqsTrigger(TriggerSettings):
    """Reads an SQS queue. Credentials come from boto3's own chain and nowhere else.

    Args:
        visibility_s: How long a message that is worked on is hidden from others; extended as long as it is needed.
        wait_s: Of one long poll; a stop waits for its end.
    """

    type: Literal["sqs"]
    queue_url: Endpoint
    region: Text | None = None
    endpoint_url: Endpoint | None = None
    visibility_s: Annotated[int, Field(ge=3, le=43_200)] = 30
    wait_s: Annotated[int, Field(ge=0, le=20)] = 5


class BrokerTrigger(TriggerSettings):
    """Reads RabbitMQ, NATS JetStream or Kafka.

    Args:
        broker: Each needs the extra of its name.
        url: As a sink has it.
        source: RabbitMQ: the queue. NATS: the subject. Kafka: the topic.
        group: NATS: the durable consumer; Kafka: the consumer group. RabbitMQ has none.
        stream: NATS alone, and needed there: the JetStream that keeps the subject.
    """

    type: Literal["broker"]
    broker: BrokerName
    url: SecretStr
    source: Text
    group: Text = "export-worker"
    stream: Text | None = None

    @model_validator(mode="after")
    def _fits_the_broker(self) -> Self:
        check_broker_fields(self.broker, exchange=None, stream=self.stream)
        return self


AnyTrigger = Annotated[RedisStreamTrigger | SqsTrigger | BrokerTrigger, Field(discriminator="type")]

"""The sections `sinks`: where completion events go."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from export_worker.config.section import Section

BrokerName = Literal["rabbitmq", "nats", "kafka"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Endpoint = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]


def is_reference(secret: SecretStr) -> bool:
    """Whether the value stands elsewhere: `env:NAME` or `file:/path`."""
    return secret.get_secret_value().startswith(("env:", "file:"))


def _checked_url(url: SecretStr) -> SecretStr:
    """Refuse what is no address; the refusal must not show it, for there may be a secret in it."""
    if not is_reference(url) and not is_web_address(url.get_secret_value()):
        raise PydanticCustomError("web_address", "must be an http:// or https:// address, or env:NAME or file:/path")
    return url


def is_web_address(url: str) -> bool:
    """Whether a webhook can post there."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class SinkSettings(Section):
    """What all sinks share.

    Args:
        at_once: Deliveries that may be on their way at the same time.
        retry_first_s: Ceiling of the first wait after a delivery that failed; it doubles with each.
        retry_max_s: No wait is longer.
        give_up_after_s: An event that is refused for so long is given up, and listed by `events undelivered`.
    """

    at_once: Annotated[int, Field(ge=1, le=64)] = 8
    retry_first_s: Annotated[float, Field(gt=0)] = 1.0
    retry_max_s: Annotated[float, Field(gt=0)] = 300.0
    give_up_after_s: Annotated[float, Field(gt=0)] = 3 * 86_400.0


class RedisStreamSink(SinkSettings):
    """Completion events on a Redis stream, in the field `event`; the stream keeps about `max_length` of them."""

    type: Literal["redis-stream"] = "redis-stream"
    stream: Annotated[str, StringConstraints(min_length=1)] = "exports:events"
    max_length: Annotated[int, Field(ge=1)] = 100_000


class WebhookSink(SinkSettings):
    """Posts to an address, signed as Standard Webhooks says.

    Args:
        url: May hold a secret, so it is treated as one.
        secret: Base64 behind `whsec_`.
        previous_secret: While a secret is changed: events are signed with both.
        allow_private: The address may lead into a private network.
        timeout_s: For one delivery.
    """

    type: Literal["webhook"]
    url: Annotated[SecretStr, AfterValidator(_checked_url)]
    secret: SecretStr
    previous_secret: SecretStr | None = None
    allow_private: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=30)] = 15.0
    retry_max_s: Annotated[float, Field(gt=0)] = 3600.0


class AwsSinkSettings(SinkSettings):
    """What the sinks on AWS share. Credentials come from boto3's own chain and nowhere else.

    Args:
        region: Left out, boto3's configuration says it.
        endpoint_url: Left out for AWS.
    """

    region: Text | None = None
    endpoint_url: Endpoint | None = None


class SqsSink(AwsSinkSettings):
    """Sends to an SQS queue; one that ends in `.fifo` as such queues need it."""

    type: Literal["sqs"]
    queue_url: Endpoint


class SnsSink(AwsSinkSettings):
    """Publishes to an SNS topic."""

    type: Literal["sns"]
    topic_arn: Annotated[str, StringConstraints(pattern=r"^arn:[^\s]+$")]


class EventBridgeSink(AwsSinkSettings):
    """Puts events on an EventBridge bus."""

    type: Literal["eventbridge"]
    event_bus: Text = "default"


class BrokerSink(SinkSettings):
    """Publishes to RabbitMQ, NATS JetStream or Kafka.

    Args:
        broker: Each needs the extra of its name.
        url: `amqp://…`, `nats://…`, or Kafka's `host:port`, several with commas. May hold a password.
        destination: RabbitMQ: the queue, or with `exchange` the routing key. NATS: the subject. Kafka: the topic.
        exchange: RabbitMQ alone: an exchange that exists.
        stream: NATS alone, and needed there: the JetStream that keeps the subject; without one events could be lost.
    """

    type: Literal["broker"]
    broker: BrokerName
    url: SecretStr
    destination: Text
    exchange: Text | None = None
    stream: Text | None = None

    @model_validator(mode="after")
    def _fits_the_broker(self) -> Self:
        check_broker_fields(self.broker, exchange=self.exchange, stream=self.stream)
        return self


def check_broker_fields(broker: BrokerName, *, exchange: str | None, stream: str | None) -> None:
    """Refuse what only another broker has.

    Raises:
        ValueError: Says which setting.
    """
    if exchange is not None and broker != "rabbitmq":
        raise ValueError("exchange is for rabbitmq alone")
    if (stream is None) == (broker == "nats"):
        raise ValueError("stream is needed for nats, and for no other broker")


AnySink = Annotated[
    RedisStreamSink | WebhookSink | SqsSink | SnsSink | EventBridgeSink | BrokerSink, Field(discriminator="type")
]

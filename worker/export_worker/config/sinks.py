"""The sections `sinks`: the destinations of completion events."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from export_worker.config.section import Section
from export_worker.contract.order import check_order
from export_worker.contract.wording import WEB_ADDRESS, Pattern
from export_worker.egress.network_settings import NetworkSettings
from export_worker.references.reading import is_reference

BrokerName = Literal["rabbitmq", "nats", "kafka"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Endpoint = Annotated[str, WEB_ADDRESS]


def _checked_url(url: SecretStr) -> SecretStr:
    """Refuses text that is not a web address. The message does not show it: it may contain a secret."""
    if not is_reference(url.get_secret_value()) and not is_web_address(url.get_secret_value()):
        raise PydanticCustomError(
            "web_address", "must be an http:// or https:// address, or env:NAME, file:/path or aws-sm:NAME"
        )
    return url


def is_web_address(url: str) -> bool:
    """Returns whether a webhook can be posted to this address."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class SinkSettings(Section):
    """The common settings of all sinks."""

    at_once: Annotated[int, Field(ge=1, le=64)] = 8
    """The number of concurrent deliveries. Default 8, 1 to 64. A Redis stream always has one, to keep the order."""
    retry_first_s: Annotated[float, Field(gt=0)] = 1.0
    """The longest wait after the first failed delivery (seconds). The limit doubles with each failure.

    Default 1, above 0, not above `retry_max_s` and `give_up_after_s`."""
    retry_max_s: Annotated[float, Field(gt=0)] = 300.0
    """The longest wait between deliveries of one event (seconds). Default 300, for a webhook 3600; above 0."""
    give_up_after_s: Annotated[float, Field(gt=0)] = 3 * 86_400.0
    """An event that is refused for this time (seconds) is given up; `events undelivered` lists it.

    Default 259,200 (3 days), above 0."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        check_order(self, "retry_first_s", "retry_max_s")
        check_order(self, "retry_first_s", "give_up_after_s")
        return self


class RedisStreamSink(SinkSettings):
    """Appends events to a Redis stream, in the field `event`."""

    type: Literal["redis-stream"] = "redis-stream"
    """`redis-stream`. Default `redis-stream`."""
    stream: Annotated[str, StringConstraints(min_length=1)] = "exports:events"
    """The key of the stream. Default `exports:events`, at least 1 character."""
    max_length: Annotated[int, Field(ge=1)] = 100_000
    """The stream is trimmed to about this number of entries. Default 100,000, at least 1."""


class WebhookSink(NetworkSettings, SinkSettings):
    """Posts events to an address, signed by the rules of Standard Webhooks."""

    type: Literal["webhook"]
    """`webhook`. Required."""
    url: Annotated[SecretStr, AfterValidator(_checked_url)]
    """The receiver's address, http:// or https://. It may contain a secret, so it is masked. Required."""
    secret: SecretStr
    """The signing key: base64 of at least 24 bytes, with or without the prefix `whsec_`. Required."""
    previous_secret: SecretStr | None = None
    """The previous signing key, while the key is changed: events are signed with both. Default: none."""
    allow_private: bool = False
    """Whether `url` may resolve to an address in a private network. Default: false."""
    timeout_s: Annotated[float, Field(gt=0, le=30)] = 15.0
    """Seconds that one delivery may take. Default 15, above 0, at most 30."""
    retry_max_s: Annotated[float, Field(gt=0)] = 3600.0
    """The longest wait between deliveries of one event (seconds). Default 3,600, above 0."""


class AwsSinkSettings(SinkSettings):
    """The common settings of the sinks on AWS. Credentials come only from boto3's own chain."""

    region: Text | None = None
    """The AWS region, 1 to 1,024 characters. Default: the region of boto3's configuration."""
    endpoint_url: Endpoint | None = None
    """The address of a service other than AWS, http:// or https://. Default: AWS."""


class SqsSink(AwsSinkSettings):
    """Sends events to an SQS queue, standard or FIFO."""

    type: Literal["sqs"]
    """`sqs`. Required."""
    queue_url: Endpoint
    """The queue's URL, http:// or https://; that of a FIFO queue ends in `.fifo`. Required."""


class SnsSink(AwsSinkSettings):
    """Publishes events to an SNS topic."""

    type: Literal["sns"]
    """`sns`. Required."""
    topic_arn: Annotated[
        str, Pattern(r"^arn:[^\s]+$", "must be an ARN, such as arn:aws:sns:eu-west-1:123456789012:exports")
    ]
    """The topic's ARN. Required."""


class EventBridgeSink(AwsSinkSettings):
    """Puts events on an EventBridge bus."""

    type: Literal["eventbridge"]
    """`eventbridge`. Required."""
    event_bus: Text = "default"
    """The name or ARN of the bus. Default `default`, 1 to 1,024 characters."""


class BrokerSink(SinkSettings):
    """Publishes events to RabbitMQ, NATS JetStream or Kafka."""

    type: Literal["broker"]
    """`broker`. Required."""
    broker: BrokerName
    """`rabbitmq`, `nats` or `kafka`. Each needs the extra of its name. Required."""
    url: SecretStr
    """`amqp://…`, `nats://…`, or for Kafka `host:port`, several with commas. It may contain a password. Required."""
    destination: Text
    """RabbitMQ: the queue, or with `exchange` the routing key. NATS: the subject. Kafka: the topic.

    1 to 1,024 characters. Required."""
    exchange: Text | None = None
    """RabbitMQ only: an exchange that exists, 1 to 1,024 characters. Default: none; then events are sent to the
    queue."""
    stream: Text | None = None
    """The JetStream that stores the subject, 1 to 1,024 characters. Required for NATS, since events could be lost
    without one; not allowed for other brokers. Default: none."""
    enable_idempotence: bool | None = None
    """Kafka only: the broker drops an event that the client sent twice. Default: true, or false.

    Set it to false for a broker or a user that cannot do this. Then a repeated request can write an event twice."""

    @model_validator(mode="after")
    def _fits_broker(self) -> Self:
        check_broker_fields(self.broker, exchange=self.exchange, stream=self.stream)
        if self.enable_idempotence is not None and self.broker != "kafka":
            raise ValueError("enable_idempotence is allowed only for kafka")
        return self


def check_broker_fields(broker: BrokerName, *, exchange: str | None, stream: str | None) -> None:
    """Refuses settings that this broker does not have.

    Raises:
        ValueError: Names the setting.
    """
    if exchange is not None and broker != "rabbitmq":
        raise ValueError("exchange is allowed only for rabbitmq")
    if (stream is None) == (broker == "nats"):
        raise ValueError("stream is required for nats, and not allowed for other brokers")


AnySink = Annotated[
    RedisStreamSink | WebhookSink | SqsSink | SnsSink | EventBridgeSink | BrokerSink, Field(discriminator="type")
]

"""Builds sinks from the configuration."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import assert_never

from pydantic import SecretStr

from export_worker.config import Config
from export_worker.config.sinks import (
    AnySink,
    AwsSinkSettings,
    BrokerSink,
    EventBridgeSink,
    RedisStreamSink,
    SnsSink,
    SqsSink,
    WebhookSink,
    is_web_address,
)
from export_worker.credentials import reveal
from export_worker.errors import ConfigError
from export_worker.lifecycle.backoff import Backoff
from export_worker.redis.client import Commands
from export_worker.sinks.aws import AwsEndpoint
from export_worker.sinks.base import Sink, SinkRoute
from export_worker.sinks.brokers.sink import Broker, Link
from export_worker.sinks.eventbridge import EventBridge
from export_worker.sinks.redis_stream import RedisStream
from export_worker.sinks.sns import Sns
from export_worker.sinks.sqs import Sqs
from export_worker.sinks.webhook import Webhook, signing_key
from export_worker.wiring.aws import translate_aws_errors
from export_worker.wiring.brokers import import_broker


async def build_sinks(config: Config, redis: Commands, stack: AsyncExitStack) -> dict[str, SinkRoute]:
    """Returns every configured sink by name.

    A coroutine, since an HTTP client must be built on a running event loop.

    Args:
        stack: Closes the sinks.

    Raises:
        ConfigError: A secret is missing or wrong, boto3 refuses the settings, or a broker's extra is not installed.
    """
    routes: dict[str, SinkRoute] = {}
    for name, settings in config.sinks.items():
        section = f"sinks.{name}"
        with translate_aws_errors(section):
            sink = build_sink(section, settings, redis)
        stack.push_async_callback(sink.close)
        # One delivery at a time keeps the order of the stream; each takes a fraction of a millisecond.
        at_once = 1 if isinstance(settings, RedisStreamSink) else settings.at_once
        retry = Backoff(settings.retry_first_s, settings.retry_max_s)
        routes[name] = SinkRoute(sink, at_once, retry, settings.give_up_after_s)
    return routes


def build_sink(section: str, settings: AnySink, redis: Commands) -> Sink:
    """Returns one sink.

    Args:
        section: The section of the configuration, for errors, e.g. `sinks.hook`.

    Raises:
        ConfigError: A secret is missing or wrong, or a broker's extra is not installed.
    """
    match settings:
        case RedisStreamSink():
            return RedisStream(redis, settings.stream, settings.max_length)
        case WebhookSink():
            return _webhook(section, settings)
        case SqsSink():
            return Sqs(settings.queue_url, _aws(settings), settings.at_once)
        case SnsSink():
            return Sns(settings.topic_arn, _aws(settings), settings.at_once)
        case EventBridgeSink():
            return EventBridge(settings.event_bus, _aws(settings), settings.at_once)
        case BrokerSink():
            return Broker(settings.broker, _link(section, settings))
        case _:
            assert_never(settings)


def _aws(settings: AwsSinkSettings) -> AwsEndpoint:
    return AwsEndpoint(settings.region, settings.endpoint_url)


def _webhook(section: str, settings: WebhookSink) -> Webhook:
    url = reveal(settings.url, f"{section}.url")
    if not is_web_address(url):
        raise ConfigError(f"{section}.url: must be an http:// or https:// address")
    keys = [_signing_key(settings.secret, f"{section}.secret")]
    if settings.previous_secret is not None:
        keys.append(_signing_key(settings.previous_secret, f"{section}.previous_secret"))
    return Webhook(
        url, keys, timeout_s=settings.timeout_s, allow_private=settings.allow_private, at_once=settings.at_once
    )


def _signing_key(secret: SecretStr, setting: str) -> bytes:
    try:
        return signing_key(reveal(secret, setting))
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None


def _link(section: str, settings: BrokerSink) -> Callable[[], Link]:
    """Returns a function that makes a link to the broker."""
    url = reveal(settings.url, f"{section}.url")
    module = import_broker("export_worker.sinks.brokers", settings.broker, section)
    match settings.broker:
        case "rabbitmq":
            return partial(module.RabbitmqLink, url, settings.destination, settings.exchange)
        case "nats":
            return partial(module.NatsLink, url, settings.destination, settings.stream)
        case "kafka":
            return partial(module.KafkaLink, url, settings.destination)

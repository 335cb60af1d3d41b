"""The sinks that the configuration asks for, built."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any, assert_never

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
from export_worker.config.triggers import AnyTrigger, BrokerTrigger, SqsTrigger
from export_worker.credentials import reveal
from export_worker.errors import ConfigError
from export_worker.lifecycle.backoff import Backoff
from export_worker.redis.client import Commands
from export_worker.sinks.aws import AwsPlace
from export_worker.sinks.base import Sink, SinkRoute
from export_worker.sinks.brokers.sink import Broker, Link
from export_worker.sinks.eventbridge import EventBridge
from export_worker.sinks.redis_stream import RedisStream
from export_worker.sinks.sns import Sns
from export_worker.sinks.sqs import Sqs
from export_worker.sinks.webhook import Webhook, signing_key
from export_worker.wiring.secrets import aws_settings

UNTOUCHED_EXCHANGE = "amq.direct"
"""An exchange that every RabbitMQ has. If an exchange is named, the client declares no queue when it connects."""


async def build_sinks(config: Config, redis: Commands, stack: AsyncExitStack) -> dict[str, SinkRoute]:
    """Every sink of the configuration, by name; the stack closes them.

    Raises:
        ConfigError: A secret is missing or wrong, or a broker's extra is not installed.
    """
    routes: dict[str, SinkRoute] = {}
    for name, settings in config.sinks.items():
        sink = build_sink(f"sinks.{name}", settings, redis)
        stack.push_async_callback(sink.close)
        # One after the other keeps the order of a stream; it takes a fraction of a millisecond.
        at_once = 1 if isinstance(settings, RedisStreamSink) else settings.at_once
        retry = Backoff(settings.retry_first_s, settings.retry_max_s)
        routes[name] = SinkRoute(sink, at_once, retry, settings.give_up_after_s)
    return routes


@asynccontextmanager
async def open_sink(config: Config, name: str, redis: Commands) -> AsyncIterator[Sink]:
    """Build one sink of the configuration, and close it at the end.

    Raises:
        ConfigError: A setting or a secret is wrong, or a broker's extra is not installed.
    """
    async with _opened(f"sinks.{name}", config.sinks[name], redis) as sink:
        yield sink


@asynccontextmanager
async def open_trigger_source(config: Config, name: str, redis: Commands) -> AsyncIterator[Sink]:
    """Open the queue or broker that a trigger reads as a sink, and close it at the end. Nothing is read.

    Raises:
        ConfigError: As `open_sink`; or the trigger reads a stream of Redis.
    """
    section = f"triggers.{name}"
    async with _opened(section, _as_sink(section, config.triggers[name]), redis) as sink:
        yield sink


@asynccontextmanager
async def _opened(section: str, settings: AnySink, redis: Commands) -> AsyncIterator[Sink]:
    with aws_settings(section):
        sink = build_sink(section, settings, redis)
    try:
        yield sink
    finally:
        await sink.close()


def _as_sink(section: str, settings: AnyTrigger) -> AnySink:
    """Return the settings of a sink that writes to what a trigger reads: both are reached in the same way."""
    match settings:
        case SqsTrigger():
            return SqsSink(
                type="sqs",
                queue_url=settings.queue_url,
                region=settings.region,
                endpoint_url=settings.endpoint_url,
            )
        case BrokerTrigger():
            return BrokerSink(
                type="broker",
                broker=settings.broker,
                url=settings.url,
                destination=settings.source,
                exchange=UNTOUCHED_EXCHANGE if settings.broker == "rabbitmq" else None,
                stream=settings.stream,
            )
        case _:
            raise ConfigError(f"{section}: a stream of Redis is not opened as a sink")


def build_sink(place: str, settings: AnySink, redis: Commands) -> Sink:
    """One sink.

    Args:
        place: The section, for errors, e.g. `sinks.hook`.

    Raises:
        ConfigError: A secret is missing or wrong, or a broker's extra is not installed.
    """
    match settings:
        case RedisStreamSink():
            return RedisStream(redis, settings.stream, settings.max_length)
        case WebhookSink():
            return _webhook(place, settings)
        case SqsSink():
            return Sqs(settings.queue_url, _aws(settings), settings.at_once)
        case SnsSink():
            return Sns(settings.topic_arn, _aws(settings), settings.at_once)
        case EventBridgeSink():
            return EventBridge(settings.event_bus, _aws(settings), settings.at_once)
        case BrokerSink():
            return Broker(settings.broker, _link(place, settings))
        case _:
            assert_never(settings)


def _aws(settings: AwsSinkSettings) -> AwsPlace:
    return AwsPlace(settings.region, settings.endpoint_url)


def _webhook(place: str, settings: WebhookSink) -> Webhook:
    url = reveal(settings.url, f"{place}.url")
    if not is_web_address(url):
        raise ConfigError(f"{place}.url: must be an http:// or https:// address")
    keys = [_signing_key(settings.secret, f"{place}.secret")]
    if settings.previous_secret is not None:
        keys.append(_signing_key(settings.previous_secret, f"{place}.previous_secret"))
    return Webhook(
        url, keys, timeout_s=settings.timeout_s, allow_private=settings.allow_private, at_once=settings.at_once
    )


def _signing_key(secret: SecretStr, setting: str) -> bytes:
    try:
        return signing_key(reveal(secret, setting))
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None


def _link(place: str, settings: BrokerSink) -> Callable[[], Link]:
    """Makes links to the broker; its client is imported now, so that a missing extra shows at once."""
    url = reveal(settings.url, f"{place}.url")
    module: Any
    try:
        module = import_module(f"export_worker.sinks.brokers.{settings.broker}")
    except ImportError:
        advice = f"pip install 'export-worker[{settings.broker}]'"
        raise ConfigError(f"{place}: the client for {settings.broker} is not installed: {advice}") from None
    match settings.broker:
        case "rabbitmq":
            return partial(module.RabbitmqLink, url, settings.destination, settings.exchange)
        case "nats":
            return partial(module.NatsLink, url, settings.destination, settings.stream)
        case "kafka":
            return partial(module.KafkaLink, url, settings.destination)

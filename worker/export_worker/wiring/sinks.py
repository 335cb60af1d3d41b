"""Builds sinks from the configuration."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import assert_never

from arq.connections import ArqRedis
from yarl import URL

from export_worker.config import Config
from export_worker.config.sinks import (
    AnySink,
    AwsSinkSettings,
    BrokerSink,
    RedisStreamSink,
    SqsSink,
    WebhookSink,
    is_web_address,
)
from export_worker.config.triggers import AnyTrigger, BrokerTrigger, SqsTrigger
from export_worker.credentials import Redactor, reveal
from export_worker.egress.network import Network
from export_worker.errors import ConfigError
from export_worker.lifecycle.backoff import Backoff
from export_worker.redis.client import Commands, commands
from export_worker.secrets.secret import Secret
from export_worker.sinks.base import Sink, SinkRoute
from export_worker.sinks.brokers.sink import Broker, Link
from export_worker.sinks.redis_stream import RedisStream
from export_worker.sinks.webhook import KEY_MIN_BYTES, Webhook, signing_key
from export_worker.wiring.brokers import import_broker
from export_worker.wiring.redis import open_stream_redis

UNTOUCHED_EXCHANGE = "amq.direct"
"""An exchange that every RabbitMQ has. If an exchange is named, the client declares no queue when it connects."""


async def build_sinks(
    config: Config, redis: ArqRedis, stack: AsyncExitStack, redactor: Redactor
) -> dict[str, SinkRoute]:
    """Returns every configured sink by name.

    Args:
        redactor: Masks secrets in the reasons of refusals.
        stack: Closes the sinks.

    Raises:
        ConfigError: A secret is missing or wrong, boto3 refuses the settings, or a broker's extra is not installed.
    """
    routes: dict[str, SinkRoute] = {}
    for name, settings in config.sinks.items():
        sink = await stack.enter_async_context(open_sink(config, name, redis, redactor))
        # One delivery at a time keeps the order of the stream; each takes a fraction of a millisecond.
        at_once = 1 if isinstance(settings, RedisStreamSink) else settings.at_once
        retry = Backoff(settings.retry_first_s, settings.retry_max_s)
        routes[name] = SinkRoute(sink, at_once, retry, settings.give_up_after_s, redactor)
    return routes


@asynccontextmanager
async def open_sink(config: Config, name: str, redis: ArqRedis, redactor: Redactor) -> AsyncIterator[Sink]:
    """Opens one configured sink, and closes it at the end of the block.

    Raises:
        ConfigError: A secret is missing or wrong, boto3 refuses the settings, or a broker's extra is not installed.
    """
    settings = config.sinks[name]
    async with AsyncExitStack() as stack:
        if isinstance(settings, RedisStreamSink):
            redis = await stack.enter_async_context(open_stream_redis(config, settings.stream, redis))
        yield await stack.enter_async_context(_opened(f"sinks.{name}", settings, commands(redis), redactor))


@asynccontextmanager
async def open_trigger_source(config: Config, name: str, redis: ArqRedis, redactor: Redactor) -> AsyncIterator[Sink]:
    """Opens the queue or broker that a trigger reads as a sink, and closes it at the end of the block.

    `doctor` checks the source in the way in which it checks a sink. No message is read or written.

    Raises:
        ConfigError: As for `open_sink`; or the trigger reads a stream of Redis, which is not opened in this way.
    """
    section = f"triggers.{name}"
    async with _opened(section, _as_sink(section, config.triggers[name]), commands(redis), redactor) as sink:
        yield sink


@asynccontextmanager
async def _opened(section: str, settings: AnySink, redis: Commands, redactor: Redactor) -> AsyncIterator[Sink]:
    if isinstance(settings, AwsSinkSettings):
        # boto3 is large, and few configurations have such a sink.
        module = await asyncio.to_thread(import_module, "export_worker.wiring.aws_sinks")
        sink: Sink = module.build_aws_sink(section, settings)
    else:
        sink = build_sink(section, settings, redis, redactor)
    try:
        yield sink
    finally:
        await sink.close()


def _as_sink(section: str, settings: AnyTrigger) -> AnySink:
    """Returns the settings of a sink that writes to the queue or broker that a trigger reads."""
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
                # A user that may only read has no right to it.
                enable_idempotence=False if settings.broker == "kafka" else None,
            )
        case _:
            raise ConfigError(f"{section}: a stream of Redis is not opened as a sink")


def build_sink(
    section: str, settings: RedisStreamSink | WebhookSink | BrokerSink, redis: Commands, redactor: Redactor
) -> Sink:
    """Returns one sink. Sinks of AWS are built by `wiring.aws_sinks`.

    Args:
        section: The section of the configuration, for errors, e.g. `sinks.hook`.
        redactor: Masks secrets, also those that are exchanged later.

    Raises:
        ConfigError: A secret is missing or wrong, or a broker's extra is not installed.
    """
    match settings:
        case RedisStreamSink():
            return RedisStream(redis, settings.stream, settings.max_length)
        case WebhookSink():
            return _webhook(section, settings, redactor)
        case BrokerSink():
            return Broker(settings.broker, _link(section, settings))
        case _:
            assert_never(settings)


def _webhook(section: str, settings: WebhookSink, redactor: Redactor) -> Webhook:
    url = reveal(settings.url, f"{section}.url")
    if not is_web_address(url):
        raise ConfigError(f"{section}.url: must be an http:// or https:// address")
    secret = Secret(settings.secret, f"{section}.secret", redactor)
    keys = [secret.must(partial(_check_signing_key, min_bytes=KEY_MIN_BYTES))]
    if settings.previous_secret is not None:
        # It may be short, so that receivers can change from a short key to a longer one.
        previous = Secret(settings.previous_secret, f"{section}.previous_secret", redactor)
        keys.append(previous.must(_check_signing_key))
    return Webhook(
        url,
        keys,
        timeout_s=settings.timeout_s,
        allow_private=settings.allow_private,
        at_once=settings.at_once,
        network=Network(section, settings, URL(url), redactor),
    )


def _check_signing_key(secret: str, setting: str, min_bytes: int = 1) -> None:
    try:
        signing_key(secret, min_bytes=min_bytes)
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
            idempotent = settings.enable_idempotence is not False
            return partial(module.KafkaLink, url, settings.destination, enable_idempotence=idempotent)

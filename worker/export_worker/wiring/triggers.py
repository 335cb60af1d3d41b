"""Builds a message trigger from the configuration."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from json import dumps
from typing import assert_never
from uuid import uuid4

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_producers.triggers.brokers.trigger import Accept, BrokerTrigger, Subscribed
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.intake import Intake, Trigger
from export_producers.triggers.metrics import TriggerPages
from export_producers.triggers.redis_stream import Consumer, ConsumerGroup, RedisStreamTrigger
from export_worker.config import Config
from export_worker.config import triggers as settings_of
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor, reveal
from export_worker.redis.client import PRODUCER_RETRIES, close_redis, commands, open_redis
from export_worker.wiring.brokers import import_broker
from export_worker.wiring.queue import build_queue
from export_worker.wiring.redis import open_probe_redis, open_stream_redis
from export_worker.wiring.trigger_templates import configured_trigger


@asynccontextmanager
async def open_trigger(
    config: Config, name: str, redactor: Redactor, stop: asyncio.Event
) -> AsyncIterator[tuple[Trigger, TriggerPages]]:
    """Opens one trigger with its health pages, and closes its clients at the end of the block.

    Args:
        name: The trigger of the section `triggers.NAME`.
        redactor: Masks secrets in the dead letters. Receives the AWS credentials of a trigger that reads SQS.
        stop: Ends every wait for Redis or for the source of messages.

    Raises:
        InvalidRequestError: No trigger of this name is configured.
        ConfigError: The template is wrong, a secret is missing, or a broker's extra is not installed.
    """
    configured = configured_trigger(config, name)
    settings, section, keys = config.triggers[name], f"triggers.{name}", Keys(config.namespace)
    if isinstance(settings, settings_of.SqsTrigger):
        aws = await asyncio.to_thread(import_module, "export_worker.wiring.aws")  # boto3 is large
        await aws.mask_aws_credentials(redactor, section)
    redis = open_redis(config.redis_url, home=keys.home)
    try:
        async with (
            build_queue(config) as queue,
            open_probe_redis(config) as probe,
            _open_stream(config, settings, redis) as stream,
            _open_stream(config, settings, probe, retries=0) as stream_probe,
        ):
            pages = TriggerPages(name, probe, keys, _consumer_group(settings), stream_probe)
            dead_letters = DeadLetters(redis, keys.dead(name), redactor.text)
            intake = Intake(
                name,
                queue=queue,
                dead_letters=dead_letters,
                template=configured.template,
                stop=stop,
                on_outcome=pages.count,
            )
            pages.intake = intake
            yield build_trigger(section, settings, stream, intake), pages
    finally:
        await close_redis(redis)


async def announce_trigger(config: Config, name: str) -> None:
    """Writes the type and the stream of a trigger to Redis, for the overview. Without Redis, it is left out there."""
    settings = config.triggers[name]
    group = _consumer_group(settings)
    about = {"type": settings.type} | ({} if group is None else {"stream": group.stream, "group": group.name})
    with suppress(RedisError, OSError):
        async with open_probe_redis(config) as redis:
            await commands(redis).hset(Keys(config.namespace).triggers, mapping={name: dumps(about)})


@asynccontextmanager
async def _open_stream(
    config: Config, settings: settings_of.AnyTrigger, shared: ArqRedis, *, retries: int = PRODUCER_RETRIES
) -> AsyncIterator[ArqRedis]:
    """Yields the client for the trigger's stream: the shared one unless Redis is a cluster."""
    if isinstance(settings, settings_of.RedisStreamTrigger):
        async with open_stream_redis(config, settings.stream, shared, retries=retries) as redis:
            yield redis
    else:
        yield shared


def build_trigger(section: str, settings: settings_of.AnyTrigger, redis: ArqRedis, intake: Intake) -> Trigger:
    """Returns one trigger.

    Args:
        section: The section of the configuration, for errors, e.g. `triggers.segment-ready`.

    Raises:
        ConfigError: A secret is missing, or a broker's extra is not installed.
    """
    match settings:
        case settings_of.RedisStreamTrigger():
            return RedisStreamTrigger(redis, intake, _consumer(settings))
        case settings_of.SqsTrigger():
            return _sqs_trigger(settings, intake)
        case settings_of.BrokerTrigger():
            return BrokerTrigger(intake, _subscribe(section, settings))
        case _:
            assert_never(settings)


def _sqs_trigger(settings: settings_of.SqsTrigger, intake: Intake) -> Trigger:
    # boto3 is large, and other triggers do not need it.
    from export_producers.triggers.sqs import SqsTrigger  # noqa: PLC0415
    from export_worker.wiring.aws import new_sqs_client  # noqa: PLC0415

    return SqsTrigger(
        intake,
        queue_url=settings.queue_url,
        new_client=partial(new_sqs_client, settings.region, settings.endpoint_url),
        visibility_s=settings.visibility_s,
        wait_s=settings.wait_s,
    )


def _consumer_group(settings: settings_of.AnyTrigger) -> ConsumerGroup | None:
    """Returns the consumer group of a trigger that reads a Redis stream, else None."""
    if isinstance(settings, settings_of.RedisStreamTrigger):
        return ConsumerGroup(settings.stream, settings.group)
    return None


def _consumer(settings: settings_of.RedisStreamTrigger) -> Consumer:
    """Returns this process as a consumer of the trigger's group."""
    return Consumer(
        ConsumerGroup(settings.stream, settings.group),
        name=f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}",
        field="request" if settings.request is None else "event",
        claim_after_s=settings.claim_after_s,
    )


def _subscribe(section: str, settings: settings_of.BrokerTrigger) -> Callable[[Accept], Subscribed]:
    """Returns a function that subscribes to the broker."""
    url = reveal(settings.url, f"{section}.url")
    module = import_broker("export_producers.triggers.brokers", settings.broker, section)
    match settings.broker:
        case "rabbitmq":
            return partial(module.subscribe, url, settings.source)
        case "nats":
            return partial(module.subscribe, url, settings.source, settings.group, settings.stream)
        case "kafka":
            return partial(module.subscribe, url, settings.source, settings.group)

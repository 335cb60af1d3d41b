"""Builds message triggers from the configuration."""

import os
import socket
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, assert_never
from uuid import uuid4

from arq.connections import ArqRedis

from export_producers.triggers.brokers.trigger import Accept, BrokerTrigger, Subscribed
from export_producers.triggers.intake import Intake, Trigger
from export_producers.triggers.redis_stream import Consumer, ConsumerGroup, RedisStreamTrigger
from export_producers.triggers.sqs import SqsTrigger
from export_worker.config import triggers as settings_of
from export_worker.credentials import reveal
from export_worker.errors import ConfigError


def build_trigger(place: str, settings: settings_of.AnyTrigger, redis: ArqRedis, intake: Intake) -> Trigger:
    """One trigger.

    Args:
        place: The section, for errors.

    Raises:
        ConfigError: A secret is missing, or a broker's extra is not installed.
    """
    match settings:
        case settings_of.RedisStreamTrigger():
            return RedisStreamTrigger(redis, intake, _consumer(settings))
        case settings_of.SqsTrigger():
            return SqsTrigger(
                intake,
                queue_url=settings.queue_url,
                region=settings.region,
                endpoint_url=settings.endpoint_url,
                visibility_s=settings.visibility_s,
                wait_s=settings.wait_s,
            )
        case settings_of.BrokerTrigger():
            return BrokerTrigger(intake, _subscribe(place, settings))
        case _:
            assert_never(settings)


def consumer_group(settings: settings_of.AnyTrigger) -> ConsumerGroup | None:
    """Return the consumer group of a trigger that reads a Redis stream, else None."""
    if isinstance(settings, settings_of.RedisStreamTrigger):
        return ConsumerGroup(settings.stream, settings.group)
    return None


def _consumer(settings: settings_of.RedisStreamTrigger) -> Consumer:
    return Consumer(
        ConsumerGroup(settings.stream, settings.group),
        name=f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}",
        field="request" if settings.request is None else "event",
        claim_after_s=settings.claim_after_s,
    )


def _subscribe(place: str, settings: settings_of.BrokerTrigger) -> Callable[[Accept], Subscribed]:
    url = reveal(settings.url, f"{place}.url")
    module: Any
    try:
        module = import_module(f"export_producers.triggers.brokers.{settings.broker}")
    except ImportError:
        advice = f"pip install 'export-worker[{settings.broker}]'"
        raise ConfigError(f"{place}: the client for {settings.broker} is not installed: {advice}") from None
    match settings.broker:
        case "rabbitmq":
            return partial(module.subscribe, url, settings.source)
        case "nats":
            return partial(module.subscribe, url, settings.source, settings.group, settings.stream)
        case "kafka":
            return partial(module.subscribe, url, settings.source, settings.group)

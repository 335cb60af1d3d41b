"""`export-worker trigger`: takes messages, and enqueues the exports that they ask for."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, assert_never
from uuid import uuid4

import click
import structlog
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.options import TEXT
from export_producers.triggers.broker import BrokerTrigger, Subscribed, Take
from export_producers.triggers.intake import Intake, Trigger
from export_producers.triggers.redis_stream import RedisStreamTrigger
from export_producers.triggers.sqs import SqsTrigger
from export_producers.triggers.template import Template
from export_worker.commands.run import LEVELS
from export_worker.commands.trigger_pages import TriggerPages
from export_worker.config import Config, load_config
from export_worker.config import triggers as settings_of
from export_worker.connect import close_redis, first_contact, open_redis
from export_worker.contract.keys import Keys
from export_worker.credentials import reveal
from export_worker.errors import ConfigError, FieldProblem, InvalidRequestError
from export_worker.health import pages_served
from export_worker.landings import learn_aws_secrets
from export_worker.runtime import build_redactor
from export_worker.telemetry import configure_logging

_log = structlog.get_logger(__name__)


@click.command()
@click.argument("name", type=TEXT)
@click.option("--log-level", type=click.Choice(LEVELS), default="INFO", show_default=True)
def trigger(name: str, *, log_level: str) -> None:
    """Take messages from the place that [triggers.NAME] describes, and enqueue the exports that they ask for."""
    config = load_config()
    redactor = build_redactor(config)
    configure_logging(redactor, log_level)
    settings = config.triggers.get(name)
    if settings is None:
        known = ", ".join(sorted(config.triggers)) or "none is configured"
        raise InvalidRequestError([FieldProblem("NAME", f"unknown trigger {name!r}; known: {known}")])
    if isinstance(settings, settings_of.SqsTrigger):
        learn_aws_secrets(redactor)
    place = f"triggers.{name}"
    template = Template(f"{place}.request", settings.request) if settings.request is not None else None

    async def work() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, stop.set)
        await serve(config, name, template, stop)

    asyncio.run(work())


async def serve(config: Config, name: str, template: Template | None, stop: asyncio.Event) -> None:
    """Run one trigger until told to stop.

    Raises:
        ConfigError: A secret is missing, or a broker's extra is not installed.
        ServiceUnreachableError: Redis cannot be reached when the trigger starts.
    """
    redis = open_redis(config.redis_url)
    asked = open_redis(config.redis_url, retries=0, max_connections=2)
    queue = ExportQueue(config.redis_url, namespace=config.namespace, connections=config.platforms() or None)
    try:
        keys = Keys(config.namespace)
        pages = TriggerPages(name, asked, keys, config.triggers[name])
        intake = Intake(name, queue=queue, redis=redis, keys=keys, template=template, stop=stop, told=pages.count)
        pages.intake = intake
        running = build_trigger(f"triggers.{name}", config.triggers[name], redis, intake)
        await first_contact(config.redis_url, stop)
        async with pages_served(pages, config.worker.health_host, config.worker.health_port):
            _log.info("trigger.started", trigger=name)
            await running.run(stop)
        _log.info("trigger.stopped", trigger=name)
    finally:
        await queue.close()
        await close_redis(redis)
        await close_redis(asked)


def build_trigger(place: str, settings: settings_of.AnyTrigger, redis: ArqRedis, intake: Intake) -> Trigger:
    """One trigger.

    Args:
        place: The section, for errors.

    Raises:
        ConfigError: A secret is missing, or a broker's extra is not installed.
    """
    match settings:
        case settings_of.RedisStreamTrigger():
            return RedisStreamTrigger(
                redis,
                intake,
                stream=settings.stream,
                group=settings.group,
                consumer=f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}",
                field="request" if settings.request is None else "event",
                claim_after_s=settings.claim_after_s,
            )
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


def _subscribe(place: str, settings: settings_of.BrokerTrigger) -> Callable[[Take], Subscribed]:
    url = reveal(settings.url, f"{place}.url")
    module: Any
    try:
        module = import_module(f"export_producers.triggers.broker_{settings.broker}")
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

"""`export-worker trigger`: takes messages, and enqueues the exports that they ask for."""

import asyncio
import signal

import click
import structlog

from export_producers.client import ExportQueue
from export_producers.commands.options import TEXT
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.intake import Intake
from export_producers.triggers.metrics import TriggerPages
from export_producers.triggers.template import Template
from export_worker.commands.run import LEVELS
from export_worker.config import Config, load_config
from export_worker.config import triggers as settings_of
from export_worker.contract.redis_keys import Keys
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.redis.client import close_redis, open_redis, wait_for_redis
from export_worker.telemetry.health_pages import pages_served
from export_worker.telemetry.logs import configure_logging
from export_worker.wiring.secrets import build_redactor, learn_aws_secrets
from export_worker.wiring.triggers import build_trigger, consumer_group

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
        dead_letters = DeadLetters(redis, keys.dead(name))
        pages = TriggerPages(name, asked, keys, consumer_group(config.triggers[name]))
        pages.intake = intake = Intake(
            name, queue=queue, dead_letters=dead_letters, template=template, stop=stop, on_outcome=pages.count
        )
        running = build_trigger(f"triggers.{name}", config.triggers[name], redis, intake)
        await wait_for_redis(config.redis_url, stop)
        async with pages_served(pages, config.worker.health_host, config.worker.health_port):
            _log.info("trigger.started", trigger=name)
            await running.run(stop)
        _log.info("trigger.stopped", trigger=name)
    finally:
        await queue.close()
        await close_redis(redis)
        await close_redis(asked)

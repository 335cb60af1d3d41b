"""Sinks: whether events would be taken, found out without one."""

import asyncio

from botocore.exceptions import BotoCoreError

from export_worker.config.sinks import AnySink, BrokerSink, RedisStreamSink, WebhookSink
from export_worker.credentials import Redactor
from export_worker.doctor.finding import Finding, good, unreachable, warning, wrong
from export_worker.errors import ConfigError
from export_worker.redis.client import Commands
from export_worker.sinks.base import Checking, Sink, SinkDeniedError, SinkDisabledError, SinkError, SinkNotFoundError
from export_worker.wiring.sinks import build_sink

PATIENCE_S = 30.0


async def check_sink(name: str, settings: AnySink, redis: Commands, redactor: Redactor) -> Finding:
    """One sink."""
    return await check_place(f"sink {name}", f"sinks.{name}", settings, redis, redactor)


async def check_place(about: str, place: str, settings: AnySink, redis: Commands, redactor: Redactor) -> Finding:
    """One sink, or what a trigger reads, seen as one.

    Args:
        about: What the finding is about.
        place: The section, for errors.
    """
    try:
        sink = build_sink(place, settings, redis)
    except ConfigError as error:
        return wrong(about, redactor.text(str(error)), "correct this setting")
    except (BotoCoreError, ValueError) as error:
        return wrong(about, redactor.text(str(error)), f"look at {place} and at the AWS_ variables")
    try:
        return await _looked(about, place, sink, settings)
    except SinkError as error:
        return _told(about, place, redactor.text(str(error)), error, settings)
    finally:
        await sink.close()


async def _looked(about: str, place: str, sink: Sink, settings: AnySink) -> Finding:
    if not isinstance(sink, Checking):
        return warning(about, "cannot be tried without an event", "end an export, and look whether its event arrives")
    try:
        async with asyncio.timeout(PATIENCE_S):
            return good(about, await sink.check())
    except TimeoutError:
        return unreachable(about, f"no answer within {PATIENCE_S:.0f} s", _reach(place, settings))


def _told(about: str, place: str, says: str, error: SinkError, settings: AnySink) -> Finding:
    match error:
        case SinkDeniedError() if isinstance(settings, RedisStreamSink):
            return wrong(about, says, "give the user the rights that k8s/README.md lists")
        case SinkDeniedError():
            # Looking is another right than delivering, which only an event would show.
            return warning(about, says, "allow this call, to have it checked")
        case SinkNotFoundError():
            return wrong(about, says, f"correct {place}, or make what it names")
        case SinkDisabledError():
            return wrong(about, says, f"correct {place}.url, or take this sink out")
        case _:
            return unreachable(about, says, _reach(place, settings))


def _reach(place: str, settings: AnySink) -> str:
    """What to look at when there is no answer."""
    match settings:
        case RedisStreamSink():
            return "see the lines about redis"
        case WebhookSink():
            return f"is {place}.url right, and the receiver up?"
        case BrokerSink():
            return f"is {place}.url right, and the broker up?"
        case _:
            return f"are region and endpoint_url of {place} right, and the AWS_ variables?"

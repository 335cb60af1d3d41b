"""Checks sinks: whether each would accept an event. No event is sent."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from export_worker.config.sinks import AnySink, BrokerSink, RedisStreamSink, WebhookSink
from export_worker.config.triggers import BrokerTrigger, SqsTrigger
from export_worker.credentials import Redactor
from export_worker.doctor.finding import Finding, good, split_advice, unreachable, warning, wrong
from export_worker.doctor.redis import FIX_PERMISSIONS
from export_worker.errors import ConfigError
from export_worker.sinks.base import (
    Checking,
    Sink,
    SinkDeniedError,
    SinkDisabledError,
    SinkError,
    SinkNotFoundError,
    SinkUnconnectedError,
)

CHECK_TIMEOUT_S = 30.0

SinkOpener = Callable[[str], AbstractAsyncContextManager[Sink]]
"""Builds a sink by its name and closes it at the end. Raises ConfigError if its settings are wrong."""
Endpoint = AnySink | SqsTrigger | BrokerTrigger
"""Settings of a sink, or of a trigger's source that is checked in the same way."""


async def check_sink(name: str, settings: AnySink, open_sink: SinkOpener, redactor: Redactor) -> Finding:
    """Checks one sink.

    Args:
        name: Name of the sink.
        settings: The sink's settings, which determine the advice.
        open_sink: Opens the sink.
        redactor: Masks the secrets in error messages.
    """
    return await check_endpoint(f"sink {name}", f"sinks.{name}", settings, open_sink(name), redactor)


async def check_endpoint(
    about: str,
    section: str,
    settings: Endpoint,
    opening: AbstractAsyncContextManager[Sink],
    redactor: Redactor,
) -> Finding:
    """Checks one sink, or the source of a trigger that is opened as a sink.

    Args:
        about: What the finding is about.
        section: Section of the configuration, for the advice.
        settings: Settings of the sink or trigger, which determine the advice.
        opening: Opens the sink; raises ConfigError if its settings are wrong.
        redactor: Masks the secrets in error messages.
    """
    try:
        async with opening as sink:
            return await _check(about, section, settings, sink)
    except ConfigError as error:
        says, fix = split_advice(redactor.text(str(error)))
        return wrong(about, says, fix or "correct this setting")
    except SinkError as error:
        return _failure(about, section, redactor.text(str(error)), error, settings)


async def _check(about: str, section: str, settings: Endpoint, sink: Sink) -> Finding:
    if not isinstance(sink, Checking):
        says = "this sink cannot be tested without an event"
        return warning(about, says, "run an export, and check that its event arrives")
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return good(about, await sink.check())
    except TimeoutError:
        return unreachable(about, f"no answer within {CHECK_TIMEOUT_S:.0f} s", _fix_address(section, settings))


def _failure(about: str, section: str, says: str, error: SinkError, settings: Endpoint) -> Finding:
    match error:
        case SinkUnconnectedError():
            return unreachable(about, *split_advice(says))
        case SinkDeniedError() if isinstance(settings, RedisStreamSink):
            return wrong(about, says, FIX_PERMISSIONS)
        case SinkDeniedError():
            # The check needs another permission than the delivery of an event, so events may still be accepted.
            return warning(about, says, "allow this call, so that doctor can check it")
        case SinkNotFoundError():
            return wrong(about, says, f"correct {section}, or create what it names")
        case SinkDisabledError():
            return wrong(about, says, f"correct {section}.url, or remove this sink")
        case _:
            return unreachable(about, says, _fix_address(section, settings))


def _fix_address(section: str, settings: Endpoint) -> str:
    """Returns the advice for a service that does not answer."""
    match settings:
        case RedisStreamSink():
            return "see the findings about redis"
        case WebhookSink():
            return f"check {section}.url, and whether the receiver runs"
        case BrokerSink() | BrokerTrigger():
            return f"check {section}.url, and whether the broker runs"
        case _:
            return f"check region and endpoint_url of {section}, and the AWS_ variables"

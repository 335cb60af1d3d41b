"""Checks triggers: whether the source of each can be read. No message is consumed."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from export_producers.triggers.template import Template
from export_worker.config.triggers import AnyTrigger, BrokerTrigger, RedisStreamTrigger, SqsTrigger
from export_worker.credentials import Redactor
from export_worker.doctor.finding import Finding, good, unreachable, wrong
from export_worker.doctor.redis import FIX_PERMISSIONS
from export_worker.doctor.sinks import check_endpoint
from export_worker.errors import ConfigError
from export_worker.sinks.base import Sink

CHECK_TIMEOUT_S = 10.0

StreamOpener = Callable[[str], AbstractAsyncContextManager[ArqRedis]]
"""Opens a client for the stream with this name."""
SourceOpener = Callable[[str], AbstractAsyncContextManager[Sink]]
"""Opens, as a sink, the queue or broker of the trigger with this name. Raises ConfigError."""


async def check_trigger(
    name: str, settings: AnyTrigger, open_stream: StreamOpener, open_source: SourceOpener, redactor: Redactor
) -> Finding:
    """Checks one trigger.

    Args:
        name: Name of the trigger.
        settings: Its settings.
        open_stream: Opens a client for triggers that read a stream of Redis.
        open_source: Opens the source of all other triggers.
        redactor: Masks the secrets in error messages.
    """
    about, section = f"trigger {name}", f"triggers.{name}"
    if settings.request is not None:
        try:
            Template(f"{section}.request", settings.request)
        except ConfigError as error:
            return wrong(about, redactor.text(str(error)), "correct this template")
    match settings:
        case RedisStreamTrigger():
            async with open_stream(settings.stream) as redis:
                return await _check_stream(about, section, settings.stream, redis)
        case SqsTrigger() | BrokerTrigger():
            return await check_endpoint(about, section, settings, open_source(name), redactor)


def _stream_commands(stream: str) -> dict[str, tuple[str, ...]]:
    """Returns the commands that a trigger runs, with arguments that change nothing.

    Redis checks the user's permissions first, so NoPermissionError shows a missing permission. No command changes the
    stream: XINFO and XRANGE only read, `no-id` is not a valid id, and the others name a group that does not exist.
    """
    group = f"export-worker-doctor-{uuid4().hex[:12]}"
    return {
        "XINFO CONSUMERS": (stream, group),
        "XINFO GROUPS": (stream,),
        "XRANGE": (stream, "-", "-"),
        "XGROUP CREATE": (stream, group, "no-id"),
        "XGROUP DELCONSUMER": (stream, group, "doctor"),
        "XREADGROUP": ("GROUP", group, "doctor", "COUNT", "1", "STREAMS", stream, ">"),
        "XAUTOCLAIM": (stream, group, "doctor", "0", "0-0"),
        "XACK": (stream, group, "0-0"),
    }


async def _check_stream(about: str, section: str, stream: str, redis: ArqRedis) -> Finding:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            replies = await _replies(redis, stream)
    except (RedisError, OSError) as error:
        return unreachable(about, f"stream {stream} cannot be read: {error}", "see the findings about redis")
    refused = [name for name, reply in replies.items() if isinstance(reply, NoPermissionError)]
    if refused:
        return wrong(about, f"the user may not run {', '.join(refused)} on stream {stream}", FIX_PERMISSIONS)
    errors = [str(reply) for reply in replies.values() if isinstance(reply, ResponseError)]
    if any("WRONGTYPE" in error for error in errors):
        return wrong(about, f"the key {stream} exists, but is not a stream", f"correct {section}.stream")
    if any("no such key" in error for error in errors):
        return good(about, f"stream {stream} can be read (it does not exist yet; the trigger creates it)")
    return good(about, f"stream {stream} can be read")


async def _replies(redis: ArqRedis, stream: str) -> dict[str, Any]:
    commands = _stream_commands(stream)
    async with redis.pipeline(transaction=False) as pipe:
        for name, arguments in commands.items():
            pipe.execute_command(*name.split(), *arguments)
        replies = await pipe.execute(raise_on_error=False)
    return dict(zip(commands, replies, strict=True))

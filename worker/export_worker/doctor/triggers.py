"""Triggers: whether what they read can be read, found out without taking a message."""

import asyncio
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from export_producers.triggers.template import Template
from export_worker.config.sinks import AnySink, BrokerSink, SqsSink
from export_worker.config.triggers import AnyTrigger, BrokerTrigger, RedisStreamTrigger, SqsTrigger
from export_worker.credentials import Redactor
from export_worker.doctor.finding import Finding, good, unreachable, wrong
from export_worker.doctor.sinks import check_place
from export_worker.errors import ConfigError
from export_worker.redis.client import commands

PATIENCE_S = 10.0
UNTOUCHED = "amq.direct"
"""An exchange that every RabbitMQ has: with one named, connecting declares no queue."""


async def check_trigger(name: str, settings: AnyTrigger, redis: ArqRedis, redactor: Redactor) -> Finding:
    """One trigger."""
    about, place = f"trigger {name}", f"triggers.{name}"
    if settings.request is not None:
        try:
            Template(f"{place}.request", settings.request)
        except ConfigError as error:
            return wrong(about, redactor.text(str(error)), "correct this template")
    match settings:
        case RedisStreamTrigger():
            return await _stream(about, place, settings, redis)
        case SqsTrigger() | BrokerTrigger():
            return await check_place(about, place, _as_sink(settings), commands(redis), redactor)


def _as_sink(settings: SqsTrigger | BrokerTrigger) -> AnySink:
    """What is read, as a sink would write to it: it is reached in the same way."""
    if isinstance(settings, SqsTrigger):
        place = {"region": settings.region, "endpoint_url": settings.endpoint_url}
        return SqsSink(type="sqs", queue_url=settings.queue_url, **place)
    return BrokerSink(
        type="broker",
        broker=settings.broker,
        url=settings.url,
        destination=settings.source,
        exchange=UNTOUCHED if settings.broker == "rabbitmq" else None,
        stream=settings.stream,
    )


def _commands(stream: str) -> dict[str, tuple[str, ...]]:
    """What a trigger sends, about a group that nobody has: it is refused, but only after the user's rights."""
    nobody = f"export-worker-doctor-{uuid4().hex[:12]}"
    return {
        "XINFO CONSUMERS": (stream, nobody),
        "XINFO GROUPS": (stream,),
        "XRANGE": (stream, "-", "-"),
        "XGROUP CREATE": (stream, nobody, "no-id"),
        "XGROUP DELCONSUMER": (stream, nobody, "doctor"),
        "XREADGROUP": ("GROUP", nobody, "doctor", "COUNT", "1", "STREAMS", stream, ">"),
        "XAUTOCLAIM": (stream, nobody, "doctor", "0", "0-0"),
        "XACK": (stream, nobody, "0-0"),
    }


async def _stream(about: str, place: str, settings: RedisStreamTrigger, redis: ArqRedis) -> Finding:
    try:
        async with asyncio.timeout(PATIENCE_S):
            answers = await _answers(redis, settings.stream)
    except (RedisError, OSError) as error:
        return unreachable(about, f"stream {settings.stream}: {error}", "see the lines about redis")
    refused = [name for name, answer in answers.items() if isinstance(answer, NoPermissionError)]
    if refused:
        says = f"the user may not {', '.join(refused)} on stream {settings.stream}"
        return wrong(about, says, "give the user the rights that k8s/README.md lists")
    told = [str(answer) for answer in answers.values() if isinstance(answer, ResponseError)]
    if any("WRONGTYPE" in text for text in told):
        return wrong(about, f"the key {settings.stream} is there, and is no stream", f"correct {place}.stream")
    if any("no such key" in text for text in told):
        return good(about, f"may read stream {settings.stream}, which is not there yet: the trigger makes it")
    return good(about, f"may read stream {settings.stream}")


async def _answers(redis: ArqRedis, stream: str) -> dict[str, Any]:
    tried = _commands(stream)
    async with redis.pipeline(transaction=False) as pipe:
        for name, rest in tried.items():
            pipe.execute_command(*name.split(), *rest)
        answers = await pipe.execute(raise_on_error=False)
    return dict(zip(tried, answers, strict=True))

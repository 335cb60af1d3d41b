"""`export-worker doctor`: whether everything that a worker needs is there, and what to do where it is not.

Exit status: 0 all is well (warnings may stand) · 2 something is set wrong · 4 something cannot be reached.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from functools import partial

import click

from export_worker.config import DEFAULT_FILE, Config, ignored_variables, load_config, settings_file
from export_worker.config.sinks import RedisStreamSink
from export_worker.config.triggers import RedisStreamTrigger
from export_worker.contract.printable import clean, dumps
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor, reveal
from export_worker.doctor.connections import check_connection
from export_worker.doctor.finding import Finding, good, unreachable, warning, wrong
from export_worker.doctor.redis import check_redis
from export_worker.doctor.s3 import check_s3
from export_worker.doctor.sinks import check_sink
from export_worker.doctor.triggers import check_trigger
from export_worker.doctor.workers import check_workers
from export_worker.errors import ConfigError
from export_worker.platforms.base import Driver
from export_worker.redis.client import close_redis, commands, open_redis
from export_worker.s3.client import CallLimits, build_client
from export_worker.s3.settings import BUCKET_DEFAULTS, StorageSettings
from export_worker.sinks.base import Sink
from export_worker.wiring.connections import open_driver
from export_worker.wiring.secrets import aws_settings, build_redactor, learn_aws_secrets
from export_worker.wiring.sinks import open_sink, open_trigger_source
from export_worker.wiring.storage import per_connection_storage

READ_TIMEOUT_S = 10.0
"""Of S3, which answers a scratch object sooner than a very large upload; each call is tried twice."""
WAYS_AT_ONCE = 32
MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def doctor(*, as_json: bool) -> None:
    """Check the configuration, Redis, S3, connections, sinks, triggers and the workers, for real."""
    findings = asyncio.run(_told(as_json=as_json))
    status = max((finding.status for finding in findings), default=0)
    if as_json:
        click.echo(dumps({"ok": status == 0, "findings": [finding.document() for finding in findings]}))
    raise click.exceptions.Exit(status)


async def _told(*, as_json: bool) -> list[Finding]:
    findings = []
    async with aclosing(_examine()) as examined:
        async for finding in examined:
            findings.append(finding)
            if not as_json:
                fix = f" -> {finding.fix}" if finding.fix else ""
                click.echo(clean(f"{MARKS[finding.level]} {finding.about}: {finding.says}{fix}"))
    return findings


async def _examine() -> AsyncGenerator[Finding, None]:
    """All that is to be said, in order. Everything is asked at once: the slowest of them is what it takes."""
    try:
        config = load_config()
    except ConfigError as error:
        for problem in error.problems:
            says, _, mend = problem.partition("; ")
            yield wrong("configuration", says, mend or "correct this setting")
        return
    redactor = build_redactor(config)
    for finding in _configuration(config):
        yield finding
    redis = asyncio.create_task(_whole("redis", _redis(config), redactor))
    parts = [
        redis,
        asyncio.create_task(_whole("s3", _s3(config, redactor), redactor)),
        asyncio.create_task(_whole("connections", _connections(config, redactor), redactor)),
        asyncio.create_task(_whole("sinks and triggers", _events(config, redactor, redis), redactor)),
    ]
    for part in parts:
        for finding in await part:
            yield finding


async def _whole(about: str, part: Awaitable[list[Finding]], redactor: Redactor) -> list[Finding]:
    """One part of the report. Whatever breaks in it must not keep the others from being told."""
    try:
        return await part
    except ConfigError as error:
        return [wrong(about, redactor.text(str(error)), "correct this setting")]
    except Exception as error:  # noqa: BLE001 - see above; checks tell what they foresee themselves
        says = redactor.text(f"could not be looked at to its end ({type(error).__name__}: {error})")
        return [unreachable(about, says, "mend what the other lines name first; should it stay, report it")]


def _configuration(config: Config) -> list[Finding]:
    read = settings_file() or f"there is no {DEFAULT_FILE}; from EXPORT_ variables alone"
    found = [good("configuration", f"every setting is known ({read})")]
    for name in ignored_variables(os.environ):
        mend = "correct its name (export-worker schema config lists them all), or take it away"
        found.append(warning("configuration", f"{name} names no setting and is passed over", mend))
    return found + _secrets(config)


def _secrets(config: Config) -> list[Finding]:
    findings = []
    for setting, secret in config.secrets():
        try:
            reveal(secret, setting)
        except ConfigError as error:
            if setting.startswith("gateway."):
                findings.append(
                    warning("configuration", str(error), "set it where the gateway runs; nobody else needs it")
                )
            else:
                findings.append(wrong("configuration", str(error), "set it, or change the reference"))
    return findings


async def _redis(config: Config) -> list[Finding]:
    redis, keys = open_redis(config.redis_url, retries=0, max_connections=4), Keys(config.namespace)
    try:
        findings = [finding async for finding in check_redis(redis, keys, config.redis_url)]
        return findings + (await check_workers(redis, keys) if _is_well(findings) else [])
    finally:
        await close_redis(redis)


def _is_well(findings: list[Finding]) -> bool:
    return all(finding.level != "error" for finding in findings)


async def _connections(config: Config, redactor: Redactor) -> list[Finding]:
    if not config.connections:
        return [warning("connections", "none is configured here", "add a section [connections.NAME]")]

    def opened(name: str) -> AbstractAsyncContextManager[Driver]:
        return open_driver(config, name, redactor)

    checks = (
        check_connection(name, settings.platform, opened, redactor) for name, settings in config.connections.items()
    )
    return list(await asyncio.gather(*checks))


async def _events(config: Config, redactor: Redactor, looked: Awaitable[list[Finding]]) -> list[Finding]:
    """Where events go, and where messages come from; streams only in a Redis of which nothing bad was told."""
    redis_well = _is_well(await looked)
    redis = open_redis(config.redis_url, retries=0, max_connections=4)

    def sink_opened(name: str) -> AbstractAsyncContextManager[Sink]:
        return open_sink(config, name, commands(redis))

    def source_opened(name: str) -> AbstractAsyncContextManager[Sink]:
        return open_trigger_source(config, name, commands(redis))

    try:
        sinks = (
            check_sink(name, sink, sink_opened, redactor)
            for name, sink in config.sinks.items()
            if redis_well or not isinstance(sink, RedisStreamSink)
        )
        triggers = (
            check_trigger(name, trigger, redis, source_opened, redactor)
            for name, trigger in config.triggers.items()
            if redis_well or not isinstance(trigger, RedisStreamTrigger)
        )
        return await asyncio.gather(*sinks, *triggers)
    finally:
        await close_redis(redis)


async def _s3(config: Config, redactor: Redactor) -> list[Finding]:
    """As `[s3]` says, and as each connection says that stores in a way of its own; equal ways are tried once."""
    own = per_connection_storage(config)
    ways = [] if own and own.keys() == config.connections.keys() else [(["s3"], BUCKET_DEFAULTS.merged_over(config.s3))]
    for name, storing in own.items():
        names = next((names for names, known in ways if known == storing), None)
        if names is None:
            ways.append(([f"connections.{name}.s3"], storing))
        else:
            names.append(f"connections.{name}.s3")
    turns = asyncio.Semaphore(WAYS_AT_ONCE)

    async def tried(names: list[str], storing: StorageSettings) -> list[Finding]:
        async with turns:
            return [replace(finding, about=", ".join(names)) for finding in await _storing(config, redactor, storing)]

    looks = await asyncio.gather(*(_whole(", ".join(way[0]), tried(*way), redactor) for way in ways))
    return [finding for look in looks for finding in look]


async def _storing(config: Config, redactor: Redactor, storing: StorageSettings) -> list[Finding]:
    limits = CallLimits(attempts=2, read_timeout_s=READ_TIMEOUT_S)
    build = partial(build_client, limits=limits, settings=storing, on_secret=redactor.add)
    try:
        with aws_settings():
            await asyncio.to_thread(learn_aws_secrets, redactor)
            client = await asyncio.to_thread(build, config.s3.region, config.s3.endpoint_url, 1)
    except ConfigError as error:
        says, _, mend = redactor.text(str(error)).partition("; ")
        return [wrong("s3", says.removeprefix("s3: "), mend)]
    try:
        return await check_s3(client, config.s3.bucket, config.s3.prefix)
    finally:
        client.close()

"""`export-worker doctor`: whether everything that a worker needs is there, and what to do where it is not.

Exit status: 0 all is well (warnings may stand) · 2 something is set wrong · 4 something cannot be reached.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial

import click
from botocore.exceptions import BotoCoreError

from export_worker.config import Config, load_config
from export_worker.config.sinks import RedisStreamSink
from export_worker.config.triggers import RedisStreamTrigger
from export_worker.connect import close_redis, commands, open_redis
from export_worker.contract.keys import Keys
from export_worker.contract.printable import clean, dumps
from export_worker.credentials import Redactor, reveal
from export_worker.doctor.finding import Finding, good, warning, wrong
from export_worker.doctor.platforms import check_connection
from export_worker.doctor.redis import check_redis
from export_worker.doctor.s3 import check_s3
from export_worker.doctor.sinks import check_sink
from export_worker.doctor.triggers import check_trigger
from export_worker.doctor.workers import check_workers
from export_worker.errors import ConfigError
from export_worker.landings import learn_aws_secrets, ways_of_storing
from export_worker.runtime import build_redactor
from export_worker.transfer.client import build_client
from export_worker.transfer.storing import StoringSettings

MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def doctor(*, as_json: bool) -> None:
    """Check the configuration, Redis, S3, connections, sinks, triggers and the workers, for real."""
    findings = asyncio.run(_told(as_json=as_json))
    status = max((finding.status for finding in findings), default=0)
    if as_json:
        told = [{name: value for name, value in asdict(finding).items() if name != "status"} for finding in findings]
        click.echo(dumps({"ok": status == 0, "findings": told}))
    raise click.exceptions.Exit(status)


async def _told(*, as_json: bool) -> list[Finding]:
    findings = []
    async with aclosing(_examine()) as examined:
        async for finding in examined:
            findings.append(finding)
            if not as_json:
                mend = f" -> {finding.mend}" if finding.mend else ""
                click.echo(clean(f"{MARKS[finding.level]} {finding.about}: {finding.says}{mend}"))
    return findings


async def _examine() -> AsyncGenerator[Finding, None]:
    try:
        config = load_config()
    except ConfigError as error:
        # Each problem names its setting; an unknown one is among them.
        for problem in str(error).split("; "):
            yield wrong("configuration", problem, "correct this setting")
        return
    redactor = build_redactor(config)
    yield good("configuration", "every setting is known")
    for finding in _secrets(config):
        yield finding
    redis_well = True
    async with aclosing(_redis(config)) as looked:
        async for finding in looked:
            redis_well = redis_well and finding.level != "error"
            yield finding
    for finding in await _s3(config, redactor):
        yield finding
    if not config.connections:
        yield warning("connections", "none is configured here", "add a section [connections.NAME]")
    checks = [check_connection(name, settings, redactor) for name, settings in config.connections.items()]
    for finding in (*await asyncio.gather(*checks), *await _events(config, redactor, redis_well=redis_well)):
        yield finding


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


async def _redis(config: Config) -> AsyncGenerator[Finding, None]:
    redis, keys = open_redis(config.redis_url, retries=0, max_connections=4), Keys(config.namespace)
    reached = True
    try:
        async for finding in check_redis(redis, keys, config.redis_url):
            yield finding
            reached = reached and finding.level != "error"
        if reached:
            for finding in await check_workers(redis, keys):
                yield finding
    finally:
        await close_redis(redis)


async def _events(config: Config, redactor: Redactor, *, redis_well: bool) -> list[Finding]:
    """Where events go, and where messages come from; streams only in a Redis of which nothing bad was told before."""
    redis = open_redis(config.redis_url, retries=0, max_connections=4)
    try:
        sinks = (
            check_sink(name, sink, commands(redis), redactor)
            for name, sink in config.sinks.items()
            if redis_well or not isinstance(sink, RedisStreamSink)
        )
        triggers = (
            check_trigger(name, trigger, redis, redactor)
            for name, trigger in config.triggers.items()
            if redis_well or not isinstance(trigger, RedisStreamTrigger)
        )
        return await asyncio.gather(*sinks, *triggers)
    finally:
        await close_redis(redis)


async def _s3(config: Config, redactor: Redactor) -> list[Finding]:
    """As `[s3]` says, and as each connection says that stores in a way of its own."""
    own = ways_of_storing(config)
    findings = [] if own and own.keys() == config.connections.keys() else await _storing(config, redactor, config.s3)
    for name, storing in own.items():
        findings += [
            replace(finding, about=f"connections.{name}.s3") for finding in await _storing(config, redactor, storing)
        ]
    return findings


async def _storing(config: Config, redactor: Redactor, storing: StoringSettings) -> list[Finding]:
    build = partial(build_client, attempts=2, storing=storing, learn=redactor.add)
    try:
        await asyncio.to_thread(learn_aws_secrets, redactor)
        client = await asyncio.to_thread(build, config.s3.region, config.s3.endpoint_url, 1)
    except (BotoCoreError, ValueError) as error:
        return [wrong("s3", redactor.text(str(error)), "look at [s3] and at the AWS_ variables")]
    try:
        return await check_s3(client, config.s3.bucket, config.s3.prefix)
    finally:
        client.close()

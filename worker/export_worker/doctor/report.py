"""The report of `export-worker doctor`: runs every check, and yields the findings in a fixed order."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace

from arq.connections import ArqRedis

from export_worker.config import DEFAULT_FILE, Config, ignored_variables, load_config, settings_file, similar_variable
from export_worker.config.sinks import RedisStreamSink
from export_worker.config.triggers import RedisStreamTrigger
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor, reveal
from export_worker.doctor.archive import check_archive
from export_worker.doctor.breakers import check_breakers
from export_worker.doctor.connections import check_connection
from export_worker.doctor.finding import Finding, good, split_advice, unreachable, warning, wrong
from export_worker.doctor.proxies import unused_proxies
from export_worker.doctor.redis import check_redis
from export_worker.doctor.s3 import TransferTraits, check_s3
from export_worker.doctor.sinks import check_sink
from export_worker.doctor.triggers import check_trigger
from export_worker.doctor.workers import check_workers
from export_worker.errors import ConfigError
from export_worker.platforms.base import Driver
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.sinks.base import Sink
from export_worker.telemetry.logs import configure_logging
from export_worker.wiring.connections import open_driver
from export_worker.wiring.redis import open_probe_redis, open_stream_redis
from export_worker.wiring.secrets import build_redactor
from export_worker.wiring.sinks import open_sink, open_trigger_source
from export_worker.wiring.storage import (
    Destination,
    default_destination,
    open_check_client,
    per_connection_destinations,
)

S3_CHECKS_AT_ONCE = 32
"""Each check runs in its own thread. This bounds the threads of a report with many connections."""


async def examine(environment: Mapping[str, str]) -> AsyncGenerator[Finding, None]:
    """Yields every finding. All checks run at once, so the report takes as long as the slowest of them.

    What libraries log about a failing service goes to stderr, with secrets masked.

    Args:
        environment: The variables of the process.
    """
    try:
        config = load_config()
    except ConfigError as error:
        for problem in error.problems:
            yield _wrong_setting("configuration", problem)
        return
    redactor = build_redactor(config)
    configure_logging(redactor, "ERROR")
    async with aclosing(examined(config, redactor, environment)) as findings:
        async for finding in findings:
            yield finding


async def examined(config: Config, redactor: Redactor, environment: Mapping[str, str]) -> AsyncGenerator[Finding, None]:
    """Yields every finding about the services of a configuration; see `examine`.

    Args:
        redactor: Masks the secrets of the configuration in the findings.
    """
    for finding in _configuration(config, environment):
        yield finding
    redis = asyncio.create_task(_findings_of("redis", queue_findings(config), redactor))
    parts = [
        redis,
        asyncio.create_task(_findings_of("s3", _s3(config, redactor), redactor)),
        asyncio.create_task(_findings_of("connections", _connections(config, redactor), redactor)),
        asyncio.create_task(_findings_of("sinks and triggers", _sinks_and_triggers(config, redactor, redis), redactor)),
    ]
    try:
        for part in parts:
            for finding in await part:
                yield finding
    finally:
        await cancel_and_wait(*parts)


async def _findings_of(about: str, part: Awaitable[list[Finding]], redactor: Redactor) -> list[Finding]:
    """Returns the findings of one part of the report. A part that fails must not hide the findings of the others."""
    try:
        return [_masked(finding, redactor) for finding in await part]
    except ConfigError as error:
        return [_wrong_setting(about, redactor.text(str(error)))]
    except Exception as error:  # noqa: BLE001 - see above; the checks report the errors that they expect
        message = redactor.text(f"could not be checked completely ({type(error).__name__}: {error})")
        return [unreachable(about, message, "fix what the other lines report; if this line stays, report a defect")]


def _masked(finding: Finding, redactor: Redactor) -> Finding:
    """Returns a finding without secrets. A service may repeat them in an error code, and a library in its message."""
    return replace(finding, says=redactor.text(finding.says), fix=redactor.text(finding.fix))


def _wrong_setting(about: str, problem: str) -> Finding:
    """Returns the finding of a configuration error, whose advice follows the first semicolon."""
    message, advice = split_advice(problem)
    return wrong(about, message, advice or "correct this setting")


def _configuration(config: Config, environment: Mapping[str, str]) -> list[Finding]:
    source = settings_file() or f"{DEFAULT_FILE} does not exist; only EXPORT_ variables are used"
    findings = [good("configuration", f"every setting is known ({source})")]
    for name in ignored_variables(environment):
        otherwise = "correct its name (export-worker schema config lists all settings), or remove it"
        advice = similar_variable(name) or otherwise
        findings.append(warning("configuration", f"{name} names no setting and is ignored", advice))
    return findings + _secrets(config) + unused_proxies(config, environment)


def _secrets(config: Config) -> list[Finding]:
    findings = []
    for setting, secret in config.secrets():
        try:
            reveal(secret, setting)
        except ConfigError as error:
            if setting.startswith("gateway."):
                advice = "set it where the gateway runs; no other process needs it"
                findings.append(warning("configuration", str(error), advice))
            else:
                findings.append(wrong("configuration", str(error), "set it, or change the reference"))
    return findings


async def queue_findings(config: Config) -> list[Finding]:
    """Returns the findings about Redis. A gateway with several queues has one for each, and no other."""
    queues = config.gateway.queues
    if not queues:
        return await _one_redis(config)
    configs = [config.model_copy(update={"redis_url": q.redis_url, "namespace": q.namespace}) for q in queues.values()]
    found = await asyncio.gather(*map(_one_redis, configs))
    return [
        replace(finding, about=f"queue {name}: {finding.about}")
        for name, findings in zip(queues, found, strict=True)
        for finding in findings
    ]


async def _one_redis(config: Config) -> list[Finding]:
    keys = Keys(config.namespace)
    async with open_probe_redis(config) as redis:
        findings = [finding async for finding in check_redis(redis, keys, config.redis_url)]
        if _has_no_error(findings):
            findings += await check_workers(redis, keys)
            findings += await check_breakers(redis, keys, list(config.connections))
            if config.worker.archive is not None:
                findings += await check_archive(redis, keys)
        return findings


def _has_no_error(findings: list[Finding]) -> bool:
    return all(finding.level != "error" for finding in findings)


async def _connections(config: Config, redactor: Redactor) -> list[Finding]:
    if not config.connections:
        return [warning("connections", "none is configured here", "add a section [connections.NAME]")]

    def open_connection(name: str) -> AbstractAsyncContextManager[Driver]:
        return open_driver(config, name, redactor)

    checks = (
        check_connection(name, platform, open_connection, redactor) for name, platform in config.platforms().items()
    )
    return list(await asyncio.gather(*checks))


async def _sinks_and_triggers(
    config: Config, redactor: Redactor, queue_findings: Awaitable[list[Finding]]
) -> list[Finding]:
    """Checks sinks and triggers; Redis streams only if the checks of Redis found no error."""
    redis_works = _has_no_error(await queue_findings)
    async with open_probe_redis(config) as redis:

        def open_named_sink(name: str) -> AbstractAsyncContextManager[Sink]:
            return open_sink(config, name, redis, redactor)

        def open_source(name: str) -> AbstractAsyncContextManager[Sink]:
            return open_trigger_source(config, name, redis, redactor)

        sinks = (
            check_sink(name, sink, open_named_sink, redactor)
            for name, sink in config.sinks.items()
            if redis_works or not isinstance(sink, RedisStreamSink)
        )

        def open_stream(name: str) -> AbstractAsyncContextManager[ArqRedis]:
            return open_stream_redis(config, name, redis, retries=0)

        triggers = (
            check_trigger(name, trigger, open_stream, open_source, redactor)
            for name, trigger in config.triggers.items()
            if redis_works or not isinstance(trigger, RedisStreamTrigger)
        )
        return await asyncio.gather(*sinks, *triggers)


async def _s3(config: Config, redactor: Redactor) -> list[Finding]:
    """Checks S3 with the settings of `[s3]` and with those of each connection that overrides them."""
    limit = asyncio.Semaphore(S3_CHECKS_AT_ONCE)

    async def check(sections: list[str], destination: Destination) -> list[Finding]:
        async with limit:
            findings = await _check_storage(config, redactor, destination)
        return [replace(finding, about=", ".join(sections)) for finding in findings]

    checks = (
        _findings_of(", ".join(sections), check(sections, destination), redactor)
        for sections, destination in _destinations(config)
    )
    return [finding for findings in await asyncio.gather(*checks) for finding in findings]


def _destinations(config: Config) -> list[tuple[list[str], Destination]]:
    """Returns the destinations that are in use, with their sections. Equal ones are checked once."""
    own = per_connection_destinations(config)
    every_connection_has_own = own and own.keys() == config.connections.keys()
    destinations = [] if every_connection_has_own else [(["s3"], default_destination(config))]
    for name, destination in own.items():
        section = f"connections.{name}.s3"
        sections = next((sections for sections, known in destinations if known == destination), None)
        if sections is None:
            destinations.append(([section], destination))
        else:
            sections.append(section)
    return destinations


async def _check_storage(config: Config, redactor: Redactor, destination: Destination) -> list[Finding]:
    try:
        async with open_check_client(config, redactor, destination.settings) as client:
            return await check_s3(client, destination.bucket, destination.prefix, _transfer_traits(config))
    except ConfigError as error:
        return [_wrong_setting("s3", redactor.text(str(error)).removeprefix("s3: "))]


def _transfer_traits(config: Config) -> TransferTraits:
    return TransferTraits(
        has_unique_keys="{export_id}" in config.s3.key_template,
        has_equal_parts=config.s3.part_size_mib is not None,
        integrity=config.s3.integrity,
    )

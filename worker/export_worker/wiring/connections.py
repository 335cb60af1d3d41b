"""Builds drivers and the limits of connections from the configuration."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime

from arq.connections import ArqRedis

from export_worker.config import Config, located_errors
from export_worker.contract.names import unknown_name
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor, reveal
from export_worker.errors import ConfigError, FieldProblem, InvalidRequestError
from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.decisions import OperationRetry, Policy
from export_worker.lifecycle.poll_schedule import PollSchedule
from export_worker.platforms.base import Driver
from export_worker.platforms.registry import build_driver, complete_settings
from export_worker.platforms.settings import ConnectionSettings, PollSettings
from export_worker.redis.claims import ConnectionLimits
from export_worker.redis.rate_limit import Rate
from export_worker.transfer.bandwidth import BandwidthLimit
from export_worker.transfer.transforms.column_rules import NO_POLICY, ColumnPolicy
from export_worker.transfer.transforms.keyed_hash import KeyedHash
from export_worker.worker.connections import Connection

UNKNOWN_DEADLINE_S = 10 * 365 * 86_400.0
"""For an export whose connection is not configured here: only a worker with the connection has its deadline."""


@asynccontextmanager
async def open_driver(config: Config, connection: str, redactor: Redactor) -> AsyncIterator[Driver]:
    """Opens the driver of one connection, and closes it at the end of the block.

    Raises:
        InvalidRequestError: No connection of this name is configured.
        ConfigError: A setting of the connection is wrong.
    """
    settings = config.connections.get(connection)
    if settings is None:
        raise InvalidRequestError(
            [FieldProblem("connection", unknown_name("connection", connection, config.connections))]
        )
    with located_errors():
        # In a thread: it reads files, and may ask AWS for a secret.
        driver = await asyncio.to_thread(build_driver, connection, settings, redactor)
    try:
        yield driver
    finally:
        await driver.close()


def build_connections(
    config: Config, redactor: Redactor, rate_limits: dict[str, Rate], stack: AsyncExitStack
) -> dict[str, Connection]:
    """Returns every configured connection by name.

    Args:
        stack: Closes the drivers when it is closed.

    Raises:
        ConfigError: A setting of a connection is wrong, or a secret is missing.
    """
    connections: dict[str, Connection] = {}
    platforms = config.platforms()
    process_limit = BandwidthLimit(_bytes_per_s(config.transfer.mib_per_second))
    for name, settings in config.connections.items():
        with located_errors():
            driver = build_driver(name, settings, redactor)
        stack.push_async_callback(driver.close)
        bandwidth = BandwidthLimit(
            _bytes_per_s(settings.mib_per_second),
            process_limit,
            min_bytes_per_s=config.transfer.min_kib_per_s * 1024,
        )
        retry = settings.retry_operation
        policy = replace(
            _policy(config, settings.poll),
            resubmit=settings.resubmit,
            operation_retry=OperationRetry(retry.times, retry.after_s),
        )
        with located_errors():
            columns = column_policy(name, settings, redactor)
        connections[name] = Connection(platforms[name], driver, policy, bandwidth, rate_limits[name], columns)
    return connections


def column_policy(name: str, settings: ConnectionSettings, redactor: Redactor) -> ColumnPolicy:
    """Returns what a connection requires of the columns of its files.

    Args:
        name: Name of the connection, for messages.
        settings: Its section of the configuration.
        redactor: Masks the key from now on.

    Raises:
        ConfigError: The key is missing, cannot be read or is too short.
    """
    columns = settings.column_policy
    if columns is None:
        return NO_POLICY
    hashing = None
    if columns.key is not None:
        setting = f"connections.{name}.column_policy.key"
        key = reveal(columns.key, setting)
        redactor.add(key)
        try:
            hashing = KeyedHash(key.encode())
        except ValueError as error:
            raise ConfigError(f"{setting}: {error}") from None
    return ColumnPolicy(columns.always, columns.refuse_unknown, hashing)


def build_rate_limits(config: Config, redis: ArqRedis, keys: Keys, clock: Callable[[], datetime]) -> dict[str, Rate]:
    """Returns the request rate limit of every connection; all workers share it through Redis.

    Raises:
        ConfigError: A setting of a connection is wrong.
    """
    return {
        name: Rate(redis, name, keys.rate(name), settings.requests_per_second, clock)
        for name, settings in _complete(config).items()
    }


def connection_limits(config: Config) -> dict[str, ConnectionLimits]:
    """Returns the limits that claims enforce, by connection.

    Raises:
        ConfigError: A setting of a connection is wrong.
    """
    return {
        name: ConnectionLimits(
            settings.max_in_flight,
            settings.requests_per_second,
            settings.poll.deadline_s,
            settings.submit_windows.windows(),
        )
        for name, settings in _complete(config).items()
    }


def _complete(config: Config) -> dict[str, ConnectionSettings]:
    with located_errors():
        return {name: complete_settings(name, settings) for name, settings in config.connections.items()}


def fallback_policy(config: Config) -> Policy:
    """Returns the policy for exports whose connection is not configured in this process."""
    return replace(_policy(config, PollSettings()), deadline_s=UNKNOWN_DEADLINE_S)


def _policy(config: Config, poll: PollSettings) -> Policy:
    return Policy(
        poll=PollSchedule(poll.first_s, poll.max_s),
        retry=Backoff(config.retry.first_s, config.retry.max_s),
        max_attempts=config.retry.max_attempts,
        deadline_s=poll.deadline_s,
    )


def _bytes_per_s(mib_per_second: float | None) -> float | None:
    return None if mib_per_second is None else mib_per_second * 2**20

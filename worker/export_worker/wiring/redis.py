"""Opens Redis clients from the configuration, for checks and commands. A worker opens its own in `worker`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_worker.config import Config
from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import PRODUCER_RETRIES, close_redis, open_redis, translate_redis_errors
from export_worker.redis.failures import redis_failure

PROBE_CONNECTIONS = 4
"""A check, a health page and a scrape each make one call at a time; a second one may overlap."""


@asynccontextmanager
async def open_probe_redis(config: Config) -> AsyncIterator[ArqRedis]:
    """Opens a client that makes each call once.

    Checks and scrapes report an outage of Redis. A client that retries would make them wait for its end.
    """
    redis = _open(config, Keys(config.namespace).home, retries=0)
    try:
        yield redis
    finally:
        await close_redis(redis)


@asynccontextmanager
async def open_stream_redis(
    config: Config, stream: str, shared: ArqRedis, *, retries: int = PRODUCER_RETRIES
) -> AsyncIterator[ArqRedis]:
    """Yields a client for a stream outside the namespace: the shared one, or its own on a Redis cluster.

    On a cluster, another node may own the stream.
    """
    if Keys(config.namespace).home is None:
        yield shared
        return
    redis = _open(config, stream, retries=retries)
    try:
        yield redis
    finally:
        await close_redis(redis)


def _open(config: Config, home: str | None, *, retries: int) -> ArqRedis:
    return open_redis(config.redis_url, home=home, retries=retries, max_connections=PROBE_CONNECTIONS)


@asynccontextmanager
async def open_command_redis(config: Config) -> AsyncIterator[ArqRedis]:
    """Opens a client for one command, and checks first that Redis answers.

    Raises:
        ServiceUnreachableError: Redis cannot be reached, at the start or within the block.
    """
    redis = open_redis(config.redis_url, home=Keys(config.namespace).home)
    try:
        async with translate_redis_errors(config.redis_url):
            await redis.ping()
        yield redis
    except (RedisError, OSError) as error:
        raise redis_failure(config.redis_url, error) from None
    finally:
        await close_redis(redis)

"""Opens Redis as both sides need it: retrying, with timeouts and checked TLS.

arq's own settings have no socket timeout, do not check host names under `rediss://` and do not decode passwords
(measured with arq 0.28), so the pool is built here from the URL.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from arq.connections import ArqRedis
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from export_worker.contract.queue_jobs import dump_job, load_job
from export_worker.errors import ConfigError, ServiceUnreachableError
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.sentinel import is_sentinel_url, parse_sentinel_url, sentinel_pool

CONNECT_TIMEOUT_S = 5.0
SOCKET_TIMEOUT_S = 10.0
"""A Redis that hangs must be noticed before a lease runs out."""
PRODUCER_RETRIES = 4
"""About a second in all: whoever calls wants to know soon that the address is dead."""
WORKER_RETRIES = 12
"""About 15 s in all: a restart or a fail-over of Redis is ridden out."""
HEALTH_CHECK_S = 30
"""A connection that was idle for longer is tried before it is used."""
CALL_MAX_S = 12.0
"""Of one call of a producer, repetitions included: longer than a Redis that answers at all needs."""
FIRST_CONTACT_S = 12.0
"""What Redis gets to answer a process that has just started: both may start together."""
ASK_AGAIN_S = 0.2
TELL_AFTER_S = 1.0
"""Whoever waits for longer wants to know what for."""

# Of the standard library: also a command, which sets up no log, and a service with one of its own show what is told.
_log = logging.getLogger(__name__)


def open_redis(redis_url: str, *, retries: int = PRODUCER_RETRIES, max_connections: int = 64) -> ArqRedis:
    """A client for `redis://`, `rediss://`, `unix://`, `sentinel(s)://`. Connects with the first command.

    Args:
        redis_url: A password in it is percent-decoded.
        retries: How often a call that found no connection is made again.
        max_connections: Further calls wait for one to be free.

    Raises:
        ConfigError: The URL is malformed.
    """
    _address(redis_url)  # refuses what is malformed, before redis-py quotes it
    retry = Retry(ExponentialWithJitterBackoff(base=0.1, cap=2.0), retries)
    # A refused connection is an OSError until redis-py has given up, and would not be retried.
    retry.update_supported_errors([OSError])
    options = _options_of(redis_url) | {
        "max_connections": max_connections,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "health_check_interval": HEALTH_CHECK_S,
        "redis_connect_func": _handshake,
        "retry": retry,
    }
    try:
        if is_sentinel_url(redis_url):
            pool: BlockingConnectionPool = sentinel_pool(redis_url, **options)
        else:
            pool = BlockingConnectionPool.from_url(redis_url, **options)
        # An option that redis-py does not know would otherwise be noticed by the first command.
        pool.connection_class(**pool.connection_kwargs)
    except ValueError as error:
        raise ConfigError(f"redis_url: {error}") from None
    except (TypeError, AttributeError):
        raise ConfigError("redis_url: an option behind its question mark is unknown") from None
    return ArqRedis(connection_pool=pool, job_serializer=dump_job, job_deserializer=load_job)


async def _handshake(connection: Any) -> None:
    """Introduce a connection, within the time that a connection gets.

    By itself redis-py (5.3) tries the health of a connection before it has introduced it, with all repetitions and
    within each of them again: a Redis that takes connections and says nothing is waited for more than two minutes.
    """
    connection.next_health_check = asyncio.get_running_loop().time() + HEALTH_CHECK_S
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.on_connect()
    except TimeoutError:
        raise RedisTimeoutError("it takes the connection and does not answer") from None


def _options_of(redis_url: str) -> dict[str, Any]:
    """What only some transports take: a unix socket has neither keepalive nor TLS."""
    match urlsplit(redis_url).scheme:
        case "redis" | "sentinel" | "sentinels":
            return {"socket_keepalive": True}
        case "rediss":
            # redis-py 5 leaves the host name of a certificate unchecked unless told otherwise.
            return {"socket_keepalive": True, "ssl_check_hostname": True}
        case _:
            return {}


def _address(redis_url: str) -> str:
    """Where Redis is, and nothing of the URL that may be a password.

    Raises:
        ConfigError: The URL is malformed.
    """
    if is_sentinel_url(redis_url):
        try:
            return parse_sentinel_url(redis_url).address
        except ValueError as error:
            raise ConfigError(f"redis_url: {error}") from None
    try:
        parts = urlsplit(redis_url)
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError:
        # Python's words show what it took for a port, which may be a piece of the password.
        advice = "is malformed; what is special in its password must be percent-encoded"
        raise ConfigError(f"redis_url: {advice}") from None
    if parts.scheme == "unix":
        return parts.path
    database = parts.path if parts.path[1:].isdecimal() else ""
    return f"[{host}]:{port}{database}" if ":" in host else f"{host}:{port}{database}"


class Commands(Protocol):
    """The commands that we send outside of scripts.

    redis-py types them for both its clients at once, which no caller can await; here they are as asyncio has them.
    """

    def hmget(self, key: str, *fields: str) -> Awaitable[list[bytes | None]]:
        """Several fields of a hash."""

    def hgetall(self, key: str) -> Awaitable[dict[bytes, bytes]]:
        """A whole hash."""

    def hset(self, key: str, *, mapping: dict[str, str]) -> Awaitable[int]:
        """Set fields of a hash."""

    def lrange(self, key: str, start: int, cancel_and_wait: int) -> Awaitable[list[bytes]]:
        """A part of a list."""

    def set(self, key: str, value: str, *, nx: bool = False, px: int | None = None) -> Awaitable[bool | None]:
        """Set a string."""

    def get(self, key: str) -> Awaitable[bytes | None]:
        """Get a string."""

    def time(self) -> Awaitable[tuple[int, int]]:
        """Redis's clock: seconds and microseconds since the epoch."""

    def delete(self, *keys: str) -> Awaitable[int]:
        """Remove keys."""

    def zadd(self, key: str, scores: dict[str, float]) -> Awaitable[int]:
        """Set scores in a sorted set."""

    def zcard(self, key: str) -> Awaitable[int]:
        """The size of a sorted set."""

    def zrem(self, key: str, *members: str | bytes) -> Awaitable[int]:
        """Remove members of a sorted set."""

    def zrangebyscore(
        self, key: str, lowest: float | str, highest: float | str, *, start: int, num: int
    ) -> Awaitable[list[bytes]]:
        """Members of a sorted set by score."""

    def zrevrange(self, key: str, start: int, cancel_and_wait: int) -> Awaitable[list[bytes]]:
        """Members of a sorted set, highest score first."""

    def xadd(
        self,
        stream: str,
        fields: dict[str, str],
        id: str = "*",  # noqa: A002 - redis-py calls it so
        *,
        maxlen: int | None = None,
        approximate: bool = True,
    ) -> Awaitable[bytes]:
        """Append to a stream."""

    def xrange(self, stream: str, *, count: int) -> Awaitable[list[tuple[bytes, dict[bytes, bytes]]]]:
        """The first entries of a stream."""


async def close_redis(redis: ArqRedis) -> None:
    """Close a client and its connections; redis-py leaves a pool open that it was given.

    A connection that is not closed in time is let go: whatever counted has been answered before.
    """
    with suppress(RedisTimeoutError):
        await redis.aclose(close_connection_pool=True)


def commands(redis: ArqRedis) -> Commands:
    """The client, typed as it behaves."""
    return cast("Commands", redis)


def redis_unreachable(redis_url: str, error: RedisError | OSError) -> ServiceUnreachableError:
    """The error for people; the URL may hold a password and is told without it."""
    said = str(error) or "it does not answer in time"
    if isinstance(error, AuthenticationError):
        return ServiceUnreachableError(
            f"Redis at {_address(redis_url)} refuses the user or the password ({said}); "
            "correct redis_url (EXPORT_REDIS_URL)"
        )
    return ServiceUnreachableError(
        f"cannot reach Redis at {_address(redis_url)} ({said}); "
        "is it running, and is redis_url (EXPORT_REDIS_URL) right?"
    )


@asynccontextmanager
async def translate_redis_errors(redis_url: str) -> AsyncIterator[None]:
    """Around one call of a producer.

    Raises:
        ServiceUnreachableError: Redis cannot be reached, or has not answered within `CALL_MAX_S`.
    """
    try:
        async with asyncio.timeout(CALL_MAX_S):
            with _told_what_for(redis_url):
                yield
    except (RedisError, OSError) as error:
        raise redis_unreachable(redis_url, error) from None


@contextmanager
def _told_what_for(redis_url: str) -> Iterator[None]:
    """Say once that Redis is waited for, if the block takes longer than a moment."""
    telling = asyncio.get_running_loop().call_later(TELL_AFTER_S, _tell_what_for, redis_url)
    try:
        yield
    finally:
        telling.cancel()


def _tell_what_for(redis_url: str) -> None:
    _log.warning("waiting for Redis at %s", _address(redis_url))


async def wait_for_redis(redis_url: str, stop: asyncio.Event | None = None) -> None:
    """Wait until Redis answers a process that has just started.

    Args:
        stop: Ends the waiting as well.

    Raises:
        ServiceUnreachableError: It has not answered within `FIRST_CONTACT_S`, or refuses the password.
    """
    redis = open_redis(redis_url, retries=0, max_connections=1)
    failures: list[RedisError | OSError] = []
    asking = asyncio.create_task(_until_answered(redis, failures))
    stopping = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        with _told_what_for(redis_url):
            await asyncio.wait({asking, stopping}, timeout=FIRST_CONTACT_S, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise redis_unreachable(redis_url, failures[-1] if failures else TimeoutError())
        asking.result()
    except AuthenticationError as error:
        raise redis_unreachable(redis_url, error) from None
    finally:
        await cancel_and_wait(asking, stopping)
        await close_redis(redis)


async def _until_answered(redis: ArqRedis, failures: list[RedisError | OSError]) -> None:
    while True:
        try:
            await redis.ping()
        except AuthenticationError:
            # Told among the connections' errors, and waiting does not mend it.
            raise
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            failures[:] = [error]
            await asyncio.sleep(ASK_AGAIN_S)
        else:
            return

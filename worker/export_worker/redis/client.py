"""Opens Redis for producers and workers: with retries, timeouts and verified TLS.

The pool is built here from the URL, because arq's own settings (0.28) have no socket timeout, do not check host names
under `rediss://` and do not decode passwords.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from arq.connections import ArqRedis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from export_worker.contract.queue_jobs import dump_job, load_job
from export_worker.contract.redis_keys import Keys
from export_worker.errors import ConfigError
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.cluster import ClusterPool
from export_worker.redis.failures import redis_address, redis_failure
from export_worker.redis.pool import Pool
from export_worker.redis.sentinel import is_sentinel_url, sentinel_pool

CONNECT_TIMEOUT_S = 5.0
SOCKET_TIMEOUT_S = 10.0
"""Below the duration of a lease: a worker must notice a Redis that hangs before the leases of its steps end."""
PRODUCER_RETRIES = 4
"""About a second in all, so that a wrong address is reported soon."""
WORKER_RETRIES = 12
"""About 15 s in all: a worker survives a restart or a fail-over of Redis."""
HEALTH_CHECK_S = 30
"""A connection that was idle for longer is checked before it is used."""
CALL_TIMEOUT_S = 12.0
"""For one call of a producer, with all retries: longer than a Redis that answers needs."""
STARTUP_TIMEOUT_S = 12.0
"""For the first answer to a process that has just started: Redis and the process may start together."""
LAST_PING_S = 1.0
"""For the first answer to a process that is stopped while it starts. A healthy Redis needs a small part of it."""
PING_RETRY_S = 0.2
"""Between two pings of a Redis that has not answered yet."""
WARN_AFTER_S = 1.0
"""A call that takes longer logs a warning with the address of Redis."""
WRITE_CHECK_TTL_MS = 60_000
"""Checks are repeated more often, so there is one key of them while a process is checked."""

_late: dict[str, set[object]] = {}
"""The calls that are late now, by the address of Redis."""

# The standard library's logger: most commands, and services that use this package, do not configure structlog.
_log = logging.getLogger(__name__)


def open_redis(
    redis_url: str, *, home: str | None = None, retries: int = PRODUCER_RETRIES, max_connections: int = 64
) -> ArqRedis:
    """Returns a client for `redis://`, `rediss://`, `unix://` or `sentinel(s)://`. It connects with the first command.

    Args:
        redis_url: A password in it is percent-decoded.
        home: A key of a Redis cluster. The client connects to the node that owns it. None: Redis is no cluster.
        retries: How often a call that has lost its connection is repeated.
        max_connections: When all are in use, further calls wait for a free one.

    Raises:
        ConfigError: The URL is malformed.
    """
    redis_address(redis_url)  # refuses a malformed URL before redis-py quotes it in a message
    backoff = ExponentialWithJitterBackoff(base=0.1, cap=2.0)
    retry = Retry(backoff, retries)
    # redis-py does not retry a refused connection by default: at that point the refusal is still an OSError.
    retry.update_supported_errors([OSError])
    options = _options_of(redis_url) | {
        "max_connections": max_connections,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "health_check_interval": HEALTH_CHECK_S,
        "redis_connect_func": _handshake,
        # No CLIENT SETINFO: Redis has it from 7.2 on, and an older one refuses the whole ACL rule that allows it.
        "lib_name": None,
        "lib_version": None,
        "retry": retry,
    }
    try:
        if is_sentinel_url(redis_url):
            pool: Pool = sentinel_pool(redis_url, **options)
        elif home is not None and urlsplit(redis_url).scheme != "unix":
            pool = ClusterPool.from_url(redis_url, key=home, backoff=backoff, retries=retries, **options)
        else:
            pool = Pool.from_url(redis_url, **options)
        # Finds an option that redis-py does not know. Otherwise the first command would fail.
        pool.connection_class(**pool.connection_kwargs)
    except ValueError as error:
        raise ConfigError(f"redis_url: {error}") from None
    except (TypeError, AttributeError):
        raise ConfigError("redis_url: the query string has an unknown option") from None
    return ArqRedis(connection_pool=pool, job_serializer=dump_job, job_deserializer=load_job)


async def _handshake(connection: Any) -> None:
    """Authenticates a new connection, within `CONNECT_TIMEOUT_S`.

    By default, redis-py 5.3 checks the health of a connection before the authentication, and retries one within the
    other. So a Redis that accepts connections and never answers would delay the caller by more than two minutes.
    """
    connection.next_health_check = asyncio.get_running_loop().time() + HEALTH_CHECK_S
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.on_connect()
    except TimeoutError:
        raise RedisTimeoutError("it accepts the connection and does not answer") from None


def _options_of(redis_url: str) -> dict[str, Any]:
    """Returns the options that only some transports have: a unix socket has neither keepalive nor TLS."""
    match urlsplit(redis_url).scheme:
        case "redis" | "sentinel" | "sentinels":
            return {"socket_keepalive": True}
        case "rediss":
            # The default of redis-py 5 is not to check the host name of a certificate.
            return {"socket_keepalive": True, "ssl_check_hostname": True}
        case _:
            return {}


class Commands(Protocol):
    """The commands that are sent outside of scripts, with the types of the asyncio client.

    redis-py declares one type for its blocking and its asyncio client, so mypy does not allow to await the result.
    """

    def hmget(self, key: str, *fields: str) -> Awaitable[list[bytes | None]]:
        """Returns fields of a hash."""

    def hgetall(self, key: str) -> Awaitable[dict[bytes, bytes]]:
        """Returns a whole hash."""

    def hkeys(self, key: str) -> Awaitable[list[bytes]]:
        """Returns the names of the fields of a hash."""

    def hset(self, key: str, *, mapping: dict[str, str]) -> Awaitable[int]:
        """Sets fields of a hash."""

    def lrange(self, key: str, start: int, end: int) -> Awaitable[list[bytes]]:
        """Returns a part of a list."""

    def get(self, key: str) -> Awaitable[bytes | None]:
        """Returns a string."""

    def delete(self, *keys: str) -> Awaitable[int]:
        """Removes keys."""

    def zadd(self, key: str, scores: dict[str, float], *, xx: bool = False) -> Awaitable[int]:
        """Sets scores in a sorted set; with `xx`, only of members that it has."""

    def zcard(self, key: str) -> Awaitable[int]:
        """Returns the size of a sorted set."""

    def zrem(self, key: str, *members: str | bytes) -> Awaitable[int]:
        """Removes members of a sorted set."""

    def zrangebyscore(
        self, key: str, lowest: float | str, highest: float | str, *, start: int, num: int
    ) -> Awaitable[list[bytes]]:
        """Returns members of a sorted set by score."""

    def zrevrange(self, key: str, start: int, end: int) -> Awaitable[list[bytes]]:
        """Returns members of a sorted set, the highest score first."""

    def xadd(
        self,
        stream: str,
        fields: dict[str, str],
        id: str = "*",  # noqa: A002 - redis-py's name
        *,
        maxlen: int | None = None,
        approximate: bool = True,
    ) -> Awaitable[bytes]:
        """Appends to a stream."""

    def xrange(self, stream: str, *, count: int) -> Awaitable[list[tuple[bytes, dict[bytes, bytes]]]]:
        """Returns the first entries of a stream."""


async def close_redis(redis: ArqRedis) -> None:
    """Closes a client and its connections. redis-py alone does not close a pool that it was given.

    A connection that cannot be closed in time is dropped. No call waits for an answer at this point.
    """
    with suppress(RedisTimeoutError):
        await redis.aclose(close_connection_pool=True)


def commands(redis: ArqRedis) -> Commands:
    """Returns the client, with the types of asyncio."""
    return cast("Commands", redis)


async def check_writes(redis: ArqRedis, keys: Keys) -> None:
    """Writes one small key, which expires. A Redis that is read-only, full or without rights answers reads as usual.

    Raises:
        RedisError: Redis does not accept writes, or does not answer.
    """
    await redis.set(keys.write_check, "1", px=WRITE_CHECK_TTL_MS)


def translate_redis_errors(redis_url: str) -> AbstractAsyncContextManager[None]:
    """Ends the block, one call of a producer, after `CALL_TIMEOUT_S`, and translates its errors.

    Raises:
        ServiceUnreachableError: Redis cannot be reached, refuses a command, or has not answered within
            `CALL_TIMEOUT_S`.
    """
    return _ProducerCall(redis_url)


class _ProducerCall(AbstractAsyncContextManager[None]):
    """One call of a producer. A class, because each request of a gateway makes some: generators cost twice as much."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._timeout = asyncio.timeout(CALL_TIMEOUT_S)
        self._warning = _Warning(redis_url)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._warning.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._warning.__exit__(kind, error, traceback)
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise redis_failure(self._url, late) from None
        if isinstance(error, RedisError | OSError):
            raise redis_failure(self._url, error) from None


class _Warning(AbstractContextManager[None]):
    """Logs a warning, with the address of Redis, if the block takes longer than `WARN_AFTER_S`.

    Of blocks that are late at the same time, only the first one logs it: a service may make hundreds of calls at once.
    """

    def __init__(self, redis_url: str) -> None:
        self._address = _address(redis_url)
        self._late = _late.setdefault(self._address, set())

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(WARN_AFTER_S, self._warn)

    def _warn(self) -> None:
        if not self._late:
            _log.warning("waiting for Redis at %s", self._address)
        self._late.add(self)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._late.discard(self)


_address = lru_cache(maxsize=16)(redis_address)


async def wait_for_redis(redis_url: str, stop: asyncio.Event | None = None) -> None:
    """Waits until Redis answers a process that has just started.

    Args:
        stop: Ends the wait early. Redis still has `LAST_PING_S` to answer: a stop during a start is no outage.

    Raises:
        ConfigError: The URL is malformed.
        ServiceUnreachableError: Redis has not answered within `STARTUP_TIMEOUT_S`, or refuses the password.
    """
    redis = open_redis(redis_url, retries=0, max_connections=1)
    failures: list[RedisError | OSError] = []
    pinging = asyncio.create_task(_ping_until_answered(redis, failures))
    stopping = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        with _Warning(redis_url):
            await asyncio.wait({pinging, stopping}, timeout=STARTUP_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            await asyncio.wait({pinging}, timeout=LAST_PING_S)
        if not pinging.done():
            raise redis_failure(redis_url, failures[-1] if failures else TimeoutError())
        pinging.result()
    except AuthenticationError as error:
        raise redis_failure(redis_url, error) from None
    finally:
        await cancel_and_wait(pinging, stopping)
        await close_redis(redis)


async def wait_for_any(redis_urls: Sequence[str], stop: asyncio.Event) -> None:
    """Waits until one of several Redis answers. See `wait_for_redis`, whose errors it raises if none does."""
    waiting = {asyncio.create_task(wait_for_redis(url, stop)) for url in redis_urls}
    failed: BaseException | None = None
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            failures = [task.exception() for task in done]
            if None in failures:
                return
            failed = failures[0]
    finally:
        await cancel_and_wait(*waiting)
    if failed is not None:
        raise failed


async def _ping_until_answered(redis: ArqRedis, failures: list[RedisError | OSError]) -> None:
    while True:
        try:
            await redis.ping()
        except AuthenticationError:
            # AuthenticationError is a connection error of redis-py, but waiting does not correct the password.
            raise
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            failures[:] = [error]
            await asyncio.sleep(PING_RETRY_S)
        else:
            return

"""Redis behind Sentinels: `sentinel://host:26379,host:26379/service/0`, or `sentinels://` with TLS.

User and password before an `@` are for Redis; `?sentinel_username=…&sentinel_password=…` are for the Sentinels. Every
new connection asks the Sentinels for the address of the primary. A connection to a demoted primary ends with its first
refused write. So the retries that survive a restart of Redis survive a fail-over as well.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from export_worker.redis.pool import Pool

PORT = 26379
"""The default port of a Sentinel."""


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """The parts of such a URL.

    Args:
        sentinels: Host and port of each Sentinel; one that answers is enough.
        service: The name of the group of servers in the Sentinels' configuration.
        credentials: `username` and `password` for Redis, if the URL has them.
        sentinel_credentials: The same for the Sentinels.
    """

    sentinels: tuple[tuple[str, int], ...]
    service: str
    database: int
    tls: bool
    credentials: dict[str, str]
    sentinel_credentials: dict[str, str]

    @property
    def address(self) -> str:
        """The address for messages to users, without any password."""
        sentinels = ", ".join(f"{host}:{port}" for host, port in self.sentinels)
        return f"service {self.service} of the Sentinels {sentinels}"


def is_sentinel_url(url: str) -> bool:
    """Returns whether the URL names Sentinels."""
    return url.startswith(("sentinel://", "sentinels://"))


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Parses a URL.

    Raises:
        ValueError: The URL is malformed. The message quotes nothing of it that may be a password.
    """
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not hosts or not service or (database and not database.isdecimal()):
        raise ValueError("must be sentinel://host:port,host:port/SERVICE/DATABASE")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(options) - {"sentinel_username", "sentinel_password"}:
        raise ValueError(
            f"unknown option {min(unknown)!r} in the query string; allowed: sentinel_username, sentinel_password"
        )
    username, _, password = login.partition(":")
    return SentinelUrl(
        sentinels=tuple(_host_and_port(item) for item in hosts.split(",")),
        service=unquote(service),
        database=int(database or 0),
        tls=parts.scheme == "sentinels",
        credentials={name: unquote(value) for name, value in (("username", username), ("password", password)) if value},
        sentinel_credentials={name.removeprefix("sentinel_"): value for name, value in options.items()},
    )


def _host_and_port(item: str) -> tuple[str, int]:
    parts = urlsplit(f"//{item}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ValueError("each Sentinel must be host:port or host, with a number as the port")
    return host, port or PORT


class SentinelPool(SentinelConnectionPool, Pool):
    """Connections to the primary. When all are in use, further calls wait for a free one."""

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Closes the free connections, or all of them, and then the connections to the Sentinels as well."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def sentinel_pool(url: str, **options: Any) -> SentinelPool:
    """Returns a pool of connections to the primary. It connects with the first command.

    Args:
        options: For every connection. The connections to the Sentinels get those whose name begins with `socket_`.

    Raises:
        ValueError: The URL is malformed.
    """
    parsed = parse_sentinel_url(url)
    tls = {"ssl": True, "ssl_check_hostname": True} if parsed.tls else {}
    for_sentinels = {name: value for name, value in options.items() if name.startswith("socket_")}
    untyped: Any = Sentinel
    manager = untyped(list(parsed.sentinels), sentinel_kwargs=for_sentinels | tls | parsed.sentinel_credentials)
    build: Any = SentinelPool
    pool: SentinelPool = build(parsed.service, manager, db=parsed.database, **tls, **parsed.credentials, **options)
    return pool

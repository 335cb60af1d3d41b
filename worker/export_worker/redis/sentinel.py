"""Redis behind Sentinels: `sentinel://host:26379,host:26379/service/0`, or `sentinels://` with TLS.

User and password before an `@` are those of Redis; `?sentinel_username=…&sentinel_password=…` are the Sentinels' own.
Every new connection asks the Sentinels who is the primary. A connection to one that was demoted ends with its first
refused write, so a fail-over is ridden out by the retries that ride out a restart.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

PORT = 26379


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """What such a URL says.

    Args:
        sentinels: Host and port of each; any one that answers is enough.
        service: What the Sentinels call the group of servers.
        credentials: `username` and `password` of Redis, where the URL has them.
        sentinel_credentials: The same of the Sentinels.
    """

    sentinels: tuple[tuple[str, int], ...]
    service: str
    database: int
    tls: bool
    credentials: dict[str, str]
    sentinel_credentials: dict[str, str]

    @property
    def address(self) -> str:
        """For people; without any password."""
        told = ", ".join(f"{host}:{port}" for host, port in self.sentinels)
        return f"service {self.service} of the Sentinels {told}"


def is_sentinel_url(url: str) -> bool:
    """Whether the address is one of Sentinels."""
    return url.startswith(("sentinel://", "sentinels://"))


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Read a URL.

    Raises:
        ValueError: It is malformed. The message shows nothing of it, for there may be a password in it.
    """
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not hosts or not service or (database and not database.isdecimal()):
        raise ValueError("must be sentinel://host:port,host:port/SERVICE/DATABASE")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(options) - {"sentinel_username", "sentinel_password"}:
        raise ValueError(f"knows no option {min(unknown)!r} behind its question mark")
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
        raise ValueError("has a Sentinel without a host, or with a port that is no number")
    return host, port or PORT


class SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary; when all are in use, further calls wait for one to be free."""

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Close connections; with those in use, those to the Sentinels as well."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def sentinel_pool(url: str, **options: Any) -> SentinelPool:
    """A pool of connections to the primary. Connects with the first command.

    Args:
        options: Of every connection, those to the Sentinels included.

    Raises:
        ValueError: The URL is malformed.
    """
    told = parse_sentinel_url(url)
    tls = {"ssl": True, "ssl_check_hostname": True} if told.tls else {}
    own = {name: value for name, value in options.items() if name.startswith("socket_")}
    untyped: Any = Sentinel
    manager = untyped(list(told.sentinels), sentinel_kwargs=own | tls | told.sentinel_credentials)
    build: Any = SentinelPool
    pool: SentinelPool = build(told.service, manager, db=told.database, **tls, **told.credentials, **options)
    return pool

"""Redis in cluster mode: connections to the node that owns one key, wherever the cluster moves it.

All keys of a namespace with a hash tag are in one slot, so one node has them all. Every new connection asks its node
for the key, and follows the answer to the owner. When the owner changes later, the refused command ends the connection.
Redis did not run it, so it is repeated on a connection to the new owner.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import AbstractBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError

from export_worker.redis.pool import Pool

HOPS_MAX = 5
"""Redirects of one new connection. More come only from nodes that disagree about the owner."""
_LATER = ("ASK", "TRYAGAIN", "CLUSTERDOWN")
"""Codes of a cluster that moves the key, or elects another owner. The command may be repeated soon."""

Address = tuple[str, int]


class NotTheOwnerError(RedisConnectionError):
    """A node did not run a command, because another node owns its key, or will own it soon."""


class MovedError(NotTheOwnerError):
    """Another node owns the key. The route has its address now."""


class Route:
    """The way to the owner of one key. All connections of a pool share it.

    Args:
        key: The key. Only its slot matters.
        seed: The address of the URL. It leads to any node.
    """

    def __init__(self, key: str, seed: Address) -> None:
        self.key = key
        self._seed = seed
        self._nodes = [seed]
        self._learned: Address | None = None

    @property
    def address(self) -> Address:
        """The node to connect to: the owner, as far as it is known."""
        return self._nodes[0]

    def follow(self, address: Address) -> None:
        """Notes that a node has named the owner."""
        self._nodes = [address, *(node for node in self._nodes if node != address)]

    def avoid(self, address: Address) -> None:
        """Notes that a node cannot be reached. The next connection tries another one."""
        if address == self.address:
            self._nodes = [*self._nodes[1:], address]

    def knows_others(self, address: Address) -> bool:
        """Returns whether the other nodes were learned from this one."""
        return self._learned == address

    def learn(self, address: Address, nodes: list[Address]) -> None:
        """Notes the nodes of a key's slot, as its owner lists them. One of them takes over when the owner fails."""
        self._learned = address
        self._nodes = list(dict.fromkeys([address, *nodes, self._seed]))


class _RoutedConnection(Connection):
    """A connection to the owner of the key of its route.

    Args:
        redirects: Repeats a connection attempt while no node accepts the key, because the cluster elects an owner.
    """

    def __init__(self, *, route: Route, redirects: Retry, **options: Any) -> None:
        self._route = route
        self._redirects = redirects
        super().__init__(**options, retry_on_error=[NotTheOwnerError])

    async def connect(self) -> None:
        """Connects to the owner, unless the connection is open."""
        await self._redirects.call_with_retry(self._follow_redirects, _do_nothing)

    async def _follow_redirects(self) -> None:
        connect: Any = super().connect
        for _ in range(HOPS_MAX):
            with suppress(MovedError):
                await connect()
                return
        await connect()

    async def _connect(self) -> None:
        connect: Any = super()._connect
        self.host, self.port = address = self._route.address
        try:
            await connect()
        except OSError:
            self._route.avoid(address)
            raise

    async def on_connect(self) -> None:
        """Authenticates, and checks that this node owns the key."""
        await super().on_connect()
        with suppress(NoPermissionError):
            await self._ask("EXISTS", self._route.key)
        if not self._route.knows_others((self.host, self.port)):
            # A proxy, or a Redis that is no cluster, does not know the command. The user may lack the right to it.
            with suppress(ResponseError):
                listed = await self._ask("CLUSTER", "SLOTS")
                self._route.learn((self.host, self.port), list(_nodes_of(self._route.key, listed, self.host)))

    async def _ask(self, *command: str) -> Any:
        await self.send_command(*command, check_health=False)
        return await self.read_response()

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Reads one answer. A redirect ends the connection, so that the next one leads to the owner."""
        try:
            return await super().read_response(*arguments, **options)
        except ResponseError as error:
            refusal = self._redirect(str(error))
            if refusal is None:
                raise
            await self.disconnect(nowait=True)
            raise refusal from None

    def _redirect(self, text: str) -> NotTheOwnerError | None:
        code, *details = text.split()
        if code == "MOVED" and len(details) > 1:
            host, _, port = details[1].rpartition(":")
            # Without a host, the port belongs to the host of this connection.
            self._route.follow((host or self.host, int(port)))
            # Users read this only after `HOPS_MAX` redirects: `REFUSALS` has these words.
            return MovedError(f"redirected to another node: {details[1]}")
        return NotTheOwnerError(text) if code in _LATER else None


class _RoutedTlsConnection(_RoutedConnection, SSLConnection):
    """The same with TLS."""


class ClusterPool(Pool):
    """Connections to the node that owns one key. When all are in use, further calls wait for a free one.

    Args:
        backoff: Between the attempts to find the owner while the cluster has none.
        retries: How often this is attempted again.
    """

    def __init__(
        self,
        *,
        key: str,
        backoff: AbstractBackoff,
        retries: int,
        connection_class: type[Connection] = Connection,
        **options: Any,
    ) -> None:
        routed = _RoutedTlsConnection if issubclass(connection_class, SSLConnection) else _RoutedConnection
        route = Route(key, (options.get("host", "localhost"), int(options.get("port", 6379))))
        redirects = Retry(backoff, retries, (NotTheOwnerError,))
        super().__init__(connection_class=routed, route=route, redirects=redirects, **options)


def _nodes_of(key: str, listed: Any, own_host: str) -> Iterator[Address]:
    """Yields the nodes that have a key: the owner and its replicas, from the answer to CLUSTER SLOTS.

    A node that does not know its own address leaves it out, or names it `?`.
    """
    slot = key_slot(key.encode())
    for first, last, *nodes in listed:
        if first <= slot <= last:
            for host, port, *_ in nodes:
                name = (host or b"").decode()
                if name != "?":
                    yield name or own_host, port


async def _do_nothing(_: Exception) -> None:
    """Before a call is repeated: the connection was closed already."""

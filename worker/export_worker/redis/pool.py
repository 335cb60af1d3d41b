"""A pool of connections that hands out a free one without a pass of the event loop, a lock or a timer.

redis-py reads from each connection with a timeout of 0 before each command, to find out whether it was closed or has
unread data. The read always waits for one more pass of the loop. redis-py also takes a lock and sets a
timer, although a connection is free. Together, that is half of the cost of a call. The stream of the connection shows
whether it is quiet.
"""

from asyncio import StreamReader
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool


class Pool(BlockingConnectionPool):
    """Connections to one server. When all are in use, further calls wait for a free one."""

    async def get_connection(self, *_: Any, **__: Any) -> AbstractConnection:
        """Returns a free connection.

        A quiet one is taken at once, unless other calls wait. redis-py's arguments are obsolete.
        """
        pool: Any = super()
        free: Sequence[AbstractConnection] = self._available_connections
        is_free = free and _is_quiet(free[-1]) and not getattr(self._condition, "_waiters", True)
        connection: AbstractConnection = pool.get_available_connection() if is_free else await pool.get_connection()
        return connection

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connects, if the connection is not open. One that is quiet needs no further check."""
        if not _is_quiet(connection):
            await super().ensure_connection(connection)


def _is_quiet(connection: Any) -> bool:
    """Whether a connection is open, as far as is known, and has received nothing that was not read.

    An object of redis-py or asyncio without the private fields is not known to be quiet.
    """
    stream: Any = getattr(connection, "_reader", None)
    parsed: Any = getattr(getattr(connection, "_parser", None), "_reader", None)
    return (
        isinstance(stream, StreamReader)
        and getattr(connection, "_writer", None) is not None
        and not getattr(stream, "_buffer", b"?")
        and not stream.at_eof()
        and stream.exception() is None
        and hasattr(parsed, "has_data")
        and not parsed.has_data()
    )

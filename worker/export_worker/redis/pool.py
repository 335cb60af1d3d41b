"""A pool of connections that checks a connection before its use without a pass of the event loop.

redis-py reads from each connection with a timeout of 0 before each command, to find out whether it was closed or has
data that nobody has read. The read always waits for one more pass of the loop. That is a fifth of the cost of a call.
The stream of the connection knows both already.
"""

from asyncio import StreamReader
from typing import Any

from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool


class Pool(BlockingConnectionPool):
    """Connections to one server. When all are in use, further calls wait for a free one."""

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

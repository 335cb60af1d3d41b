"""Notes how far a request came: whether the platform may have received it."""

from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(slots=True)
class Delivery:
    """How far a request came.

    Args:
        starts_work: The request starts work on the platform, so a repetition may start it twice.
        connected: The request has a connection, so the platform may have received it. Before that, only the name
            resolution, the connection or the TLS handshake can have failed.
        answered: The head of a response has arrived.
        is_sent: The last byte of a streamed body has been passed on, so the platform may have all of it.
    """

    starts_work: bool = False
    connected: bool = False
    answered: bool = False
    is_sent: bool = False

    @property
    def unclear(self) -> bool:
        """Whether the request may have started work on the platform."""
        return self.starts_work and self.connected


def delivery_trace() -> aiohttp.TraceConfig:
    """Returns the hooks of a session that note in the `Delivery` of a request that it has a connection.

    When a connection breaks, aiohttp sends a GET, PUT or DELETE once more by itself. A request that starts work is
    never sent a second time: the hooks refuse its second connection.
    """

    async def refuse_second(_: aiohttp.ClientSession, context: Any, __: object) -> None:
        delivery = context.trace_request_ctx
        if isinstance(delivery, Delivery) and delivery.unclear:
            raise aiohttp.ClientConnectionError("the connection broke before an answer")

    async def note(_: aiohttp.ClientSession, context: Any, __: object) -> None:
        if isinstance(context.trace_request_ctx, Delivery):
            context.trace_request_ctx.connected = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(refuse_second)
    trace.on_connection_reuseconn.append(refuse_second)
    trace.on_connection_create_end.append(note)
    trace.on_connection_reuseconn.append(note)
    return trace

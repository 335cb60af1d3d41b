"""`GET /v1/exports/{id}/events`: server-sent events that follow an export."""

import asyncio
from contextlib import suppress
from hashlib import blake2b

from aiohttp import web

from export_producers.gateway.context import CONTEXT, EXPORT, GatewayContext, query
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Status
from export_worker.errors import ExportWorkerError

STATUS_POLL_S = 0.5
"""Interval at which a stream reads its status. 1,000 streams make 2,000 reads a second: 5 % of what Redis can do."""
SEND_TIMEOUT_S = 60.0
"""A client that reads nothing for this time, while it is sent more than its buffers hold, loses its stream."""
RECONNECT_MS = 2000
"""Time after which a client reconnects if its stream is interrupted, unless the client has its own rule."""


class EventStream:
    """The response of a stream, whose client may stop to read it."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response

    async def write(self, data: bytes) -> None:
        """Sends data.

        Raises:
            ConnectionError: The client is gone, or reads nothing. It must not hold its stream for ever.
        """
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._response.write(data)
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionError("the client reads nothing") from None


async def events(request: web.Request) -> web.StreamResponse:
    """Sends the current status, then every change, until the export has ended.

    Each event is a complete status. So a client that was disconnected gets the current status, and no history. If the
    client already has the current status (`Last-Event-ID`), it is not sent again.
    """
    context, export_id = request.app[CONTEXT], request.match_info["export_id"]
    query(request)
    status = await context.queue.status(export_id)
    last_id = request.headers.get("Last-Event-ID")
    if status.phase.terminal and event_id(status) == last_id:
        # A browser does not reconnect after a 204.
        return web.Response(status=204)
    with context.open_stream(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        # If the client disconnects or Redis becomes unreachable, the stream ends. The client can reconnect.
        with suppress(ConnectionError, ExportWorkerError):
            await _follow(EventStream(request, response), context, status, last_id)
    return response


async def _follow(response: EventStream, context: GatewayContext, status: Status, last_id: str | None) -> None:
    await response.write(f"retry: {RECONNECT_MS}\n\n".encode())
    loop = asyncio.get_running_loop()
    last_write_at = loop.time()
    while True:
        if event_id(status) != last_id:
            last_id = event_id(status)
            await response.write(f"id: {last_id}\nevent: status\ndata: {status.model_dump_json()}\n\n".encode())
            last_write_at = loop.time()
        elif loop.time() - last_write_at >= context.options.keep_alive_s:
            await response.write(b": keep-alive\n\n")
            last_write_at = loop.time()
        if status.phase.terminal or await _stopped(context):
            return
        status = await context.queue.status(status.export_id)


async def _stopped(context: GatewayContext) -> bool:
    """Waits until the next read of the status. Returns True if the gateway is stopping."""
    with suppress(TimeoutError):
        async with asyncio.timeout(STATUS_POLL_S):
            await context.stopping.wait()
    return context.stopping.is_set()


def event_id(status: Status) -> str:
    """Returns the event id of a status. All gateways return the same id for the same status."""
    digest = blake2b(status.model_dump_json().encode(), digest_size=6).hexdigest()
    return f"{epoch_ms(status.updated_at)}-{digest}"


ROUTES = [web.get(f"{EXPORT}/events", events, allow_head=False)]

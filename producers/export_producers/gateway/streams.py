"""`GET /v1/exports/{id}/events`: an export, followed by server-sent events."""

import asyncio
from contextlib import suppress
from hashlib import blake2b

from aiohttp import web

from export_producers.gateway.context import CONTEXT, GatewayContext, query
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Status
from export_worker.errors import ExportWorkerError

LOOK_S = 0.5
"""Between looks at one export: a thousand streams are then 2,000 reads a second, a twentieth of what Redis can do."""
RECONNECT_MS = 2000
"""When a client comes again after a break, unless it knows better."""


async def events(request: web.Request) -> web.StreamResponse:
    """Send the status unless the client has it already, then each change, until the export has ended.

    A status stands for itself: a client that was away gets the newest, not all that it missed.
    """
    parts, export_id = request.app[CONTEXT], request.match_info["export_id"]
    query(request)
    status = await parts.queue.status(export_id)
    last = request.headers.get("Last-Event-ID")
    if status.phase.terminal and event_id(status) == last:
        # A browser that hears this does not come again.
        return web.Response(status=204)
    with parts.stream(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        # A client that leaves, or a Redis that does, ends the stream: whoever wants the rest comes again.
        with suppress(ConnectionError, ExportWorkerError):
            await _follow(response, parts, status, last)
    return response


async def _follow(response: web.StreamResponse, parts: GatewayContext, status: Status, last: str | None) -> None:
    await response.write(f"retry: {RECONNECT_MS}\n\n".encode())
    loop = asyncio.get_running_loop()
    quiet_since = loop.time()
    while True:
        if event_id(status) != last:
            last = event_id(status)
            await response.write(f"id: {last}\nevent: status\ndata: {status.model_dump_json()}\n\n".encode())
            quiet_since = loop.time()
        elif loop.time() - quiet_since >= parts.keep_alive_s:
            await response.write(b": keep-alive\n\n")
            quiet_since = loop.time()
        if status.phase.terminal or await _stopped(parts):
            return
        status = await parts.queue.status(status.export_id)


async def _stopped(parts: GatewayContext) -> bool:
    """Wait for the next look, or for the gateway's end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_S):
            await parts.stopping.wait()
    return parts.stopping.is_set()


def event_id(status: Status) -> str:
    """The same for the same status, whichever gateway sends it."""
    digest = blake2b(status.model_dump_json().encode(), digest_size=6).hexdigest()
    return f"{epoch_ms(status.updated_at)}-{digest}"

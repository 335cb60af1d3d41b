"""Live pages: server-sent events with the parts of a page that have changed.

All visitors who look at the same page share one read of Redis a second, and one rendering.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web

from export_producers.gateway.context import CONTEXT, GatewayContext
from export_producers.gateway.handlers.streams import RECONNECT_MS
from export_producers.reads.shared import SharedRead
from export_worker.errors import ExportWorkerError

INTERVAL_S = 1.0
"""Time between two events of a stream at least."""
STREAM_MAX_S = 600.0
"""A stream ends after this time. The browser opens another one, and so the login of its visitor is checked again."""
KEPT_S = 0.9
"""How long a read counts as new: less than the interval, so that each event of a stream has a new one."""
PAGES_MAX = 1000
"""Pages that are remembered for their next visitors."""

Parts = Mapping[str, str]
"""The HTML of each part of a page by its id."""


@dataclass(slots=True)
class LivePages:
    """The pages that visitors look at now, each with its shared read."""

    reads: dict[Hashable, SharedRead[Parts]] = field(default_factory=dict)

    def of(self, page: Hashable, read: Callable[[], Awaitable[Parts]]) -> SharedRead[Parts]:
        """Returns the shared read of a page.

        Args:
            page: What distinguishes it from other pages: address, language, and the connections that it may show.
            read: Reads and renders its parts.
        """
        found = self.reads.pop(page, None) or SharedRead(read, KEPT_S)
        self.reads[page] = found
        if len(self.reads) > PAGES_MAX:
            del self.reads[next(iter(self.reads))]
        return found


LIVE_PAGES = web.AppKey("live_pages", LivePages)


async def stream(request: web.Request, page: Hashable, read: Callable[[], Awaitable[Parts]]) -> web.StreamResponse:
    """Sends all parts of a page, and then every part that has changed."""
    context, shared = request.app[CONTEXT], request.app[LIVE_PAGES].of(page, read)
    sent: dict[str, str] = dict(await shared.get())
    with context.open_stream(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(STREAM_MAX_S):
                await response.write(f"retry: {RECONNECT_MS}\n\n{_event('parts', sent)}".encode())
                await _follow(response, context, shared, sent)
    return response


async def _follow(
    response: web.StreamResponse, context: GatewayContext, shared: SharedRead[Parts], sent: dict[str, str]
) -> None:
    loop = asyncio.get_running_loop()
    last_write_at, is_away = loop.time(), False
    while not await _stopped(context):
        try:
            parts = await shared.get()
        except ExportWorkerError:
            event = "" if is_away else _event("away", {})
            is_away = True
        else:
            changed = {name: html for name, html in parts.items() if sent.get(name) != html}
            event = _event("parts", changed) if changed or is_away else ""
            sent.update(changed)
            is_away = False
        if not event and loop.time() - last_write_at >= context.options.keep_alive_s:
            event = ": keep-alive\n\n"
        if event:
            await response.write(event.encode())
            last_write_at = loop.time()


async def _stopped(context: GatewayContext) -> bool:
    """Waits until the next read. Returns True if the gateway is stopping."""
    with suppress(TimeoutError):
        async with asyncio.timeout(INTERVAL_S):
            await context.stopping.wait()
    return context.stopping.is_set()


def _event(name: str, parts: Parts) -> str:
    return f"event: {name}\ndata: {json.dumps(parts, ensure_ascii=False)}\n\n"

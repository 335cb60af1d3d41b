"""`GET /v1/stream`: server-sent events about everything that a client shows."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from pydantic import BaseModel

from export_producers.gateway.callers.principals import allowed_connections, require
from export_producers.gateway.context import CONTEXT, GatewayContext, query, unknown_parameter
from export_producers.gateway.documents.schemas import ChangedExport, ChangedExports
from export_producers.gateway.handlers.streams import RECONNECT_MS, EventStream
from export_producers.gateway.problems import invalid_parameter
from export_producers.reads.change_feed import Batch
from export_producers.reads.changes import Change, ChangeFilter
from export_producers.reads.overview_document import Overview
from export_worker.contract.names import did_you_mean
from export_worker.contract.status import Phase
from export_worker.errors import ExportWorkerError
from export_worker.redis.cancellation import cancel_and_wait

TOPICS = ("overview", "exports")
CONDITIONS = ("connection", "kind", "phase")
OVERVIEW_INTERVAL_S = 1.0


async def stream(request: web.Request) -> web.StreamResponse:
    """Sends changes until the client disconnects.

    Events: `overview`, once a second at most, when it has changed; `export`, four times a second at most, with the
    exports that have changed; `reset`, when changes are missing, so that the client must read its page again.
    """
    context = request.app[CONTEXT]
    parameters = query(request, "topics", "filter")
    topics = _topics(parameters.get("topics", ",".join(TOPICS)))
    allowed = allowed_connections(request)
    where = replace(_filter(parameters.get("filter", "")), connections=allowed)
    if where.connection is not None:
        require(request, where.connection)
    if "filter" in parameters and "exports" not in topics:
        raise invalid_parameter("filter", "selects exports, but exports are not among the topics")
    feed = context.changes.follow(request.headers.get("Last-Event-ID"))
    with context.open_stream(request):
        async with aclosing(feed):
            # The stream follows the changes before the client gets its first byte.
            first = await anext(feed)
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
            await response.prepare(request)
            sender = _Sender(EventStream(request, response), context)
            parts: list[Coroutine[Any, Any, None]] = [sender.keep_alive(), sender.until_stopped()]
            if "overview" in topics:
                parts.append(sender.overviews(allowed))
            if "exports" in topics:
                parts.append(sender.changes(feed, first, where))
            await _first_of(parts)
    return response


async def _first_of(parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Runs all parts until one of them ends. A lost client or Redis ends the stream; the client can reconnect."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        with suppress(ConnectionError, ExportWorkerError):
            for task in done:
                task.result()
    finally:
        await cancel_and_wait(*tasks)


class _Sender:
    def __init__(self, response: EventStream, context: GatewayContext) -> None:
        self._response = response
        self._context = context

    async def keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._context.options.keep_alive_s)
            await self._response.write(b": keep-alive\n\n")

    async def until_stopped(self) -> None:
        await self._context.stopping.wait()

    async def overviews(self, allowed: frozenset[str] | None) -> None:
        last: Overview | None = None
        while True:
            state = await self._context.overview.get()
            found = state if allowed is None else state.of_connections(allowed)
            if last is None or found.model_copy(update={"now": last.now}) != last:
                await self._send("overview", found)
                last = found
            await asyncio.sleep(OVERVIEW_INTERVAL_S)

    async def changes(self, feed: AsyncGenerator[Batch, None], first: Batch, where: ChangeFilter) -> None:
        # An event without data sets the id with which the client reconnects.
        await self._response.write(f"retry: {RECONNECT_MS}\nid: {self._context.changes.position}\n\n".encode())
        await self._send_batch(first, where)
        async for batch in feed:
            await self._send_batch(batch, where)

    async def _send_batch(self, batch: Batch, where: ChangeFilter) -> None:
        if batch is None:
            await self._response.write(b"event: reset\ndata: {}\n\n")
            return
        matching = [change for change in batch if where.matches(change)]
        if matching:
            changed = [_changed(change) for change in matching]
            await self._send("export", ChangedExports(changed=changed), matching[-1].position)

    async def _send(self, event: str, document: BaseModel, position: str | None = None) -> None:
        identified = "" if position is None else f"id: {position}\n"
        await self._response.write(f"{identified}event: {event}\ndata: {document.model_dump_json()}\n\n".encode())


def _changed(change: Change) -> ChangedExport:
    return ChangedExport(
        export_id=change.export_id,
        connection=change.connection,
        kind=change.kind,
        phase=change.phase,
        was=change.was,
    )


def _topics(text: str) -> frozenset[str]:
    topics = text.split(",")
    for topic in topics:
        if topic not in TOPICS:
            raise invalid_parameter("topics", f"must be one or both of {', '.join(TOPICS)}, with a comma between them")
    return frozenset(topics)


def _filter(text: str) -> ChangeFilter:
    """Returns the filter that a query string such as `connection=gio&phase=failed` states."""
    found = dict(parse_qsl(text, keep_blank_values=True))
    for name in found:
        if name not in CONDITIONS:
            raise invalid_parameter("filter", unknown_parameter(name, CONDITIONS))
    phase = found.get("phase")
    if phase is not None and phase not in set(Phase):
        raise invalid_parameter("filter", f"phase must be one of {', '.join(Phase)}{did_you_mean(phase, Phase)}")
    return ChangeFilter(
        connection=found.get("connection"), kind=found.get("kind"), phase=None if phase is None else Phase(phase)
    )


ROUTES = [web.get("/v1/stream", stream, allow_head=False)]

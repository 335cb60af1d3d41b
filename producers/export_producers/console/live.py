"""Live pages: server-sent events with the parts of a page that have changed.

All tabs with the same page share its reads and its rendering. One loop for each process follows the changes of
exports, and asks each page twice a second what they change in it. A page whose exports have not changed is not read
again, with two exceptions. Texts such as ages change with time, so the loop reads a few pages in each second again,
those that were read longest ago. And some pages show what is in no change of an export, such as the deliveries of one
event: those take turns as well, because each of them has reads of its own.

A page that is open never claims to be live while it is not: a tab receives something every two seconds while Redis
answers, and an event as soon as Redis has not answered for some seconds.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

import structlog
from aiohttp import web

from export_producers.console.frame import badge_parts, parts
from export_producers.console.numbers import recent_overview
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, GatewayContext, query
from export_producers.gateway.handlers.streams import RECONNECT_MS, EventStream
from export_producers.gateway.problems import ProblemError
from export_producers.queues.batches import details_of, statuses_of
from export_producers.reads.batched import BatchedRead
from export_producers.reads.change_feed import Batch
from export_producers.reads.changes import Change, merged
from export_worker.errors import ExportWorkerError, ServiceUnreachableError
from export_worker.redis.cancellation import cancel_and_wait

INTERVAL_S = 1.0
"""Time between two reads of a whole page."""
CHANGES_INTERVAL_S = 0.6
"""Time between two events with changes. With the wait of the feed, a tab is less than a second behind."""
AWAY_AFTER_S = 4.0
"""A Redis that has not answered for this time is away, though its connections are open."""
ALIVE_S = 2.5
"""A tab without events receives a sign of life after this time. Its script expects one every six seconds."""
STREAM_MAX_S = 600.0
"""A stream ends after this time. The browser opens another one, and so the login of its visitor is checked again."""
KEPT_S = 0.9
"""How long a read counts as new for further tabs: less than the interval."""
AGEING_S = 10.0
"""A page that was read so long ago is read again, if its turn has come."""
AGEING_MAX = 3
"""Pages that are read again in one second because of their age: a bound for what many different pages cost."""
TURNS_MAX = 8
"""Pages with reads of their own that are read in one second. If many tabs are open, each follows less often."""
PARTS_MAX = 300
"""Parts of a page that are known to its tabs: some pages of rows."""
EVENTS_MAX = 30
"""Events that wait for a slow tab. Then its stream ends, and the browser opens another one."""
CHANGES_MAX = 5000
"""Changes of one second. If there are more, every page is read again in its turn."""

Parts = Mapping[str, str]
"""The HTML of each part of a page by its id. A part without HTML is a new one, which the page can only count."""
State = Callable[[web.Application, frozenset[str] | None], Awaitable[Mapping[str, Any]]]
"""Returns what a template shows of some connections; of all for None."""
Read = Callable[[], Awaitable[Parts]]
"""Reads and renders all parts of a page."""
Update = Callable[[Sequence[Change]], Awaitable[Parts]]
"""Returns the parts that may have changed with these exports."""
Tab = asyncio.Queue[bytes | None]
"""The events that wait for one tab. None: its stream ends."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LivePage:
    """One page that visitors look at.

    Args:
        update: None for a page that is read again in every second, because others share what it reads, or in its turn.
        takes_turns: Whether no other page shares what it reads.
        visitors: How many tabs are open, or are about to be.
        tabs: The open tabs.
        parts: What was read last, with the changes since then.
        known: A hash of each part that the tabs have.
        read_at_s: When it was read, on the monotonic clock.
        turn_s: When a read of it began last, successful or not.
        has_new: Whether it has a new part since then.
    """

    read: Read
    update: Update | None
    takes_turns: bool = False
    visitors: int = 0
    tabs: set[Tab] = field(default_factory=set)
    parts: Parts = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    read_at_s: float = float("-inf")
    turn_s: float = float("-inf")
    has_new: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def join(self, tab: Tab) -> None:
        """Adds a tab. Its first event has all parts."""
        async with self.lock:
            if self.has_new or monotonic() - self.read_at_s >= KEPT_S:
                await self._read_again()
            tab.put_nowait(_event("parts", self.parts))
            self.tabs.add(tab)

    async def refresh(self, changes: Sequence[Change], *, is_old: bool) -> None:
        """Sends the tabs what has changed."""
        async with self.lock:
            if is_old:
                await self._read_again()
            elif changes and self.update is not None:
                parts = await self.update(changes)
                self.has_new = self.has_new or not parts.keys() <= self.parts.keys()
                self.parts = {name: parts.get(name) or html for name, html in self.parts.items()}
                self._send(parts)

    def end(self, error: BaseException) -> None:
        """Ends the streams of a page that cannot be shown any more. Their browsers show how old it is."""
        if isinstance(error, ProblemError):
            _log.info("live.refused", code=error.code, detail=error.detail)
        elif not isinstance(error, ExportWorkerError):
            _log.error("live.failed", exc_info=error)
        send(self.tabs, None)
        self.tabs.clear()

    async def _read_again(self) -> None:
        self.turn_s = monotonic()
        self.parts = await self.read()
        self.read_at_s, self.has_new = monotonic(), False
        self._send(self.parts)

    def _send(self, parts: Parts) -> None:
        """Sends what the tabs do not have. A part of which they know nothing is not on their page."""
        hashes = {name: hash(html) for name, html in parts.items()}
        changed = {
            name: html if name in self.known else ""
            for name, html in parts.items()
            if self.known.get(name) != hashes[name]
        }
        kept = {name: each for name, each in self.known.items() if name not in hashes}
        self.known = dict(list((kept | hashes).items())[-PARTS_MAX:])
        if changed:
            send(self.tabs, _event("parts", changed))


class LivePages:
    """All pages that visitors look at now, and the loop that refreshes them."""

    def __init__(self, context: GatewayContext) -> None:
        self.statuses = BatchedRead(partial(statuses_of, context.queue))
        """Reads the statuses of exports once for all pages."""
        self.details = BatchedRead(partial(details_of, context.queue))
        """Reads everything about exports once for all pages."""
        self._context = context
        self._pages: dict[Hashable, LivePage] = {}
        self._changes: list[Change] | None = []
        self._is_cut_off = self._has_failed = self.is_away = False
        self._task: asyncio.Task[None] | None = None
        self._is_following = asyncio.Event()

    @asynccontextmanager
    async def tab(
        self, key: Hashable, read: Read, update: Update | None, *, takes_turns: bool = False
    ) -> AsyncIterator[Tab]:
        """Yields the events of a new tab. The first one is there at once."""
        page = self._pages.setdefault(key, LivePage(read, update, takes_turns))
        page.visitors += 1
        tab = Tab(EVENTS_MAX)
        try:
            if self._task is None:
                self._task = asyncio.create_task(self._run())
            # The page is read after this. So no change falls between its read and the first change that is followed.
            await self._is_following.wait()
            await page.join(tab)
            yield tab
        finally:
            page.tabs.discard(tab)
            page.visitors -= 1
            if not page.visitors:
                del self._pages[key]

    async def _run(self) -> None:
        """Refreshes all pages until no page is left."""
        others = [asyncio.create_task(each) for each in (self._follow(), self._watch())]
        is_whole = False
        try:
            while self._pages and not await self._stopped():
                await self._refresh(is_whole=is_whole)
                is_whole = not is_whole
        finally:
            self._task = None
            self._is_following.clear()
            await cancel_and_wait(*others)

    async def _watch(self) -> None:
        """Notices a Redis that hangs: then the reads of pages wait for their timeout."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self._show_whether_away()

    async def _follow(self) -> None:
        """Collects the changes of all exports. After an outage of Redis, every page is read again."""
        while True:
            try:
                async with aclosing(self._context.changes.follow(None)) as feed:
                    async for batch in feed:
                        self._is_cut_off = False
                        self._collect(batch)
                        self._is_following.set()
            except ExportWorkerError:
                self._is_cut_off = True
                self._collect(None)
                self._is_following.set()
            await asyncio.sleep(INTERVAL_S)

    def _collect(self, batch: Batch) -> None:
        if batch is None or self._changes is None or len(self._changes) + len(batch) > CHANGES_MAX:
            self._changes = None
        else:
            self._changes += batch

    async def _refresh(self, *, is_whole: bool) -> None:
        """Sends the changes since the last call.

        Args:
            is_whole: Whether pages whose turn it is are read again.
        """
        collected, self._changes = self._changes, []
        pages, now_s = list(self._pages.values()), monotonic()
        if collected is None:
            for page in pages:
                page.read_at_s = min(page.read_at_s, now_s - AGEING_S)
        old = {id(page) for page in self._old(now_s)} if is_whole else set[int]()
        changes = merged(collected or [])
        done = await asyncio.gather(
            *(page.refresh(changes, is_old=id(page) in old) for page in pages), return_exceptions=True
        )
        self._report([(page, error) for page, error in zip(pages, done, strict=True) if error is not None])

    def _old(self, now_s: float) -> list[LivePage]:
        """Returns the pages that are read again in this second."""
        pages = sorted(self._pages.values(), key=lambda page: page.turn_s)
        shared = [page for page in pages if page.update is None and not page.takes_turns]
        aged = [page for page in pages if page.update and now_s - page.read_at_s >= AGEING_S]
        in_turn = [page for page in pages if page.takes_turns]
        return [*shared, *aged[:AGEING_MAX], *in_turn[:TURNS_MAX]]

    def _report(self, failed: Sequence[tuple[LivePage, BaseException]]) -> None:
        """Notes whether Redis can be read. Other failures end the streams of a page: it must not claim to be live."""
        self._has_failed = any(isinstance(error, ServiceUnreachableError) for _, error in failed)
        for page, error in failed:
            if isinstance(error, ServiceUnreachableError):
                page.read_at_s = float("-inf")  # it may have missed a change
            elif page.tabs:
                page.end(error)
        self._show_whether_away()

    def _show_whether_away(self) -> None:
        """Says in all tabs when Redis cannot be read, and when it can be read again."""
        is_silent = self._is_following.is_set() and monotonic() - self._context.changes.read_at_s >= AWAY_AFTER_S
        is_away = self._is_cut_off or self._has_failed or is_silent
        if is_away != self.is_away:
            self.is_away = is_away
            for page in self._pages.values():
                send(page.tabs, _event("away" if is_away else "alive", {}))

    async def _stopped(self) -> bool:
        """Waits until the next refresh. Returns True if the gateway is stopping: then all streams end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CHANGES_INTERVAL_S):
                await self._context.stopping.wait()
        if self._context.stopping.is_set():
            for page in self._pages.values():
                send(page.tabs, None)
        return self._context.stopping.is_set()


LIVE_PAGES = web.AppKey("live_pages", LivePages)


async def stream(
    request: web.Request, page: Hashable, read: Read, update: Update | None = None, *, takes_turns: bool = False
) -> web.StreamResponse:
    """Sends all parts of a page, and then every part that has changed.

    Args:
        page: What distinguishes it from other pages of visitors of the same connections: address and language.
        read: Reads and renders its parts.
        update: Returns the parts that changes of exports change. None: the page is read again every second.
        takes_turns: The page is read again when its turn comes, because no other page shares what it reads.
    """
    context, language, allowed = request.app[CONTEXT], preferences_of(request).lang, allowed_connections(request)

    async def read_all() -> Parts:
        return {**await read(), **badge_parts(language, await recent_overview(request.app, allowed), allowed)}

    pages = request.app[LIVE_PAGES]
    with context.open_stream(request):
        async with pages.tab((page, allowed), read_all, update, takes_turns=takes_turns) as tab:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
            await response.prepare(request)
            events = EventStream(request, response)
            with suppress(ConnectionError, TimeoutError):
                await events.write(f"retry: {RECONNECT_MS}\n\n".encode())
                async with asyncio.timeout(STREAM_MAX_S):
                    while (event := await _next(tab, pages)) is not None:
                        await events.write(event)
    return response


async def stream_state(request: web.Request, template: str, state: State) -> web.StreamResponse:
    """Follows a page that shows the same state to all visitors of the same connections."""
    query(request, *CHOICES)
    app, language, allowed = request.app, preferences_of(request).lang, allowed_connections(request)

    async def read() -> Parts:
        return parts(language, template, await state(app, allowed))

    return await stream(request, (template, language), read)


async def _next(tab: Tab, pages: LivePages) -> bytes | None:
    """Returns the next event, or a sign of life when there is none for some time: a comment while Redis is away."""
    try:
        async with asyncio.timeout(ALIVE_S):
            return await tab.get()
    except TimeoutError:
        return b": keep-alive\n\n" if pages.is_away else _event("alive", {})


def send(tabs: set[Tab], event: bytes | None) -> None:
    """Sends an event to tabs. The stream of a tab that is too slow ends."""
    for tab in tabs:
        if tab.full():
            while not tab.empty():
                tab.get_nowait()
            tab.put_nowait(None)
        else:
            tab.put_nowait(event)


def _event(name: str, parts: Parts) -> bytes:
    return f"event: {name}\ndata: {json.dumps(parts, ensure_ascii=False)}\n\n".encode()

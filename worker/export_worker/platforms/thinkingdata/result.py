"""The result of a SQL task as one download: page after page, the next one opened while one is being read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from export_worker.errors import (
    DownloadInterruptedError,
    PlatformMalformedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    ResultMissingError,
)
from export_worker.platforms.http.client import HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.thinkingdata.api import ThinkingdataApi, envelope_of
from export_worker.platforms.thinkingdata.rows import PageReader, Table
from export_worker.platforms.thinkingdata.settings import ThinkingdataSettings
from export_worker.platforms.thinkingdata.sql import headers_or

PAGE_PATH = "/open/sql-result-page"
PAGE_WAIT_MAX_S = 30.0
"""A transfer holds a place of the worker: a longer wait is spent outside of it."""

_JSON_NAME = "page.json"
"""Pages come as any media type, JSON among them; what says an error is told by its words."""


@dataclass(frozen=True, slots=True)
class ResultStat:
    """What the platform announces of a result.

    Args:
        rows: None where it does not say and need not.
    """

    rows: int | None
    pages: int
    headers: tuple[str, ...]


def result_stat(info: Mapping[str, Any], columns: Sequence[str], settings: ThinkingdataSettings) -> ResultStat:
    """Read the announcement of a finished task.

    Args:
        info: The data of `sql-task-info`.
        columns: Those of the statement.
        settings: Whether the number of rows must be told.

    Raises:
        PlatformMalformedError: It cannot be read.
    """
    stat = info.get("resultStat")
    if not isinstance(stat, Mapping):
        raise PlatformMalformedError("sql-task-info: the task is done and has no resultStat")
    rows, pages, page_rows = (_count(stat, name) for name in ("rowCount", "pageCount", "pageSize"))
    if rows is None and settings.row_count_required:
        raise PlatformMalformedError("sql-task-info: resultStat has no rowCount, so the result could not be checked")
    if pages is None and rows is not None and page_rows:
        pages = -(-rows // page_rows)
    if pages is None:
        raise PlatformMalformedError("sql-task-info: resultStat has no pageCount")
    # A submit without a page size reportedly makes one page, whatever is counted.
    return ResultStat(rows, max(pages, 1) if rows else pages, headers_or(stat.get("headers"), columns))


def _count(stat: Mapping[str, Any], name: str) -> int | None:
    value = stat.get(name)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise PlatformMalformedError(f"sql-task-info: {name} is no number")


class SqlPages:
    """Opens the pages of one task."""

    def __init__(
        self,
        task_id: str,
        *,
        client: HttpClient,
        downloader: Downloader,
        api: ThinkingdataApi,
        settings: ThinkingdataSettings,
    ) -> None:
        self._task_id = task_id
        self._client = client
        self._downloader = downloader
        self._api = api
        self._settings = settings

    async def open(self, number: int) -> "SqlPage":
        """Open one page, counted from 0, and look at its beginning; asks again when it is refused for now.

        Raises:
            DownloadError: It is not there, or is no page.
            PlatformError: No answer, or an error in place of the page.
        """
        retries_left, wait_s = self._settings.page_retries, self._settings.page_retry_s
        while True:
            try:
                return await self._open(number)
            except (PlatformThrottledError, PlatformUnavailableError) as error:
                wait_s = max(wait_s, error.retry_after_s or 0.0)
                if not retries_left or wait_s > PAGE_WAIT_MAX_S:
                    raise
            # The pages before it have been stored: to begin anew for a moment's refusal would never end.
            await asyncio.sleep(wait_s)
            retries_left, wait_s = retries_left - 1, wait_s * 2

    async def _open(self, number: int) -> "SqlPage":
        query = urlencode({"taskId": self._task_id, "pageId": number}, quote_via=quote, safe="")
        url = self._client.address(f"{PAGE_PATH}?{query}")
        async with AsyncExitStack() as stack:
            download = await stack.enter_async_context(self._downloader.open(url, _JSON_NAME))
            chunks = download.chunks()
            if isinstance(chunks, AsyncGenerator):
                stack.push_async_callback(chunks.aclose)
            page = SqlPage(chunks, PageReader(self._check))
            await page.begin()
            page.resources = stack.pop_all()
            return page

    def _check(self, value: Any) -> bool:
        """See `CheckMessage`."""
        envelope = envelope_of(value, f"GET {PAGE_PATH}")
        if envelope is None:
            return False
        problem = self._api.problem(envelope)
        if problem is None:
            return True
        if self._api.is_gone(envelope):
            raise ResultMissingError(str(problem))
        raise problem


class SqlPage:
    """One open page whose beginning is good."""

    def __init__(self, chunks: AsyncIterator[bytes], reader: PageReader) -> None:
        self._chunks = chunks
        self._reader = reader
        self._first = b""
        self.resources = AsyncExitStack()

    async def begin(self) -> None:
        """Read until the beginning is known."""
        while not self._reader.head_known:
            chunk = await anext(self._chunks, None)
            self._first += self._reader.finish() if chunk is None else self._reader.feed(chunk)

    async def lines(self) -> AsyncIterator[bytes]:
        """Whole lines, in pieces of any size."""
        if self._first:
            yield self._first
        async for chunk in self._chunks:
            if lines := self._reader.feed(chunk):
                yield lines
        if lines := self._reader.finish():
            yield lines

    async def aclose(self) -> None:
        """Close the connection, or give it back."""
        await self.resources.aclose()


class SqlResult:
    """All pages as one file. See `platforms.base.Download`.

    Holds the part of a page that has come and a little of the next one, however large they are.
    """

    total_bytes: int | None = None

    def __init__(self, pages: SqlPages, stat: ResultStat, table: Table) -> None:
        self._pages = pages
        self._stat = stat
        self._table = table

    @property
    def content_type(self) -> str:
        """Of the whole file."""
        return self._table.content_type

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file in pieces of any size.

        Raises:
            DownloadError: A page is cut, missing or none, or there are not as many rows as announced.
            PlatformError: A page cannot be had.
        """
        if self._table.header:
            yield self._table.header
        ahead = self._begin(0)
        try:
            while ahead is not None:
                number, page = await ahead
                ahead = self._begin(number + 1)
                async with aclosing(page):
                    async for lines in page.lines():
                        yield self._table.take(lines)
                self._table.end_page()
        finally:
            await _discard(ahead)
        if self._stat.rows is not None and self._table.rows != self._stat.rows:
            raise DownloadInterruptedError(
                f"GET {PAGE_PATH}: {self._table.rows} rows where {self._stat.rows} were announced"
            )

    def _begin(self, number: int) -> "asyncio.Task[tuple[int, SqlPage]] | None":
        return asyncio.create_task(self._numbered(number)) if number < self._stat.pages else None

    async def _numbered(self, number: int) -> tuple[int, SqlPage]:
        return number, await self._pages.open(number)


async def _discard(ahead: "asyncio.Task[tuple[int, SqlPage]] | None") -> None:
    """End a page that nobody will read."""
    if ahead is None:
        return
    ahead.cancel()
    await asyncio.wait({ahead})
    if not ahead.cancelled() and ahead.exception() is None:
        _, page = ahead.result()
        await page.aclose()

"""The result of an SQL task as one download: page after page. The next page is opened while the current one is read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlencode

from export_worker.errors import (
    DownloadInterruptedError,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    ResultMissingError,
)
from export_worker.platforms.http.client import HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.values import count_of
from export_worker.platforms.thinkingdata.api import ThinkingdataApi, envelope_of
from export_worker.platforms.thinkingdata.rows import PageReader, Table
from export_worker.platforms.thinkingdata.settings import ThinkingdataSettings
from export_worker.platforms.thinkingdata.sql import headers_or

PAGE_PATH = "/open/sql-result-page"
PAGES_MAX = 1_000_000
"""Pages of a result whose number of rows is not known. Pages have at least 1,000 rows."""
PAGE_WAIT_MAX_S = 30.0
"""A transfer occupies a slot of the worker, so a longer wait ends the transfer and the worker retries it later."""

_JSON_NAME = "page.json"
"""File name for the downloader. Pages can have any media type, including JSON; errors are detected in their content."""


@dataclass(frozen=True, slots=True)
class ResultStat:
    """The size of a result as the platform announces it.

    Args:
        rows: Number of rows; None if the platform states none and the settings do not require it.
        pages: Number of pages.
        headers: Names of the columns.
    """

    rows: int | None
    pages: int
    headers: tuple[str, ...]


def result_stat(info: Mapping[str, Any], columns: Sequence[str], settings: ThinkingdataSettings) -> ResultStat:
    """Parses the announcement of a finished task.

    Args:
        info: The data of `sql-task-info`.
        columns: Columns of the statement.
        settings: State whether the number of rows is required.

    Raises:
        PlatformMalformedError: The announcement cannot be parsed.
    """
    stat = info.get("resultStat")
    if not isinstance(stat, Mapping):
        raise PlatformMalformedError("sql-task-info: the task is finished but has no resultStat")
    rows, pages, page_rows = (_count(stat, name) for name in ("rowCount", "pageCount", "pageSize"))
    if rows is None and settings.row_count_required:
        raise PlatformMalformedError("sql-task-info: resultStat has no rowCount, so the result could not be checked")
    if pages is None and rows is not None and page_rows:
        pages = -(-rows // page_rows)
    if pages is None:
        raise PlatformMalformedError("sql-task-info: resultStat has no pageCount")
    if pages > (PAGES_MAX if rows is None else rows + 1):
        raise PlatformMalformedError(f"sql-task-info: {rows} rows cannot have {pages} pages")
    headers = _names(stat, "resultStat")
    if headers is None:
        headers = _names(info, "the data beside resultStat")
    # Reportedly, a result that was submitted without a page size has one page, even if pageCount is 0.
    return ResultStat(rows, max(pages, 1) if rows else pages, headers_or(headers, columns))


def _names(values: Mapping[str, Any], where: str) -> list[str] | None:
    """Returns the names of the columns, if there are any. Names in another form could be those of other columns."""
    names = values.get("headers")
    if names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        return names
    raise PlatformMalformedError(f"sql-task-info: headers of {where} is no list of texts")


def _count(stat: Mapping[str, Any], name: str) -> int | None:
    count = count_of(stat.get(name))
    if count is None and stat.get(name) is not None:
        raise PlatformMalformedError(f"sql-task-info: {name} is no number")
    return count


class SqlPages:
    """Opens the pages of one task.

    Args:
        task: The parameters that name the task.
    """

    def __init__(
        self,
        task: Mapping[str, str],
        *,
        client: HttpClient,
        downloader: Downloader,
        api: ThinkingdataApi,
        settings: ThinkingdataSettings,
    ) -> None:
        self._task = task
        self._client = client
        self._downloader = downloader
        self._api = api
        self._settings = settings

    async def open(self, number: int) -> "SqlPage":
        """Opens one page, counted from 0, and checks its beginning. Retries temporary failures.

        Raises:
            DownloadError: The page does not exist, or the response is no page.
            PlatformError: No response, or an error in place of the page.
        """
        retries_left, wait_s = self._settings.page_retries, self._settings.page_retry_s
        while True:
            try:
                return await self._open(number)
            except (PlatformThrottledError, PlatformUnavailableError) as error:
                wait_s = max(wait_s, error.retry_after_s or 0.0)
                if not retries_left or wait_s > PAGE_WAIT_MAX_S:
                    raise
            # Retried here: a retry of the transfer starts at the first page, so a long result might never be complete.
            await asyncio.sleep(wait_s)
            retries_left, wait_s = retries_left - 1, wait_s * 2

    async def _open(self, number: int) -> "SqlPage":
        query = urlencode({**self._task, "pageId": number}, quote_via=quote, safe="")
        url = self._client.url(f"{PAGE_PATH}?{query}")
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
        error = self._api.error_for(envelope)
        if error is None:
            return True
        if isinstance(error, PlatformRefusedError):
            # Whether the task or the page is missing, or the refusal concerns this request only: a poll finds out.
            raise ResultMissingError(str(error))
        raise error


class SqlPage:
    """One open page. `begin` checks its beginning."""

    def __init__(self, chunks: AsyncIterator[bytes], reader: PageReader) -> None:
        self._chunks = chunks
        self._reader = reader
        self._first = b""
        self.resources = AsyncExitStack()

    async def begin(self) -> None:
        """Reads until the reader has checked the beginning."""
        while not self._reader.head_known:
            chunk = await anext(self._chunks, None)
            self._first += self._reader.finish() if chunk is None else self._reader.feed(chunk)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yields complete lines, in pieces of any size."""
        if self._first:
            yield self._first
        async for chunk in self._chunks:
            if lines := self._reader.feed(chunk):
                yield lines
        if lines := self._reader.finish():
            yield lines

    async def aclose(self) -> None:
        """Closes the connection, or returns it to the pool."""
        await self.resources.aclose()


class SqlResult:
    """All pages as one file. See `platforms.base.Download` and `Computed`: a page may wait for the rate limit.

    Memory holds the received piece of one page and the beginning of the next page, whatever the size of the pages.
    """

    total_bytes: int | None = None
    is_computed: Literal[True] = True

    def __init__(self, pages: SqlPages, stat: ResultStat, table: Table) -> None:
        self._pages = pages
        self._stat = stat
        self._table = table

    @property
    def content_type(self) -> str:
        """Media type of the whole file."""
        return self._table.content_type

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the file in pieces of any size.

        Raises:
            DownloadError: A page is cut, missing or no page, or the number of rows is not the announced one.
            PlatformError: A page cannot be opened.
        """
        if self._table.header:
            yield self._table.header
        next_page = self._open_ahead(0)
        try:
            while next_page is not None:
                number, page = await next_page
                next_page = self._open_ahead(number + 1)
                async with aclosing(page):
                    async for lines in page.lines():
                        yield self._table.add(lines)
                self._table.end_page()
        finally:
            await _discard(next_page)
        if self._stat.rows is not None and self._table.rows != self._stat.rows:
            raise DownloadInterruptedError(
                f"GET {PAGE_PATH}: {self._table.rows} rows where {self._stat.rows} were announced"
            )

    def _open_ahead(self, number: int) -> "asyncio.Task[tuple[int, SqlPage]] | None":
        return asyncio.create_task(self._numbered(number)) if number < self._stat.pages else None

    async def _numbered(self, number: int) -> tuple[int, SqlPage]:
        return number, await self._pages.open(number)


async def _discard(next_page: "asyncio.Task[tuple[int, SqlPage]] | None") -> None:
    """Cancels and closes a page that was opened ahead and will not be read."""
    if next_page is None:
        return
    next_page.cancel()
    await asyncio.wait({next_page})
    if not next_page.cancelled() and next_page.exception() is None:
        _, page = next_page.result()
        await page.aclose()

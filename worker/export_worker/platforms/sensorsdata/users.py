"""The users of a group as one file: queries by key range, one after the other, each turned into lines as it comes."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from export_worker.errors import DownloadInterruptedError, DownloadInvalidError
from export_worker.platforms.http.client import PROBLEM_MAX_BYTES, Auth, Call, HttpClient, read_up_to
from export_worker.platforms.http.responses import HttpResponse, error_for, one_line
from export_worker.platforms.sensorsdata.sql import Listing, Reader, Row

LINE_MAX_BYTES = 8 * 1024 * 1024
"""A v3 line may hold a whole page; 10,000 users with a few columns are about 1 MiB."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be listed, and how.

    Args:
        listing: The users.
        columns: Of the file, in order.
        ndjson: One JSON object a line; otherwise CSV with a header.
        user_count: Users that the platform has announced; None when it has not, or when it is not to be trusted.
    """

    listing: Listing
    columns: tuple[str, ...]
    ndjson: bool
    user_count: int | None


class QueryClient:
    """Asks one connection's SQL API, of either version.

    Args:
        call_of: The call for a statement.
        reader_of: Reads the answer to it.
    """

    def __init__(
        self, client: HttpClient, auth: Auth, call_of: Callable[[str], Call], reader_of: Callable[[], Reader]
    ) -> None:
        self._client = client
        self._auth = auth
        self._call_of = call_of
        self._reader_of = reader_of

    async def rows(self, statement: str) -> AsyncGenerator[list[Row], None]:
        """The rows as they come.

        Raises:
            PlatformError: No answer, or an error status.
            DownloadInterruptedError: The answer is cut, or stands still.
            DownloadInvalidError: The answer says in its midst that something is wrong, or is none.
        """
        call = self._call_of(statement)
        reader = self._reader_of()
        async with self._answer(call) as response, aclosing(_lines(response)) as read:
            try:
                async for lines in read:
                    rows = [row for line in lines for row in reader.rows(line)]
                    if rows:
                        yield rows
                reader.end()
            except DownloadInvalidError as error:
                raise DownloadInvalidError(one_line(f"{call}: {error}", self._client.redactor)) from None
            except TimeoutError:
                raise DownloadInterruptedError(f"{call}: the answer stands still") from None
            except (aiohttp.ClientError, OSError) as error:
                raise DownloadInterruptedError(f"{call}: {self._client.reason(error)}") from None

    @asynccontextmanager
    async def _answer(self, call: Call) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose head is good."""
        credential = await self._auth.credential()
        with self._client.mapped_failures(str(call)):
            response = await self._client.open_stream(call, credential)
        try:
            await self._check(call, response)
            yield response
        finally:
            response.close()

    async def _check(self, call: Call, response: aiohttp.ClientResponse) -> None:
        is_page = response.content_type in {"text/html", "application/xhtml+xml"}
        if response.status == 200 and not is_page:
            return
        with self._client.mapped_failures(str(call)):
            body = await read_up_to(response, PROBLEM_MAX_BYTES)
        problem = error_for(HttpResponse(str(call), response.status, response.headers, body), self._client.redactor)
        if problem is not None:
            raise problem
        text = body.decode(errors="replace")
        raise DownloadInvalidError(one_line(f"{call}: a page where rows were to come: {text}", self._client.redactor))


class UserList:
    """The file. Satisfies `platforms.base.Download`; its length is not known before."""

    total_bytes: int | None = None

    def __init__(self, queries: QueryClient, order: Order) -> None:
        self._queries = queries
        self._order = order
        self._count = 0
        self._last_key: int | None = None

    @property
    def content_type(self) -> str:
        """Of the file that is made."""
        return "application/x-ndjson" if self._order.ndjson else "text/csv"

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file, a piece for every few rows.

        Raises:
            PlatformError: A query got no answer, or an error.
            DownloadInterruptedError: An answer is cut, or the list is not as long as announced.
            DownloadInvalidError: An answer has an error within, or rows that do not follow each other.
        """
        if not self._order.ndjson:
            yield csv_line(self._order.columns)
        more = True
        while more:
            before = self._count
            async with aclosing(self._queries.rows(self._order.listing.statement(self._last_key))) as answer:
                async for rows in answer:
                    yield self._written(rows)
            more = self._has_more(self._count - before)
        self._check_count()

    def _written(self, rows: list[Row]) -> bytes:
        columns, listing = self._order.columns, self._order.listing
        for row in rows:
            self._follow(listing.key_of(row))
        self._count += len(rows)
        picked = ([row.get(name) for name in columns] for row in rows)
        if self._order.ndjson:
            return b"".join(json_line(dict(zip(columns, values, strict=True))) for values in picked)
        return b"".join(map(csv_line, picked))

    def _follow(self, key: int) -> None:
        """Keys grow from row to row, or pages would leave users out, tell them twice, or never end."""
        if self._order.listing.page_rows and self._last_key is not None and key <= self._last_key:
            raise DownloadInvalidError(f"the rows are not in the order of their keys: {key} after {self._last_key}")
        self._last_key = key

    def _has_more(self, page_rows: int) -> bool:
        """A short page is the last one, unless users are missing: a server may allow fewer rows than were asked for."""
        asked_rows, expected = self._order.listing.page_rows, self._order.user_count
        if not asked_rows or page_rows == 0:
            return False
        return page_rows >= asked_rows or (expected is not None and self._count < expected)

    def _check_count(self) -> None:
        expected = self._order.user_count
        if expected is not None and self._count != expected:
            raise DownloadInterruptedError(f"the list has {self._count} users where the group has {expected}")


def csv_line(values: Iterable[Any]) -> bytes:
    """One line of RFC 4180 in UTF-8, ended by a line feed. NULL is an empty field."""
    line = ",".join(map(_cell, values))
    return f"{line or _QUOTED_NOTHING}\n".encode(errors="replace")


def json_line(row: Row) -> bytes:
    """One object on a line of its own."""
    return json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n"


_QUOTED_NOTHING = '""'
"""A line with a single empty field; a blank line would be none."""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if any(mark in text for mark in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[list[bytes], None]:
    """The lines of a body, as many at once as a read brings; the last one may have no end."""
    rest = bytearray()
    async for piece in response.content.iter_any():
        *lines, tail = piece.split(b"\n")
        if lines:
            yield [bytes(rest) + lines[0], *lines[1:]]
            rest.clear()
        rest += tail
        if len(rest) > LINE_MAX_BYTES:
            raise DownloadInvalidError(f"a line of the answer has more than {LINE_MAX_BYTES} bytes; lower page_rows")
    if rest:
        yield [bytes(rest)]

"""The users of a group as one file. Each query selects a range of keys; its rows become lines as they arrive."""

from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from export_worker.errors import (
    DownloadInterruptedError,
    DownloadInvalidError,
    PlatformRefusedError,
    PlatformUnavailableError,
)
from export_worker.platforms.http.bodies import read_error_page
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.codings import CodingError, UnknownCodingError, body_of
from export_worker.platforms.http.outgoing import Auth
from export_worker.platforms.http.responses import HttpResponse, error_for, excerpt_of_page, one_line
from export_worker.platforms.sensorsdata.pages import PageSize
from export_worker.platforms.sensorsdata.sql import LineReader, Listing, Row, json_text

LINE_MAX_BYTES = 8 * 1024 * 1024
"""A v3 line may hold a whole page; 10,000 users with a few columns are about 1 MiB."""

_TOO_LARGE = (PlatformRefusedError, PlatformUnavailableError, DownloadInvalidError, DownloadInterruptedError)
"""How a server, or a gateway before it, may respond to a query for too many rows."""


@dataclass(frozen=True, slots=True)
class UserListSpec:
    """Which users the file has, and in which format.

    Args:
        listing: The users.
        columns: Columns of the file, in order.
        ndjson: One JSON object a line; otherwise CSV with a header.
        user_count: Number of users that the platform announced; None when it announced none, or when the number does
            not apply to this list.
        page_rows: Users in the first query; 0 means all.
        page_rows_max: Users in the largest query.
    """

    listing: Listing
    columns: tuple[str, ...]
    ndjson: bool
    user_count: int | None
    page_rows: int
    page_rows_max: int


class QueryClient:
    """Queries one connection's SQL API, v2 or v3.

    Args:
        client: Client of the connection.
        auth: Authentication of the SQL API.
        call_of: Builds the call for a statement and its limit; a limit of 0 is none.
        new_reader: Builds a reader for one response.
    """

    def __init__(
        self, client: HttpClient, auth: Auth, call_of: Callable[[str, int], Call], new_reader: Callable[[], LineReader]
    ) -> None:
        self._client = client
        self._auth = auth
        self._call_of = call_of
        self._new_reader = new_reader

    async def rows(self, statement: str, limit: int = 0) -> AsyncGenerator[list[Row], None]:
        """Yields the rows of a statement while the response is read. `limit` is the limit in the statement.

        Raises:
            PlatformError: No response, or an error status.
            DownloadInterruptedError: The response is cut, or stalls.
            DownloadInvalidError: The response contains an error after its head, or is no response to a query.
        """
        call = self._call_of(statement, limit)
        reader = self._new_reader()
        async with self._response(call) as response, aclosing(_lines(response)) as read:
            try:
                async for lines in read:
                    rows = [row for line in lines for row in reader.rows(line)]
                    if rows:
                        yield rows
                reader.end()
            except DownloadInvalidError as error:
                raise DownloadInvalidError(one_line(f"{call}: {error}", self._client.redactor)) from None
            except TimeoutError:
                raise DownloadInterruptedError(f"{call}: the response stalled") from None
            except UnknownCodingError as error:
                raise DownloadInvalidError(f"{call}: {self._client.reason(error)}") from None
            except (aiohttp.ClientError, CodingError, OSError) as error:
                raise DownloadInterruptedError(f"{call}: {self._client.reason(error)}") from None

    @asynccontextmanager
    async def _response(self, call: Call) -> AsyncIterator[aiohttp.ClientResponse]:
        """Sends a call and yields the response after checking its head."""
        credential = await self._auth.credential()
        with self._client.translate_errors(str(call)):
            response = await self._client.open_stream(call, credential)
        if response.status == 401 and (fresh := await self._auth.renew(credential)) is not None:
            response.close()
            with self._client.translate_errors(str(call)):
                response = await self._client.open_stream(call, fresh)
        try:
            await self._check(call, response)
            yield response
        finally:
            response.close()

    async def _check(self, call: Call, response: aiohttp.ClientResponse) -> None:
        is_page = response.content_type in {"text/html", "application/xhtml+xml"}
        if response.status == 200 and not is_page:
            return
        with self._client.translate_errors(str(call)):
            body = await read_error_page(response, self._client.read_timeout_s)
        error = error_for(HttpResponse(str(call), response.status, response.headers, body), self._client.redactor)
        if error is not None:
            raise error
        excerpt = excerpt_of_page(body, self._client.redactor)  # it may be rows with a wrong label
        raise DownloadInvalidError(f"{call}: HTML where rows were expected: {excerpt}")


class UserList:
    """The list of users as a file. Implements `platforms.base.Download` and `Computed`.

    The length is not known in advance.
    """

    total_bytes: int | None = None
    is_computed: Literal[True] = True

    def __init__(self, queries: QueryClient, spec: UserListSpec) -> None:
        self._queries = queries
        self._spec = spec
        self._size = PageSize(spec.page_rows, spec.page_rows_max)
        self._count = 0
        self._last_key: int | None = None

    @property
    def content_type(self) -> str:
        """Media type of the file."""
        return "application/x-ndjson" if self._spec.ndjson else "text/csv"

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the file in pieces of a few rows.

        Raises:
            PlatformError: A query got no response, or an error.
            DownloadInterruptedError: A response is cut, the number of users is not the announced one, or the list ends
                early.
            DownloadInvalidError: A response contains an error, or rows that are not in the order of their keys.
        """
        if not self._spec.ndjson:
            yield csv_line(self._spec.columns)
        more = True
        while more:
            before = self._count
            try:
                async with aclosing(self._page()) as pages:
                    async for rows in pages:
                        yield self._lines_of(rows)
            except _TOO_LARGE:
                # A server that cannot return a large page may return a small one. Its rows have not been written yet.
                if self._count > before or not self._size.shrink():
                    raise
                continue
            expected = self._spec.user_count
            missing = None if expected is None else self._count < expected
            more = self._size.has_more(self._count - before, missing=missing)
        self._check_count()
        await self._check_end()

    def _page(self) -> AsyncGenerator[list[Row], None]:
        return self._queries.rows(self._spec.listing.statement(self._last_key, self._size.rows), self._size.rows)

    def _lines_of(self, rows: list[Row]) -> bytes:
        columns, listing = self._spec.columns, self._spec.listing
        for number, row in enumerate(rows, self._count + 1):
            self._check_names(row, number)
            self._check_order(listing.key_of(row), number)
        self._count += len(rows)
        selected = ([row.get(name) for name in columns] for row in rows)
        if self._spec.ndjson:
            return b"".join(json_line(dict(zip(columns, values, strict=True))) for values in selected)
        return b"".join(map(csv_line, selected))

    def _check_names(self, row: Row, number: int) -> None:
        """Refuses a row in which a column has another name. A column that is left out is a NULL."""
        missing = [name for name in self._spec.listing.columns if name not in row]
        if missing and not row.keys() <= set(self._spec.listing.columns):
            raise DownloadInvalidError(f"row {number} has no {missing[0]}, but columns that were not selected")

    def _check_order(self, key: int, number: int) -> None:
        """Checks that keys increase, if there are pages. Otherwise pages could skip or repeat users, or never end."""
        if self._spec.page_rows and self._last_key is not None and key <= self._last_key:
            raise DownloadInvalidError(f"the rows are not in the order of their keys: see row {number}")
        self._last_key = key

    async def _check_end(self) -> None:
        """Checks that no user follows the last one, if the number of users is not known.

        The rows that it finds are not added: they may be of another computation than those before.
        """
        if self._spec.user_count is not None or not self._spec.page_rows:
            return
        async with aclosing(self._page()) as pages:
            async for _ in pages:
                raise DownloadInterruptedError(
                    f"more users follow the last of {self._count}: the response ended early, the group was computed "
                    "again, or the server returns fewer rows than page_rows; for the last, lower page_rows"
                )

    def _check_count(self) -> None:
        expected = self._spec.user_count
        if expected is not None and self._count != expected:
            raise DownloadInterruptedError(f"the list has {self._count} users where the group has {expected}")


def csv_line(values: Iterable[Any]) -> bytes:
    """Returns one CSV line (RFC 4180) in UTF-8, ended by a line feed. NULL becomes an empty field."""
    line = ",".join(map(_cell, values))
    return f"{line or _EMPTY_FIELD}\n".encode(errors="replace")


def json_line(row: Row) -> bytes:
    """Returns one JSON object in UTF-8, ended by a line feed."""
    return json_text(row).encode(errors="replace") + b"\n"


_EMPTY_FIELD = '""'
"""A line with one empty field. Readers of CSV ignore a blank line."""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json_text(value)
    if any(char in text for char in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[list[bytes], None]:
    """Yields the lines of a body: after each read, all complete lines. The last line may have no line end.

    Byte order marks at the beginning are no part of the first line.
    """
    rest = bytearray()
    async for piece in _without_marks(body_of(response)):
        *lines, tail = piece.split(b"\n")
        if lines:
            yield [bytes(rest) + lines[0], *lines[1:]]
            rest.clear()
        rest += tail
        if len(rest) > LINE_MAX_BYTES:
            raise DownloadInvalidError(f"a line of the response has more than {LINE_MAX_BYTES} bytes; lower page_rows")
    if rest:
        yield [bytes(rest)]


async def _without_marks(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yields a body without the byte order marks at its beginning."""
    beginning: bytes | None = b""
    async for piece in pieces:
        if beginning is None:
            yield piece
            continue
        beginning += piece
        while beginning.startswith(BOM_UTF8):
            beginning = beginning.removeprefix(BOM_UTF8)
        if not BOM_UTF8.startswith(beginning):
            yield beginning
            beginning = None
    if beginning:
        yield beginning

"""A result that consists of pages, as one file. Each page is written as soon as it was read."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Literal

from export_worker.errors import DownloadInvalidError
from export_worker.platforms.http.responses import HttpResponse
from export_worker.platforms.recipe.api import RecipeApi
from export_worker.platforms.recipe.joining import HEADER_MAX_BYTES, count_records, first_record
from export_worker.platforms.recipe.listing import PagedRequest, pages
from export_worker.recipes.model import Pages

PAGES_MAX = 100_000
"""Pages of one result. More would be a list that does not end."""
_ESCAPED = ',"\r\n'
_EMPTY_FIELD = '""'
"""A line with one empty field. Readers of CSV ignore a blank line."""


class PagedFile:
    """The pages as a file. Implements `platforms.base.Download` and `Computed`. The length is not known in advance.

    Args:
        api: Calls the API.
        request: The requests for the pages.
        spec: The part of the recipe.
    """

    total_bytes: int | None = None
    is_computed: Literal[True] = True
    validator: str | None = None
    offset_bytes = 0

    def __init__(self, api: RecipeApi, request: PagedRequest, spec: Pages) -> None:
        self._api = api
        self._request = request
        self._spec = spec
        self._columns: Sequence[str] = spec.columns

    @property
    def content_type(self) -> str:
        """Media type of the file."""
        return "text/csv" if "csv" in (self._spec.format, self._spec.source) else "application/x-ndjson"

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the file, page by page.

        Raises:
            PlatformError: The API did not give a usable answer.
            DownloadInvalidError: A page cannot be a part of the file, or there are too many.
        """
        source = self._csv_pages() if self._spec.source == "csv" else self._json_pages()
        count = 0
        async with aclosing(source) as read:
            async for piece in read:
                count += 1
                if count > PAGES_MAX:
                    raise DownloadInvalidError(f"the result does not end: it has more than {PAGES_MAX} pages")
                yield piece

    async def _json_pages(self) -> Any:
        is_first = True
        async with aclosing(pages(self._api, self._request)) as read:
            async for items in read:
                if self._spec.format == "csv":
                    yield self._csv_lines(items, is_first=is_first)
                else:
                    yield b"".join(map(_json_line, items))
                is_first = False

    def _csv_lines(self, items: list[Any], *, is_first: bool) -> bytes:
        if not all(isinstance(item, dict) for item in items):
            raise DownloadInvalidError("a page has an item that is no object, so it has no columns")
        if is_first and not self._columns:
            self._columns = tuple(dict.fromkeys(name for item in items for name in item))
        lines = [_csv_line(self._columns)] if is_first and self._columns else []
        for item in items:
            self._check_members(item)
            lines.append(_csv_line([item.get(name) for name in self._columns]))
        return b"".join(lines)

    def _check_members(self, item: dict[str, Any]) -> None:
        """Refuses a member without a column, if the columns are not chosen by the recipe."""
        if self._spec.columns:
            return
        other = item.keys() - set(self._columns)
        if other:
            raise DownloadInvalidError(
                f"an item has {len(other)} members that those of the first page do not have; "
                "list the columns in the recipe, or use the format jsonl"
            )

    async def _csv_pages(self) -> Any:
        header: bytes | None = None
        previous: bytes | None = None
        more = True
        while more:
            response = await self._api.response(self._request.call())
            body = _csv_body(response)
            first = first_record(body)
            rows = body[len(first) :]
            if header is None:
                header = first
                yield body
            elif first.strip() != header.strip():
                raise DownloadInvalidError(f"{response.call}: the header differs from that of the first page")
            else:
                yield rows
            more = bool(rows) and self._request.advance(count_records(rows))
            if more and body == previous:
                raise DownloadInvalidError(f"{response.call}: two pages in a row are the same")
            previous = body


def _csv_body(response: HttpResponse) -> bytes:
    """Returns the body of a page of CSV, ended by a line end."""
    media_type = response.headers.get("Content-Type", "").lower()
    if "json" in media_type or "html" in media_type:
        raise DownloadInvalidError(f"{response.call}: {media_type.partition(';')[0]} where CSV was expected")
    body = response.body
    if body and len(first_record(body)) > HEADER_MAX_BYTES:
        raise DownloadInvalidError(f"{response.call}: the header has more than {HEADER_MAX_BYTES} bytes")
    return body if not body or body.endswith(b"\n") else body + b"\n"


def _json_line(item: Any) -> bytes:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"


def _csv_line(values: Sequence[Any]) -> bytes:
    """Returns one CSV line (RFC 4180) in UTF-8. Null becomes an empty field, a list or an object its JSON."""
    line = ",".join(map(_cell, values))
    return f"{line or _EMPTY_FIELD}\n".encode(errors="replace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if any(char in text for char in _ESCAPED):
        return '"' + text.replace('"', '""') + '"'
    return text

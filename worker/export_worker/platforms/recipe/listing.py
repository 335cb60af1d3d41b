"""Reads lists page by page: for the catalog, and for results that are pages."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from export_worker.errors import PlatformMalformedError
from export_worker.platforms.http.client import Call
from export_worker.platforms.http.listings import ListingLimit
from export_worker.platforms.http.responses import storable_text
from export_worker.platforms.recipe.api import RecipeApi
from export_worker.platforms.recipe.requests import Document, call_of
from export_worker.recipes.model import Listing
from export_worker.recipes.templates import TemplateError, as_text, expression, template, templates_in
from export_worker.recipes.types import TABLE_MAX

CURSOR_MAX_CHARS = 4096


class PagedRequest:
    """The requests for the pages of one list.

    Args:
        listing: The part of the recipe.
        headers: Those of the recipe.
        document: The values that templates name.
    """

    def __init__(self, listing: Listing, headers: Mapping[str, str], document: Document) -> None:
        self.listing = listing
        self._headers = headers
        self._document = document
        self._page: int = listing.first_page
        self._offset = 0
        self._cursor: str | int | float | None = None
        self._cursors: set[int] = set()
        self._query: Mapping[str, Sequence[str]] | None = None
        self._has_position = not _names(listing).isdisjoint({"offset", "page"})

    def call(self) -> Call:
        """Returns the call for the next page."""
        position = {"page": self._page, "offset": self._offset, "cursor": self._cursor}
        call = call_of(self.listing, self._headers, {**self._document, **position})
        return call if self._query is None else replace(call, query=self._query)

    def advance(self, count: int, answer: Any = None) -> bool:
        """Notes a page that was read, and returns whether another one follows.

        Args:
            count: How many items it had.
            answer: The JSON of the page.

        Raises:
            PlatformMalformedError: The API repeats a cursor, so the list would never end, or the cursor cannot be sent.
        """
        self._page += 1
        self._offset += count
        source = self.listing.next or self.listing.next_link
        if source is not None:
            return self._has_next(source, answer)
        return self._has_position and count >= (self.listing.size or 1)

    def _has_next(self, source: str, answer: Any) -> bool:
        found = found_in(source, answer)
        if found is None or found is False or found == "":
            return False
        text = storable_text(as_text(found), CURSOR_MAX_CHARS)
        query = query_of_link(text) if text is not None and self.listing.next_link is not None else None
        if text is None or (query is None and self.listing.next is None):
            raise PlatformMalformedError(f"the cursor of the next page, at {source}, is no text or is too long")
        if hash(text) in self._cursors:
            raise PlatformMalformedError(f"the cursor of the next page, at {source}, is the same again")
        self._cursors.add(hash(text))
        self._cursor, self._query = found, query
        return True


def query_of_link(link: str) -> Mapping[str, Sequence[str]] | None:
    """Returns the parameters of an address, decoded. The rest of it is not used, so it cannot lead to another host.

    Returns:
        None if there are too many, or if they are not UTF-8.
    """
    query = link.partition("#")[0].partition("?")[2]
    try:
        return parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=TABLE_MAX)
    except ValueError:
        return None


def _names(listing: Listing) -> frozenset[str]:
    trees = (listing.path, listing.query, listing.headers, listing.json_body, listing.form)
    variables = listing.graphql.variables if listing.graphql is not None else {}
    return frozenset(
        name for tree in (*trees, variables) for text in templates_in(tree) for name in template(text).names
    )


def found_in(source: str, answer: Any) -> Any:
    """Returns what an expression finds in an answer. Raises PlatformMalformedError if it cannot be evaluated."""
    try:
        return expression(source).value(answer)
    except TemplateError as error:
        raise PlatformMalformedError(str(error)) from None


async def pages(api: RecipeApi, request: PagedRequest, *, is_listing: bool = False) -> AsyncGenerator[list[Any], None]:
    """Yields the items of each page.

    Args:
        is_listing: See `Call`.

    Raises:
        PlatformError: The API did not give a usable answer, or the list does not end.
    """
    more, previous = True, None
    while more:
        call = request.call()
        answer = await api.answer(replace(call, is_listing=is_listing))
        items = found_in(request.listing.items, answer)
        if not isinstance(items, list):
            raise PlatformMalformedError(f"{call}: the answer has no list at {request.listing.items}")
        more = request.advance(len(items), answer)
        if items and more and items == previous:
            raise PlatformMalformedError(f"{call}: two pages in a row are the same")
        previous = items
        yield items


async def listed(api: RecipeApi, name: str, request: PagedRequest) -> list[dict[str, Any]]:
    """Returns the items of all pages of a listing of the catalog.

    Raises:
        PlatformError: The API did not give a usable answer, or the list is too long.
    """
    found: list[dict[str, Any]] = []
    limit = ListingLimit(name)
    async with aclosing(pages(api, request, is_listing=True)) as read:
        async for items in read:
            limit.add(items)
            found += [item if isinstance(item, dict) else {"id": item} for item in items]
    return found

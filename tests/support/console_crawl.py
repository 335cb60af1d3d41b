"""Visits the pages of the console over HTTP, and follows their links."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from urllib.parse import urlsplit

from export_producers.console.visitors.preferences import CHOICES
from support.gateway_site import GatewaySite, Response

PREFERENCES = "|".join(CHOICES)
LINKS_MAX = 400
"""Addresses that a crawl visits at most, so that links that never end are found."""


class Page(HTMLParser):
    """What a page has: the attributes of its elements, the texts of headings, and its links."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        self.tags.append((tag, dict(attrs)))

    def count(self, tag: str) -> int:
        """Returns how many elements of a name there are."""
        return sum(name == tag for name, _ in self.tags)

    def values(self, tag: str, name: str) -> list[str]:
        """Returns the values of an attribute."""
        return [str(found[name]) for each, found in self.tags if each == tag and found.get(name)]

    @property
    def links(self) -> list[str]:
        """The addresses of other pages of the console and of the API."""
        return [link for link in self.values("a", "href") if link.startswith(("/console/", "/v1/"))]


async def visit(console: GatewaySite, path: str, **more: object) -> Response:
    """Returns a page. A stream is not read to its end."""
    if "/live/" not in path:
        return await console.call("GET", path, **more)
    async with console.client.get(console.url + path, **more) as found:  # type: ignore[arg-type]
        return Response(found.status, found.headers, await found.content.readany())


async def crawl(console: GatewaySite, paths: list[str], language: str) -> AsyncIterator[tuple[str, Response]]:
    """Yields each page that the paths and the links of the pages lead to, without other pages of the same list."""
    seen: set[str] = set()
    waiting = [*paths]
    while waiting:
        path = waiting.pop(0)
        place = urlsplit(path)
        if f"{place.path}?{sorted(place.query.split('&'))}" in seen or re.search(f"[?&]({PREFERENCES})=", path):
            continue
        seen.add(f"{place.path}?{sorted(place.query.split('&'))}")
        assert len(seen) <= LINKS_MAX, path
        response = await visit(console, path, headers={"Accept-Language": language})
        yield path, response
        if response.headers["Content-Type"].startswith("text/html"):
            waiting += Page(response.body.decode()).links

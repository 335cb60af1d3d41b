"""Listings of a platform: a limit for those that have pages, which may never end, and how an item is looked up."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from export_worker.contract.dry_run import Preview
from export_worker.errors import PlatformMalformedError
from export_worker.platforms.http.responses import storable_text

PAGES_MAX = 1000
"""A million items on pages of 1,000: a longer listing would probably never end."""
NAME_MAX_CHARS = 512
"""Limit of a name in a request. A longer name of the platform is not shown."""
LISTING_TOTAL_MAX_BYTES = 64 * 1024 * 1024
"""All pages together, as JSON. A catalog is held in memory as a whole, and so is the answer of the gateway."""


class ListingLimit:
    """Counts the pages of one listing.

    Args:
        name: What is listed, for the message.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pages = 0
        self._bytes = 0

    def add(self, page: Sequence[Any]) -> None:
        """Counts one page.

        Raises:
            PlatformMalformedError: The listing is too long.
        """
        self._pages += 1
        self._bytes += len(json.dumps(page))
        if self._pages > PAGES_MAX or self._bytes > LISTING_TOTAL_MAX_BYTES:
            raise PlatformMalformedError(
                f"{self._name}: the listing does not end: it has more than {PAGES_MAX} pages or "
                f"{LISTING_TOTAL_MAX_BYTES // 2**20} MiB"
            )


def look_up(items: Iterable[Mapping[str, Any]], column: str, value: str) -> Preview:
    """Returns what a listing has of the item with this value in a column. Listings state no number of users."""
    found = next((item for item in items if item.get(column) == value), None)
    name = None if found is None else storable_text(found.get("name"), NAME_MAX_CHARS)
    return Preview(found=found is not None, name=name)

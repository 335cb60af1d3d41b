"""A limit for listings that have pages: a platform may send further pages without end."""

import json
from collections.abc import Sequence
from typing import Any

from export_worker.errors import PlatformMalformedError

PAGES_MAX = 1000
"""A million items on pages of 1,000: a longer listing would probably never end."""
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

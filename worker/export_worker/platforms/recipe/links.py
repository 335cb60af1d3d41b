"""The links of the files of a finished job. They may be secrets and expire, so they are kept in memory only."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from yarl import URL

from export_worker.errors import PlatformMalformedError, ResultMissingError
from export_worker.lifecycle.observations import check_file_count
from export_worker.platforms.http.client import HttpClient
from export_worker.platforms.http.responses import storable_text
from export_worker.platforms.http.urls import is_usable_url
from export_worker.recipes.templates import TemplateError, expression

LINK_MAX_CHARS = 8192
"""Signed links have one or two thousand characters."""
NAME_MAX_CHARS = 255
JOBS_MAX = 16
"""Jobs whose links are kept. A worker transfers a few exports at once; the links of others are asked for again."""
_URL_PUNCTUATION = "%:/?#[]@!$&'()*+,;=~"
_PACKED_ENDINGS = (".gz", ".gzip", ".zip")


class NoLinkError(PlatformMalformedError):
    """The API says that the job has succeeded, and its answer has no link."""


class Links:
    """Keeps the links of jobs for as long as they are valid.

    Args:
        clock: Monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Sequence[URL]]] = OrderedDict()

    def keep(self, job: str, links: Sequence[URL]) -> None:
        """Keeps the links that the API has just returned."""
        self._kept[job] = (self._clock(), links)
        self._kept.move_to_end(job)
        while len(self._kept) > JOBS_MAX:
            self._kept.popitem(last=False)

    def forget(self, job: str) -> None:
        """Forgets the links of a job: the server has refused one of them."""
        self._kept.pop(job, None)

    async def of(self, job: str, expires_s: float, ask: Callable[[], Awaitable[Sequence[URL]]]) -> Sequence[URL]:
        """Returns the links of a job: those that are kept, or new ones.

        Args:
            job: What distinguishes the job from every other one. Its id does not: kinds may count on their own.
            expires_s: Seconds for which a link is valid.
            ask: Asks the API for links.
        """
        asked_at, links = self._kept.get(job, (0.0, ()))
        if links and self._clock() - asked_at < expires_s:
            return links
        fresh = await ask()
        self.keep(job, fresh)
        return fresh


def links_in(source: str, answer: Any, client: HttpClient) -> list[URL]:
    """Returns the links that an expression finds in an answer; none if it finds an empty list.

    Raises:
        NoLinkError: It finds nothing.
        PlatformMalformedError: Something that it finds is no link.
        TooManyFilesError: There are more links than an export may have files.
    """
    try:
        found = expression(source).value(answer)
    except TemplateError as error:
        raise PlatformMalformedError(str(error)) from None
    if found is None or found == "":
        raise NoLinkError(f"the answer has no link at {source}")
    items = found if isinstance(found, list) else [found]
    check_file_count(len(items))
    return [link_of(item, client) for item in items]


def link_of(value: Any, client: HttpClient) -> URL:
    """Returns a link: an address, or a path below the address of the connection. Existing percent-encoding is kept.

    Raises:
        PlatformMalformedError: It cannot be used. The message does not show it: it may be a secret.
    """
    text = storable_text(value, LINK_MAX_CHARS)
    if text is not None and text.isprintable():
        encoded = quote(text.strip(), safe=_URL_PUNCTUATION)
        try:
            is_path = encoded.startswith("/") and not encoded.startswith("//")
            url = client.url(encoded) if is_path else URL(encoded, encoded=True)
            if is_usable_url(url) and url.raw_user is None:
                return url.with_fragment(None)
        except ValueError:
            pass
    raise PlatformMalformedError("the answer has a link that is no http:// or https:// address and no path")


def link_with(links: Sequence[URL], number: int) -> URL:
    """Returns the link of the file with this number. Raises ResultMissingError."""
    if not 1 <= number <= len(links):
        raise ResultMissingError(f"the API names {len(links)} links now, and none for file {number}")
    return links[number - 1]


def name_of_link(link: URL, number: int) -> str:
    """Returns the name of a file: the last part of the link's path, or a name with the number if that is empty."""
    name = unquote(link.raw_path.rpartition("/")[2]).replace("/", "_")[-NAME_MAX_CHARS:]
    text = storable_text(name, NAME_MAX_CHARS)
    return text if text is not None and text.isprintable() else f"file-{number}"


def unpacked_name(name: str) -> str:
    """Returns the name of a file that is unpacked: `users.csv` for `users.csv.gz`."""
    for ending in _PACKED_ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def packed_name(link: URL, name: str) -> str:
    """Returns the name by which a packed file and an error page are distinguished: that of a link to a packed file.

    Args:
        name: That of the unpacked file, for a link whose name does not say that its file is packed.
    """
    return link.raw_path if link.raw_path.lower().endswith(_PACKED_ENDINGS) else name

"""Opens the files of a finished operation, and says when what comes is no file.

Redirects are followed by hand: the credential goes to the connection's own origin only, and no host is asked that
the connection does not allow.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
from yarl import URL

from export_worker.egress.connector import AddressRefusedError, origin
from export_worker.errors import (
    DownloadForbiddenError,
    DownloadInterruptedError,
    DownloadInvalidError,
    ResultMissingError,
)
from export_worker.platforms.base import Mark, Receiver
from export_worker.platforms.http.client import (
    ANONYMOUS,
    NO_HEADERS,
    PROBLEM_MAX_BYTES,
    Auth,
    Credential,
    HttpClient,
    can_be_reached,
    read_up_to,
)
from export_worker.platforms.http.direct_body import direct_body
from export_worker.platforms.http.ranges import goes_on, range_headers, validator_of
from export_worker.platforms.http.responses import HttpResponse, error_for, one_line

REDIRECTS_MAX = 5
"""A link service and a storage in front of the file take two or three."""

EXPANSION_MAX = 200
"""Bytes out of one compressed byte. CSV and JSON reach 5 to 30, one of nearly equal lines 200; a bomb 1,000."""
EXPANSION_FREE_BYTES = 16 * 1024 * 1024
"""Below this nothing is refused: a small file of zeroes hurts nobody."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_READABLE_CODINGS = frozenset({"gzip", "deflate"})
"""What aiohttp undoes without further packages; a body in any other coding would be stored as if it were the file."""
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_URL_PUNCTUATION = "%:/?#[]@!$&'()*+,;=~"


class HttpDownload:
    """A download whose head is good. See `platforms.base.Download`."""

    def __init__(
        self, place: str, response: aiohttp.ClientResponse, client: HttpClient, mark: Mark | None = None
    ) -> None:
        self._place = place
        self._response = response
        self._client = client
        self._mark = mark

    @property
    def offset_bytes(self) -> int:
        """Those that the server left out, as it was asked to."""
        return 0 if self._mark is None else self._mark.offset_bytes

    @property
    def validator(self) -> str | None:
        """Of the answer; see `ranges.validator_of`."""
        return None if _codings(self._response) else validator_of(self._response.headers)

    @property
    def total_bytes(self) -> int | None:
        """Of the whole file. None when no length was told, or one of compressed bytes, which nobody will see."""
        if self._mark is not None:
            return self._mark.total_bytes
        return None if _codings(self._response) else self._response.content_length

    @property
    def content_type(self) -> str:
        """Media type in lower case without parameters, or an empty string."""
        return _media_type(self._response)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, decompressed.

        Bytes after the announced end are no part of an HTTP message: they are noticed only when they come along with
        its head. A body that is neither announced nor chunked ends with its connection: a reset is noticed, an orderly
        close in the middle cannot be.

        Raises:
            DownloadInterruptedError: Cut, stalled, or not as long as announced.
            DownloadInvalidError: It expands as no export does.
        """
        done_bytes = self.offset_bytes
        closed = self._closed()
        with _interruptions(self._place, self._client):
            async for chunk in self._response.content.iter_any():
                done_bytes += len(chunk)
                self._check_expansion(done_bytes - self.offset_bytes)
                yield chunk
            if closed is not None and closed.done():
                # aiohttp 3.14 takes a reset for the end of a body that has no other; here it raises.
                closed.result()
        if self.total_bytes is not None and done_bytes != self.total_bytes:
            raise DownloadInterruptedError(f"{self._place}: {done_bytes} bytes where {self.total_bytes} were announced")

    def receiver(self, progress: Callable[[int], None]) -> Receiver | None:
        """See `platforms.base.Direct`."""
        return direct_body(self._place, self._response, stall_s=self._client.read_timeout_s, progress=progress)

    def _check_expansion(self, done_bytes: int) -> None:
        """Refuse a body that a few bytes blow up: it would fill the bucket, and the line, for nothing."""
        came_bytes = self._response.content.total_raw_bytes
        if done_bytes > max(EXPANSION_FREE_BYTES, EXPANSION_MAX * came_bytes):
            raise DownloadInvalidError(
                f"{self._place}: {came_bytes} compressed bytes became more than {EXPANSION_MAX} times as many"
            )

    def _closed(self) -> "asyncio.Future[None] | None":
        """How the connection ends: its only word about the end of a body that is neither announced nor chunked."""
        connection = self._response.connection
        if self._response.content_length is not None or connection is None or connection.protocol is None:
            return None
        return connection.protocol.closed


@dataclass(frozen=True, slots=True)
class _Head:
    """The head of an answer, and the address that it came from."""

    url: URL
    place: str
    response: aiohttp.ClientResponse


class Downloader:
    """Opens files for one connection.

    Args:
        allow_hosts: Further hosts that a download may come from, each as `host` or `host:port`.
    """

    def __init__(self, client: HttpClient, auth: Auth, allow_hosts: Sequence[str]) -> None:
        self._client = client
        self._auth = auth
        self._own = origin(client.base_url)
        self._allowed = frozenset(host.lower() for host in allow_hosts)

    @asynccontextmanager
    async def open(self, url: URL, file_name: str, mark: Mark | None = None) -> AsyncIterator[HttpDownload]:
        """Open one file.

        Args:
            url: Finished, `encoded=True`: sent as it stands.
            file_name: A JSON answer is an error page unless the name ends in .json, .jsonl or .ndjson.
            mark: Where to go on. A server that does not, or has another version by now, gives the whole file.

        Raises:
            DownloadError: No such file, a forbidden host, or an error page.
            PlatformError: No answer, an error status, or a refused credential.
        """
        head = await self._open(url, NO_HEADERS if mark is None else range_headers(mark))
        if mark is not None and not goes_on(head.response, mark):
            mark = None
            if head.response.status in {206, 416}:
                # Not what was asked for, and not the whole file.
                head.response.close()
                head = await self._open(url, NO_HEADERS)
        try:
            await self._check(head, file_name, 200 if mark is None else 206)
            yield HttpDownload(head.place, head.response, self._client, mark)
        finally:
            head.response.close()

    async def _open(self, url: URL, headers: Mapping[str, str]) -> _Head:
        credential = await self._auth.credential()
        head = await self._follow(url, credential, headers)
        if head.response.status != 401 or not self._is_own(head.url):
            return head
        try:
            fresh = await self._auth.renew(credential)
        except BaseException:
            head.response.close()
            raise
        if fresh is None:
            return head
        head.response.close()
        return await self._follow(url, fresh, headers)

    async def _follow(self, url: URL, credential: Credential, headers: Mapping[str, str]) -> _Head:
        """The first answer that is no redirect."""
        self._check_hop(self._client.base_url, url)
        for _ in range(REDIRECTS_MAX + 1):
            head = await self._get(url, credential, headers)
            if head.response.status not in _REDIRECTS:
                return head
            head.response.close()
            target = _target(head)
            self._check_hop(url, target)
            url = target
        raise DownloadInvalidError(f"{self._place(url)}: more than {REDIRECTS_MAX} redirects")

    async def _get(self, url: URL, credential: Credential, headers: Mapping[str, str]) -> _Head:
        place = self._place(url)
        with self._client.mapped_failures(place):
            try:
                response = await self._client.get_stream(url, credential if self._is_own(url) else ANONYMOUS, headers)
            except AddressRefusedError as error:
                raise DownloadForbiddenError(f"{place}: {self._clean(str(error))}") from None
            except aiohttp.ClientResponseError as error:
                # A short body that is longer than announced arrives with its head and breaks the parser here.
                raise DownloadInterruptedError(f"{place}: {self._client.reason(error)}") from None
        return _Head(url, place, response)

    def _check_hop(self, before: URL, url: URL) -> None:
        if url.scheme not in {"http", "https"} or (before.scheme == "https" and url.scheme != "https"):
            raise DownloadForbiddenError(f"{self._place(url)}: leads from {before.scheme} to {self._clean(url.scheme)}")
        if not can_be_reached(url):
            raise DownloadInvalidError(f"{self._place(before)}: a redirect to an address that cannot be used")
        _, host, port = origin(url)
        if host != self._own[1] and self._allowed.isdisjoint({host, f"{host}:{port}"}):
            raise DownloadForbiddenError(
                f"{self._place(url)}: {self._clean(host)} is neither the connection's host nor in allow_hosts"
            )

    async def _check(self, head: _Head, file_name: str, good: int) -> None:
        """Raise the error that the head stands for, unless it is that of a file."""
        if head.response.status != good:
            raise await self._problem(head)
        if unreadable := _codings(head.response) - _READABLE_CODINGS:
            coding = self._clean(min(unreadable))
            raise DownloadInvalidError(f"{head.place}: comes in a coding that was not asked for: {coding}")
        media_type = _media_type(head.response)
        is_json = media_type in {"application/json", "text/json"} or media_type.endswith("+json")
        if _is_html(media_type) or (is_json and not file_name.lower().endswith(_JSON_SUFFIXES)):
            what = self._clean(media_type)
            raise DownloadInvalidError(f"{head.place}: {what} where a file was announced{await self._tail(head)}")

    async def _problem(self, head: _Head) -> Exception:
        status = head.response.status
        if status in {404, 410}:
            return ResultMissingError(f"{head.place}: the file is not there (HTTP {status}){await self._tail(head)}")
        if status in {401, 403} and not self._is_own(head.url):
            # Our credential was not sent there: it is the link that has ended, and the platform can give another.
            return ResultMissingError(f"{head.place}: the link is refused (HTTP {status}){await self._tail(head)}")
        answer = HttpResponse(head.place, status, head.response.headers, await self._beginning(head))
        problem = error_for(answer, self._client.redactor)
        return problem or DownloadInvalidError(f"{head.place}: HTTP {status} where a whole file was announced")

    async def _tail(self, head: _Head) -> str:
        """What the body says, as the end of a message."""
        excerpt = self._clean((await self._beginning(head)).decode(errors="replace"))
        return f": {excerpt}" if excerpt else ""

    async def _beginning(self, head: _Head) -> bytes:
        with self._client.mapped_failures(head.place):
            return await read_up_to(head.response, PROBLEM_MAX_BYTES)

    def _is_own(self, url: URL) -> bool:
        return origin(url) == self._own

    def _place(self, url: URL) -> str:
        """Method and address for messages: without the query string, and without our own origin."""
        whose = "" if self._is_own(url) else "{}://{}:{}".format(*origin(url))
        return self._clean(f"GET {whose}{url.raw_path}")

    def _clean(self, text: str) -> str:
        return one_line(text, self._client.redactor)


def _target(head: _Head) -> URL:
    """Where a redirect leads. Its encoding is kept; raw bytes in it are encoded once."""
    location = head.response.headers.get("Location", "").strip()
    encoded = quote(location, safe=_URL_PUNCTUATION, errors="surrogateescape")
    try:
        target = head.url.join(URL(encoded, encoded=True))
        usable = bool(location) and target.raw_user is None
    except ValueError:
        usable, target = False, head.url
    if not usable:
        raise DownloadInvalidError(f"{head.place}: a redirect without an address that can be used")
    return target


def _codings(response: aiohttp.ClientResponse) -> set[str]:
    """The compressions that the answer names."""
    names = {name.strip().lower() for name in response.headers.get("Content-Encoding", "").split(",")}
    return names - {"", "identity"}


def _media_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _is_html(media_type: str) -> bool:
    return media_type in {"text/html", "application/xhtml+xml"}


@contextmanager
def _interruptions(place: str, client: HttpClient) -> Iterator[None]:
    """What breaks a body that has begun. The cause is left out: it may hold the URL with a token."""
    try:
        yield
    except TimeoutError:
        raise DownloadInterruptedError(f"{place}: the body stands still") from None
    except (aiohttp.ClientError, OSError) as error:
        raise DownloadInterruptedError(f"{place}: {client.reason(error)}") from None

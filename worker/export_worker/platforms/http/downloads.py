"""Opens the files of a finished operation, and detects responses that are not the file.

This module follows redirects itself: the credential is sent to the connection's own origin only, and no request is
sent to a host that the connection does not allow.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

import aiohttp
from yarl import URL

from export_worker.contract.file_names import JSON_EXTENSIONS, MARKUP_EXTENSIONS, extension_of
from export_worker.credentials import Redactor
from export_worker.egress.allowed_hosts import AllowedHosts
from export_worker.egress.connector import AddressRefusedError, origin
from export_worker.errors import (
    DownloadForbiddenError,
    DownloadInterruptedError,
    DownloadInvalidError,
    ResultMissingError,
)
from export_worker.platforms.base import Receiver, ResumePoint
from export_worker.platforms.http.bodies import read_error_page
from export_worker.platforms.http.client import ANONYMOUS, NO_HEADERS, HttpClient
from export_worker.platforms.http.codings import (
    CodingError,
    KeptCodingError,
    UnknownCodingError,
    codings_of,
    decoded,
    has_framed_end,
    kept_coding_of,
)
from export_worker.platforms.http.direct_body import direct_body
from export_worker.platforms.http.outgoing import Auth, Credential
from export_worker.platforms.http.ranges import RANGE_FIELDS, is_requested_range, part_of, range_headers, validator_of
from export_worker.platforms.http.responses import HttpResponse, error_for, excerpt_of_body, excerpt_of_page, one_line
from export_worker.platforms.http.urls import is_usable_url

REDIRECTS_MAX = 5
"""A link service and a storage service in front of the file need two or three."""

EXPANSION_MAX = 200
"""Largest accepted compression ratio. CSV and JSON reach 5 to 30, nearly equal lines 200, decompression bombs 1,000."""
EXPANSION_FREE_BYTES = 16 * 1024 * 1024
"""The ratio is not checked below this size: a small file of zeroes is harmless."""

_JSON_TYPES = frozenset(("application/json", "application/json5", "application/x-json", "text/json", "text/x-json"))
_MARKUP_TYPES = frozenset(("application/xml", "text/html", "text/xml"))
_SCRIPT_TYPES = frozenset(("application/javascript", "application/x-javascript", "text/javascript"))
_LINK_SECRET = re.compile(r"(?i)sign|token|key|secret|credential|auth|policy|password")
"""Parameters with which the links of object stores can be used by everyone who has them."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_PUNCTUATION = "%:/?#[]@!$&'()*+,;=~"


class HttpDownload:
    """A download whose head has been checked. See `platforms.base.Download`."""

    def __init__(
        self,
        label: str,
        response: aiohttp.ClientResponse,
        client: HttpClient,
        *,
        codings: Sequence[str] = (),
        kept: str = "",
        resume_point: ResumePoint | None = None,
    ) -> None:
        self._label = label
        self._response = response
        self._client = client
        self._codings = codings
        # The rest of a file begins in the middle of its coding, and cannot be checked.
        self._kept = kept if resume_point is None else ""
        self._resume_point = resume_point

    @property
    def offset_bytes(self) -> int:
        """Number of bytes that the server left out, as requested."""
        return 0 if self._resume_point is None else self._resume_point.offset_bytes

    @property
    def validator(self) -> str | None:
        """Validator of the response; see `ranges.validator_of`. None if the body is encoded, or if it has a secret."""
        validator = None if self._codings else validator_of(self._response.headers)
        # The record contains it, and it must be sent unchanged.
        return None if validator is None or self._client.redactor.text(validator) != validator else validator

    @property
    def total_bytes(self) -> int | None:
        """Length of the whole file; None when the server announced none, or only that of the compressed body."""
        if self._resume_point is not None:
            return self._resume_point.total_bytes
        # Beside a transfer coding, a length is to be ignored (RFC 9112, 6.3).
        is_framed = "Transfer-Encoding" in self._response.headers
        return None if self._codings or is_framed else self._response.content_length

    @property
    def content_type(self) -> str:
        """Media type in lower case without parameters, or an empty string."""
        return _media_type(self._response)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the decompressed body in pieces of any size.

        Bytes after the announced end are not part of the HTTP message. They are detected only if they arrive together
        with the head. A body without an announced length and without chunks ends when the connection closes: a reset is
        detected, but an orderly close in the middle cannot be detected. A coding that is kept because of the file's
        name is checked; see `codings.decoded` for what that costs.

        Raises:
            DownloadInterruptedError: The body is cut, stalled, or not as long as announced.
            DownloadInvalidError: The body expands more than exports do, or is not whole in the coding that it keeps.
        """
        done_bytes = self.offset_bytes
        closed = self._closed()
        with _translate_interruptions(self._label, self._client):
            pieces, may_be_empty = self._response.content.iter_any(), has_framed_end(self._response)
            async for chunk in decoded(pieces, self._codings, kept=self._kept, may_be_empty=may_be_empty):
                done_bytes += len(chunk)
                self._check_expansion(done_bytes - self.offset_bytes)
                yield chunk
            if closed is not None and closed.done():
                # aiohttp 3.14 accepts a reset as the end of a body that has no other end; this raises the reset.
                closed.result()
        if self.total_bytes is not None and done_bytes != self.total_bytes:
            raise DownloadInterruptedError(f"{self._label}: {done_bytes} bytes where {self.total_bytes} were announced")

    def receiver(self, progress: Callable[[int], None]) -> Receiver | None:
        """See `platforms.base.Direct`."""
        if self._codings or self._kept:
            return None
        return direct_body(self._label, self._response, stall_s=self._client.read_timeout_s, progress=progress)

    def _check_expansion(self, done_bytes: int) -> None:
        """Refuses a decompression bomb, which would fill the bucket with a useless file."""
        received_bytes = self._response.content.total_raw_bytes
        if done_bytes > max(EXPANSION_FREE_BYTES, EXPANSION_MAX * received_bytes):
            raise DownloadInvalidError(
                f"{self._label}: {received_bytes} compressed bytes became more than {EXPANSION_MAX} times as many"
            )

    def _closed(self) -> "asyncio.Future[None] | None":
        """Returns the future of the connection's end, for a body that only the end of the connection delimits."""
        connection = self._response.connection
        if self._response.content_length is not None or connection is None or connection.protocol is None:
            return None
        return connection.protocol.closed


@dataclass(frozen=True, slots=True)
class _Head:
    """A response whose head has been received, with its URL.

    Args:
        url: URL that was requested last.
        label: Method and URL for messages.
        response: Its body has not been read.
    """

    url: URL
    label: str
    response: aiohttp.ClientResponse


class Downloader:
    """Opens files for one connection.

    Args:
        client: Client of the connection.
        auth: Provides the credential for the connection's own origin.
        allow_hosts: Other hosts that a download may come from, each as `host:port`, or as `host` for all of its ports.
        file_content_types: Media types of error pages that this platform also sends with files.
    """

    def __init__(
        self, client: HttpClient, auth: Auth, allow_hosts: Sequence[str], file_content_types: Sequence[str] = ()
    ) -> None:
        self._client = client
        self._auth = auth
        self._own_origin = origin(client.base_url)
        self._file_content_types = frozenset(name.lower() for name in file_content_types)
        self._hosts = AllowedHosts(client.base_url, allow_hosts)

    @asynccontextmanager
    async def open(
        self,
        url: URL,
        file_name: str,
        resume_point: ResumePoint | None = None,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> AsyncIterator[HttpDownload]:
        """Opens one file.

        Args:
            url: Complete URL, built with `encoded=True`; it is sent unchanged.
            file_name: A JSON response counts as an error page unless this name ends in .json, .jsonl or .ndjson. XML
                and HTML count as one unless the name has their extension.
            resume_point: Where to resume. The whole file is opened if the server cannot resume or has another version.
            headers: Further headers for the connection's own origin.

        Raises:
            DownloadError: The file does not exist, its host is forbidden, or the response is an error page.
            PlatformError: No response, an error status, or a refused credential.
        """
        head = await self._open(url, headers if resume_point is None else {**headers, **range_headers(resume_point)})
        if resume_point is not None and not is_requested_range(head.response, resume_point, file_name):
            resume_point = None
            if head.response.status in {206, 416} or part_of(head.response):
                # The response is neither the requested range nor the whole file.
                head.response.close()
                head = await self._open(url, headers)
        try:
            await self._check(head, file_name, 200 if resume_point is None else 206)
            codings = self._codings(head, file_name)
            kept = kept_coding_of(head.response, file_name)
            yield HttpDownload(
                head.label, head.response, self._client, codings=codings, kept=kept, resume_point=resume_point
            )
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
        """Follows redirects and returns the first other response."""
        self._check_redirect(self._client.base_url, url)
        for _ in range(REDIRECTS_MAX + 1):
            head = await self._get(url, credential, headers)
            if head.response.status not in _REDIRECTS:
                return head
            head.response.close()
            target = _target(head)
            self._check_redirect(url, target)
            url = target
        raise DownloadInvalidError(f"{self._label(url)}: more than {REDIRECTS_MAX} redirects")

    async def _get(self, url: URL, credential: Credential, headers: Mapping[str, str]) -> _Head:
        label = self._label(url)
        if not self._is_own(url):
            credential = ANONYMOUS
            headers = {name: value for name, value in headers.items() if name in RANGE_FIELDS}
        with self._client.translate_errors(label):
            try:
                response = await self._client.get_stream(url, credential, headers)
            except AddressRefusedError as error:
                raise DownloadForbiddenError(f"{label}: {self._clean(str(error))}") from None
            except aiohttp.ClientHttpProxyError:
                raise  # a subclass of the next one, but no response of the server
            except aiohttp.ClientResponseError as error:
                # A short body that is longer than announced arrives with its head and makes the parser fail here.
                raise DownloadInterruptedError(f"{label}: {self._client.reason(error)}") from None
        return _Head(url, label, response)

    def _check_redirect(self, before: URL, url: URL) -> None:
        if url.scheme not in {"http", "https"} or (before.scheme == "https" and url.scheme != "https"):
            what = f"leads from {before.scheme} to {self._clean(url.scheme)}"
            raise DownloadForbiddenError(f"{self._label(before)}: {what}")
        if not is_usable_url(url):
            raise DownloadInvalidError(f"{self._label(before)}: a redirect to a URL that cannot be used")
        refusal = self._hosts.refusal(url)
        if refusal is not None:
            raise DownloadForbiddenError(f"{self._label(url)}: {self._clean(refusal)}")

    async def _check(self, head: _Head, file_name: str, expected_status: int) -> None:
        """Raises an error unless the response is a file."""
        if head.response.status != expected_status:
            raise await self._error_for(head)
        part = part_of(head.response)
        if part:
            raise DownloadInvalidError(f"{head.label}: {part} with HTTP 200 where a whole file was announced")
        pages = (name for name in _media_types(head.response) if _is_page(name, file_name))
        page = next((name for name in pages if name not in self._file_content_types), None)
        if page is not None:
            what = self._clean(page)
            excerpt = await self._excerpt_of_page(head)
            raise DownloadInvalidError(
                f"{head.label}: {what}, which is not in file_content_types, where a file was announced{excerpt}"
            )

    def _codings(self, head: _Head, file_name: str) -> tuple[str, ...]:
        try:
            return codings_of(head.response, file_name)
        except UnknownCodingError as error:
            raise DownloadInvalidError(f"{head.label}: {self._client.reason(error)}") from None

    async def _error_for(self, head: _Head) -> Exception:
        status = head.response.status
        if status in {404, 410}:
            excerpt = await self._excerpt(head)
            return ResultMissingError(f"{head.label}: the file does not exist (HTTP {status}){excerpt}")
        if status in {401, 403} and not self._is_own(head.url):
            # The credential was not sent to this host. So the link has expired, and the platform can issue another.
            return ResultMissingError(f"{head.label}: the link is refused (HTTP {status}){await self._excerpt(head)}")
        response = HttpResponse(head.label, status, head.response.headers, await self._beginning(head))
        error = error_for(response, _redactor_of(head.url, self._client.redactor))
        return error or DownloadInvalidError(f"{head.label}: HTTP {status} where a whole file was announced")

    async def _excerpt(self, head: _Head) -> str:
        """Returns an excerpt of the body, as the end of a message."""
        excerpt = excerpt_of_body(await self._beginning(head), _redactor_of(head.url, self._client.redactor))
        return f": {excerpt}" if excerpt else ""

    async def _excerpt_of_page(self, head: _Head) -> str:
        """Returns an excerpt as `_excerpt` does, but none of rows of users, which servers may label as a page."""
        body = await self._beginning(head)
        return f": {excerpt_of_page(body, _redactor_of(head.url, self._client.redactor))}" if body else ""

    async def _beginning(self, head: _Head) -> bytes:
        with self._client.translate_errors(head.label):
            return await read_error_page(head.response, self._client.read_timeout_s)

    def _is_own(self, url: URL) -> bool:
        return origin(url) == self._own_origin

    def _label(self, url: URL) -> str:
        """Returns method and URL for messages, without the query string and without the connection's own origin."""
        prefix = "" if self._is_own(url) else "{}://{}:{}".format(*origin(url))
        return self._clean(f"GET {prefix}{url.raw_path}")

    def _clean(self, text: str) -> str:
        return one_line(text, self._client.redactor)


def _target(head: _Head) -> URL:
    """Returns the URL of a redirect. Existing percent-encoding is kept; raw bytes are encoded once."""
    location = head.response.headers.get("Location", "").strip()
    encoded = quote(location, safe=_URL_PUNCTUATION, errors="surrogateescape")
    try:
        target = head.url.join(URL(encoded, encoded=True))
        usable = bool(location) and target.raw_user is None
    except ValueError:
        usable, target = False, head.url
    if not usable:
        raise DownloadInvalidError(f"{head.label}: a redirect without a URL that can be used")
    return target


def _redactor_of(url: URL, redactor: Redactor) -> Redactor:
    """Returns a redactor that also masks the signature of a link. Its server may repeat the link in an error page."""
    return redactor.extended(value for name, value in parse_qsl(url.raw_query_string) if _LINK_SECRET.search(name))


def _media_type(response: aiohttp.ClientResponse) -> str:
    return _media_types(response)[0]


def _media_types(response: aiohttp.ClientResponse) -> list[str]:
    """Returns all media types of a response, in lower case: a proxy may add a second one. There is at least one."""
    named = ",".join(response.headers.getall("Content-Type", [])).split(",")
    return [name.partition(";")[0].strip().lower() for name in named]


def _is_page(media_type: str, file_name: str) -> bool:
    """Whether a media type is that of an error page, for a file of this name."""
    extension = extension_of(file_name)
    if media_type in _JSON_TYPES or media_type.endswith("+json"):
        return extension not in JSON_EXTENSIONS
    if media_type in _MARKUP_TYPES or media_type.endswith("+xml"):
        return extension not in MARKUP_EXTENSIONS
    return media_type in _SCRIPT_TYPES or media_type.startswith(("multipart/", "message/"))


@contextmanager
def _translate_interruptions(label: str, client: HttpClient) -> Iterator[None]:
    """Translates errors while a body is read. The cause is not chained: it may contain the URL with a token."""
    try:
        yield
    except TimeoutError:
        raise DownloadInterruptedError(f"{label}: the body stalled") from None
    except KeptCodingError as error:
        # An interrupted download is resumed with its rest, which is not checked. So this one must not be resumed.
        raise DownloadInvalidError(f"{label}: {client.reason(error)}") from None
    except (aiohttp.ClientError, CodingError, OSError) as error:
        raise DownloadInterruptedError(f"{label}: {client.reason(error)}") from None

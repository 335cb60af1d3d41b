"""Opens the files of a finished operation, and detects responses that are not the file.

This module follows redirects itself: the credential is sent to the connection's own origin only, and no request is
sent to a host that the connection does not allow.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
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
from export_worker.platforms.base import ResumePoint
from export_worker.platforms.http.bodies import read_error_page
from export_worker.platforms.http.client import ANONYMOUS, NO_HEADERS, HttpClient
from export_worker.platforms.http.codings import (
    UnknownCodingError,
    codings_of,
    kept_coding_of,
)
from export_worker.platforms.http.download_body import HttpDownload, media_types
from export_worker.platforms.http.outgoing import Auth, Credential
from export_worker.platforms.http.ranges import RANGE_FIELDS, is_requested_range, part_of, range_headers
from export_worker.platforms.http.responses import HttpResponse, error_for, excerpt_of_body, excerpt_of_page, one_line
from export_worker.platforms.http.urls import is_usable_url

REDIRECTS_MAX = 5
"""A link service and a storage service in front of the file need two or three."""

_JSON_TYPES = frozenset(("application/json", "application/json5", "application/x-json", "text/json", "text/x-json"))
_MARKUP_TYPES = frozenset(("application/xml", "text/html", "text/xml"))
_SCRIPT_TYPES = frozenset(("application/javascript", "application/x-javascript", "text/javascript"))
_LINK_SECRET = re.compile(r"(?i)sign|token|key|secret|credential|auth|policy|password")
"""Parameters with which the links of object stores can be used by everyone who has them."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_PUNCTUATION = "%:/?#[]@!$&'()*+,;=~"


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
        pages = (name for name in media_types(head.response) if _is_page(name, file_name))
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


def _is_page(media_type: str, file_name: str) -> bool:
    """Whether a media type is that of an error page, for a file of this name."""
    extension = extension_of(file_name)
    if media_type in _JSON_TYPES or media_type.endswith("+json"):
        return extension not in JSON_EXTENSIONS
    if media_type in _MARKUP_TYPES or media_type.endswith("+xml"):
        return extension not in MARKUP_EXTENSIONS
    return media_type in _SCRIPT_TYPES or media_type.startswith(("multipart/", "message/"))

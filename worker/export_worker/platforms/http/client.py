"""The HTTP client under every driver: one session, bounded answers, failures mapped once.

Credentials are put on each request and never on the session: session headers other than `Authorization` would follow
a redirect to another host (measured with aiohttp 3.14).
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from export_worker.credentials import Redactor
from export_worker.egress.address_policy import AddressPolicy
from export_worker.egress.connector import PolicyConnector, origin
from export_worker.errors import ConfigError, PlatformMalformedError, PlatformUnavailableError
from export_worker.platforms.http.responses import HttpResponse, error_for, json_value, one_line
from export_worker.step_context import wait_for_gate

CONNECT_TIMEOUT_S = 10.0
"""Two lost SYNs are ridden out (repeated after 1 s and 3 s); a host that is down is told soon."""
ANSWER_TIMEOUT_S = 60.0
"""A call that only looks: from the first byte sent to the last byte read. Most gateways give up at 60 s themselves."""
SUBMIT_TIMEOUT_S = 300.0
"""A call that starts a job: GrowingIO may compute an analysis before it answers (it can say FINISH at submit), and a
submit that we give up on may have been heard."""
UPLOAD_TIMEOUT_S = 3600.0
"""A call that carries a file: its size has no bound that we know, and somebody waits for it at a terminal."""
READ_TIMEOUT_S = 60.0
"""Between two reads of a download: longer is a stall. A file's size has no bound, so its time has none either."""
KEEPALIVE_S = 4.0
"""Below the shortest common idle limit of servers (5 s): a submit sent into a connection that is just being closed
would fail, and a POST is not repeated unseen."""
ANSWER_MAX_BYTES = 16 * 1024 * 1024
"""Listings have no pages: room for tens of thousands of items, and an end to a server that never stops."""
PROBLEM_MAX_BYTES = 16 * 1024
"""Read of an error page: the excerpt in the message is far shorter."""
DOWNLOAD_BUFFER_BYTES = 256 * 1024
"""What the event loop reads at once; aiohttp's own 64 KiB pauses the socket four times as often."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What one request carries to be let in. Its repr shows nothing of it.

    Args:
        headers: Such as `Authorization`.
        query: For platforms that want the token in the query string.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    def on(self, url: URL) -> URL:
        """The address with the credential's own part of the query string."""
        return with_query(url, self.query)


ANONYMOUS = Credential()
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Auth(Protocol):
    """Gives credentials, and fresh ones when a platform refuses the old."""

    async def credential(self) -> Credential:
        """The credential to use now.

        Raises:
            PlatformError: There was none yet, and none could be had.
        """

    async def renew(self, rejected: Credential) -> Credential | None:
        """A credential to repeat a call with that got 401 with `rejected`; None when there is no other.

        Raises:
            PlatformError: A fresh one could not be had.
        """

    async def close(self) -> None:
        """End what still runs."""


@dataclass(frozen=True, slots=True)
class Call:
    """One question to a platform's API.

    Args:
        path: Below the base URL, with a leading slash; percent-encoded already where it must be.
        query: Plain text; encoded once on the way out. A parameter with several values is repeated.
        json: Body as JSON, if not None.
        form: Body as a form, if not None.
        data: Body as a stream, if not None. It can be read once, so such a call is never repeated.
        content_type: Of `data`.
        timeout_s: Seconds for the whole exchange.
    """

    method: str
    path: str
    query: Mapping[str, str | Sequence[str]] = field(default_factory=dict, repr=False)
    json: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    data: AsyncIterator[bytes] | None = field(default=None, repr=False)
    content_type: str = "application/octet-stream"
    timeout_s: float = ANSWER_TIMEOUT_S

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class HttpClient:
    """Calls one platform. May be built outside of a loop; its session opens with the first call.

    Each request to the platform's own origin waits at the `RequestGate` before its time limit begins.

    Args:
        connection: Name of the connection, for messages about its settings.
        base_url: As in the settings.
        reach: Where its requests may go; by default the own host, and public addresses.
        read_timeout_s: Seconds that a download may stand still.

    Raises:
        ConfigError: The base URL cannot be used.
    """

    def __init__(
        self,
        connection: str,
        base_url: str,
        redactor: Redactor,
        *,
        reach: AddressPolicy | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self.base_url = _parse_base_url(connection, base_url)
        self.redactor = redactor
        self._reach = reach or AddressPolicy({self.base_url.host or ""})
        self.read_timeout_s = read_timeout_s
        self._opened: aiohttp.ClientSession | None = None

    async def call(self, call: Call, auth: Auth) -> Any:
        """The JSON value of a good answer; a call that gets 401 is repeated once with a fresh credential.

        Raises:
            PlatformError: No answer, an error status, or no JSON.
        """
        credential = await auth.credential()
        answer = await self.exchange(call, credential)
        repeatable = call.data is None
        if answer.status == 401 and repeatable and (fresh := await auth.renew(credential)) is not None:
            answer = await self.exchange(call, fresh)
        problem = error_for(answer, self.redactor)
        if problem is not None:
            raise problem
        return json_value(answer, self.redactor)

    async def exchange(self, call: Call, credential: Credential = ANONYMOUS) -> HttpResponse:
        """One question, one answer, whatever its status. Redirects are not followed.

        Raises:
            PlatformThrottledError: It must not go out for longer than a step waits.
            PlatformUnavailableError: No connection, or no answer in time.
            PlatformMalformedError: The answer is no HTTP, or too large.
        """
        await wait_for_gate()
        url = credential.on(with_query(self.address(call.path), call.query))
        own_headers = {} if call.data is None else {"Content-Type": call.content_type}
        with self.mapped_failures(str(call)):
            async with self._session().request(
                call.method,
                url,
                json=call.json,
                data=call.form if call.data is None else call.data,
                headers={**own_headers, **credential.headers},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=call.timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            ) as response:
                limit_bytes = ANSWER_MAX_BYTES if response.ok else PROBLEM_MAX_BYTES
                body = await read_up_to(response, limit_bytes + 1)
                if response.ok and len(body) > limit_bytes:
                    raise PlatformMalformedError(f"{call}: the answer has more than {limit_bytes} bytes")
                return HttpResponse(str(call), response.status, response.headers, body)

    async def get_stream(
        self, url: URL, credential: Credential, headers: Mapping[str, str] = NO_HEADERS
    ) -> aiohttp.ClientResponse:
        """The head of a download's answer, whatever its status; the body is still to be read, the answer to be closed.

        Redirects are not followed. Raises aiohttp's own errors: the caller maps them.
        """
        if origin(url) == origin(self.base_url):
            await wait_for_gate()
        return await self._session().get(
            credential.on(url),
            # Compressed bytes are not the file's: neither their number nor their checksum says anything of it.
            headers={"Accept-Encoding": "identity", **headers, **credential.headers},
            allow_redirects=False,
            read_bufsize=DOWNLOAD_BUFFER_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self.read_timeout_s),
        )

    async def open_stream(self, call: Call, credential: Credential) -> aiohttp.ClientResponse:
        """The head of an answer that is read bit by bit, whatever its status; the answer is to be closed.

        `call.timeout_s` bounds each silence, the one before the head among them. Redirects are not followed. Raises
        aiohttp's own errors: the caller maps them.
        """
        await wait_for_gate()
        return await self._session().request(
            call.method,
            credential.on(with_query(self.address(call.path), call.query)),
            json=call.json,
            data=call.form,
            headers=credential.headers,
            allow_redirects=False,
            read_bufsize=DOWNLOAD_BUFFER_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=call.timeout_s),
        )

    def address(self, path_and_query: str) -> URL:
        """The address of a path (with or without a query string) that is percent-encoded already."""
        return URL(str(self.base_url) + path_and_query, encoded=True)

    @contextmanager
    def mapped_failures(self, call: str) -> Iterator[None]:
        """Every failure of aiohttp, the system or the clock becomes an error of ours, once and here.

        The cause is left out: its text and its fields may hold the URL with a token.
        """
        try:
            yield
        except TimeoutError:
            raise PlatformUnavailableError(f"{call}: no answer in time") from None
        except aiohttp.ClientResponseError as error:
            raise PlatformMalformedError(f"{call}: {self.reason(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise PlatformUnavailableError(f"{call}: {self.reason(error)}") from None

    def reason(self, error: Exception) -> str:
        """What broke, in one line without addresses."""
        if isinstance(error, aiohttp.InvalidURL):
            return "the address cannot be used"
        if isinstance(error, aiohttp.ClientResponseError):
            return f"the answer is no valid HTTP: {one_line(error.message, self.redactor)}"
        return one_line(str(error), self.redactor) or type(error).__name__

    async def close(self) -> None:
        """Close the session; calls afterwards are a mistake."""
        if self._opened is not None:
            await self._opened.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=PolicyConnector(self._reach, keepalive_timeout=KEEPALIVE_S),
                # A cookie would be a credential that nobody configured.
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "export-worker"},
            )
        return self._opened


async def read_up_to(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The body, decompressed; of a longer one the first `limit_bytes`. Raises aiohttp's own errors."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= limit_bytes:
            break
    return bytes(body[:limit_bytes])


def with_query(url: URL, query: Mapping[str, str | Sequence[str]]) -> URL:
    """The address with further parameters, each encoded once; what stands there already is left as it is."""
    if not query:
        return url
    mark = "&" if url.raw_query_string else "?"
    return URL(f"{url}{mark}{urlencode(query, doseq=True, quote_via=quote, safe='')}", encoded=True)


def can_be_reached(url: URL) -> bool:
    """Whether the address has all that a connection needs; a host name that cannot be looked up raises deep within."""
    try:
        host = (url.raw_host or "").encode("idna")
        return bool(host and url.port and url.scheme in {"http", "https"})
    except ValueError:
        return False


def _parse_base_url(connection: str, base_url: str) -> URL:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if not can_be_reached(url):
        raise ConfigError(f"connections.{connection}.base_url: must be like https://op.example.cn")
    # "https://host" and "https://host/" are one; paths with their own slash are appended.
    return URL(str(url).rstrip("/"), encoded=True)

"""The HTTP client of drivers: one session, bounded responses, and one translation of failures into our errors.

Credentials are set on each request and never on the session: aiohttp sends session headers other than `Authorization`
to another host after a redirect (measured with aiohttp 3.14).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

import aiohttp
from yarl import URL

from export_worker.credentials import Redactor
from export_worker.egress.address_policy import AddressPolicy
from export_worker.egress.connection_trouble import PlatformUnconnectedError
from export_worker.egress.connector import origin
from export_worker.egress.network import Network
from export_worker.egress.network_settings import NetworkSettings
from export_worker.errors import PlatformError, PlatformMalformedError, PlatformUnavailableError
from export_worker.platforms.http.bodies import ERROR_BODY_MAX_BYTES, read_up_to
from export_worker.platforms.http.codings import CodingError, UnknownCodingError
from export_worker.platforms.http.delivery import Delivery, delivery_trace
from export_worker.platforms.http.failures import failure_reason
from export_worker.platforms.http.outgoing import Auth, Credential, Outgoing, encoded_body, merged_headers
from export_worker.platforms.http.recorded_response import DOWNLOAD_BUFFER_BYTES, record_downloads
from export_worker.platforms.http.responses import HttpResponse, error_for, json_value, one_line
from export_worker.platforms.http.uploads import Sending, rewound, source_errors
from export_worker.platforms.http.urls import parse_base_url, with_query
from export_worker.platforms.settings import ConnectionSettings
from export_worker.step_context import check_submit, wait_for_gate

CONNECT_TIMEOUT_S = 10.0
"""Long enough for two lost SYN packets (repeated after 1 s and 3 s), short enough to report a dead host soon."""
CALL_TIMEOUT_S = 60.0
"""For a call that only reads, from the first byte sent to the last byte read. Most gateways time out at 60 s, too."""
SUBMIT_TIMEOUT_S = 300.0
"""For a call that starts a job. GrowingIO may compute an analysis before it responds (a submit can return FINISH), and
the platform may have accepted a submit that timed out."""
UPLOAD_TIMEOUT_S = 3600.0
"""For a call that uploads a file: its size has no known limit, and a person waits for it at a terminal."""
READ_TIMEOUT_S = 60.0
"""Longest wait for the head of a download, and longest pause between two reads of its body. A file's size has no limit,
so the whole download has no timeout."""
KEEPALIVE_S = 4.0
"""Below the shortest common idle timeout of servers (5 s): a submit on a connection that the server is closing would
fail, and a POST is not repeated silently."""
ANSWER_MAX_KIB = 1024
"""KiB of an answer, unless it is a listing. The values of a parsed answer need up to thirty times its length."""
LISTING_MAX_BYTES = 16 * 1024 * 1024
"""Listings have no pages, so a response may have tens of thousands of items. The limit stops an endless response."""
INLINE_JSON_BYTES = 64 * 1024
"""A longer body is parsed in a thread. A body of this length takes a few milliseconds at most."""


ANONYMOUS = Credential()
IDENTITY: Mapping[str, str] = MappingProxyType({"Accept-Encoding": "identity"})
"""Asks for a body without coding: neither the number of coded bytes nor their checksum is that of the file."""
HEAD_FIELD_MAX_BYTES = 64 * 1024
HEAD_FIELDS_MAX = 300
"""Signed links, cookies and security policies make long heads. aiohttp's limits are 8,190 bytes and 128 fields."""
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a platform's API.

    Args:
        method: HTTP method.
        path: Path below the base URL, with a leading slash, already percent-encoded where needed.
        query: Parameters as plain text; they are encoded once. A parameter with several values is repeated.
        json: JSON body, if not None.
        form: Form body, if not None.
        data: Streamed body, if not None. Only a call whose body is an `Upload` is ever repeated.
        headers: Further headers.
        content_type: Media type of `data`. A POST without any body is sent as JSON.
        timeout_s: Seconds for the whole exchange.
        is_listing: The answer may be as long as a listing, for calls that no step of an export makes.
        starts_work: The call starts work on the platform, so a repetition may start it twice. An error after which the
            platform may have received the call is `unclear`.
        is_repeatable: To send `data` twice has the same effect as to send it once.
    """

    method: str
    path: str
    query: Mapping[str, str | Sequence[str]] = field(default_factory=dict, repr=False)
    json: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    data: AsyncIterator[bytes] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content_type: str = "application/octet-stream"
    timeout_s: float = CALL_TIMEOUT_S
    is_listing: bool = False
    starts_work: bool = False
    is_repeatable: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def to(self, url: URL) -> Outgoing:
        """Returns the request, without a credential."""
        body, media_type = encoded_body(self.method, self.json, self.form)
        if self.data is not None:
            media_type = self.content_type
        headers = merged_headers({"Content-Type": media_type} if media_type else {}, IDENTITY, self.headers)
        return Outgoing(self.method, with_query(url, self.query), headers, body, is_streamed=self.data is not None)


class HttpClient:
    """Calls one platform. Can be built outside of an event loop; its session opens with the first call.

    Each request to the platform's own origin waits at the `RequestGate` first. Its timeout starts after that.

    Args:
        connection: Name of the connection, for messages about its settings.
        base_url: The setting `base_url`.
        redactor: Masks secrets in messages.
        address_policy: Which addresses requests may reach; by default the own host and public addresses.
        read_timeout_s: Longest wait for the head of a download, and longest pause between two reads of its body.
        answer_max_kib: The setting of this name: KiB of the longest answer that is no listing.

    Raises:
        ConfigError: The base URL cannot be used.
    """

    def __init__(
        self,
        connection: str,
        base_url: str,
        redactor: Redactor,
        *,
        address_policy: AddressPolicy | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
        answer_max_kib: int = ANSWER_MAX_KIB,
    ) -> None:
        self._connection = connection
        self.base_url = parse_base_url(connection, base_url)
        self.redactor = redactor
        self._address_policy = address_policy or AddressPolicy({self.base_url.host or ""})
        self.read_timeout_s = read_timeout_s
        self._answer_max_kib = answer_max_kib
        self._network = Network(f"connections.{connection}", NetworkSettings(), self.base_url, redactor)
        self._opened: aiohttp.ClientSession | None = None

    def sibling(self, base_url: str) -> "HttpClient":
        """Returns a client like this one for another server that the configuration names.

        Raises:
            ConfigError: The URL cannot be used.
        """
        url = parse_base_url(self._connection, base_url)
        policy = replace(self._address_policy, hosts={*self._address_policy.hosts, url.host or ""})
        other = copy(self)
        vars(other).update(base_url=url, _address_policy=policy, _opened=None)
        return other

    @classmethod
    def for_connection(cls, name: str, settings: ConnectionSettings, redactor: Redactor) -> Self:
        """Returns the client that the settings of a connection describe.

        Args:
            name: Name of the connection.
            settings: The settings of the connection.
            redactor: Masks secrets in messages.

        Raises:
            ConfigError: A setting cannot be used.
        """
        client = cls(
            name,
            settings.base_url,
            redactor,
            address_policy=settings.address_policy(),
            answer_max_kib=settings.answer_max_kib,
        )
        client._network = Network(f"connections.{name}", settings, client.base_url, redactor)
        return client

    async def call(self, call: Call, auth: Auth) -> Any:
        """Makes a call and returns the JSON value of the response. A 401 is answered as `answer` does.

        Raises:
            PlatformError: No response, an error status, or no JSON.
        """
        response = await self.answer(call, auth)
        error = error_for(response, self.redactor)
        if error is not None:
            raise error
        return await self.json(response)

    async def answer(self, call: Call, auth: Auth) -> HttpResponse:
        """Makes a call and returns the response, whatever its status.

        A call that gets 401 is repeated once with a new credential. An upload that gets no answer is repeated once if
        the platform cannot have received all of it, or if a repetition has the same effect.

        Raises:
            PlatformError: See `exchange`.
        """
        credential = await auth.credential()
        response = await self._exchange(call, credential)
        if response.status == 401 and await rewound(call.data) and (fresh := await auth.renew(credential)) is not None:
            return await self.exchange(call, fresh)
        return response

    async def _exchange(self, call: Call, credential: Credential) -> HttpResponse:
        delivery = Delivery(call.starts_work)
        try:
            return await self.exchange(call, credential, delivery)
        except PlatformUnavailableError:
            is_harmless = not delivery.answered and (call.is_repeatable or not delivery.is_sent)
            if call.data is None or not is_harmless or not await rewound(call.data):
                raise
        return await self.exchange(call, credential)

    async def json(self, response: HttpResponse) -> Any:
        """Returns the JSON value of a successful response. A long body is parsed in a thread.

        Raises:
            PlatformMalformedError: The body is not JSON.
        """
        if len(response.body) <= INLINE_JSON_BYTES:
            return json_value(response, self.redactor)
        return await asyncio.to_thread(json_value, response, self.redactor)

    async def exchange(
        self, call: Call, credential: Credential = ANONYMOUS, delivery: Delivery | None = None
    ) -> HttpResponse:
        """Sends one request and returns the response, whatever its status. Does not follow redirects.

        `delivery` receives how far the request came.

        Raises:
            PlatformThrottledError: The rate limit of the connection delays the request for longer than a step may wait.
            PlatformUnavailableError: No connection, or no response within the timeout.
            PlatformMalformedError: The response is not valid HTTP, or is too large.
            SubmitUnclearError: The call starts work, and the step may not submit; see `check_submit`.
        """
        await wait_for_gate()
        if call.starts_work:
            await check_submit()
        sent = call.to(self.url(call.path)).with_credential(credential)
        delivery = delivery or Delivery(call.starts_work)
        sending = None if call.data is None else Sending(call.data, delivery)
        with source_errors(sending), self.translate_errors(str(call), delivery):
            async with await self._send(
                sent,
                sending,
                timeout=aiohttp.ClientTimeout(total=call.timeout_s, sock_connect=CONNECT_TIMEOUT_S),
                trace_request_ctx=delivery,
            ) as response:
                delivery.answered = True
                limit_bytes = self._limit_bytes(call) if response.ok else ERROR_BODY_MAX_BYTES
                body = await read_up_to(response, limit_bytes + 1)
                if response.ok and len(body) > limit_bytes:
                    raise self._too_long(call, limit_bytes)
                if response.ok and sending is not None and not sending.is_sent:
                    raise PlatformMalformedError(f"{call}: the response arrived before the whole body was sent")
                return HttpResponse(str(call), response.status, response.headers, body, call.starts_work)

    def _limit_bytes(self, call: Call) -> int:
        return LISTING_MAX_BYTES if call.is_listing else self._answer_max_kib * 1024

    def _too_long(self, call: Call, limit_bytes: int) -> PlatformMalformedError:
        advice = "" if call.is_listing else f"; connections.{self._connection}.answer_max_kib can allow more"
        message = f"{call}: the response has more than {limit_bytes // 1024} KiB{advice}"
        return PlatformMalformedError(message, unclear=call.starts_work)

    async def get_stream(
        self, url: URL, credential: Credential, headers: Mapping[str, str] = NO_HEADERS
    ) -> aiohttp.ClientResponse:
        """Starts a download and returns the response after its head, whatever its status.

        The caller reads the body and closes the response. Redirects are not followed. Raises aiohttp's errors: the
        caller translates them.
        """
        if origin(url) == origin(self.base_url):
            await wait_for_gate()
        sent = Outgoing("GET", url, merged_headers(IDENTITY, headers)).with_credential(credential)
        # aiohttp's own timeout is for each pause. A server that sends one byte of the head now and then keeps it.
        async with asyncio.timeout(self.read_timeout_s):
            return await self._send(
                sent,
                read_bufsize=DOWNLOAD_BUFFER_BYTES,
                timeout=_pauses(self.read_timeout_s),
            )

    async def open_stream(self, call: Call, credential: Credential) -> aiohttp.ClientResponse:
        """Sends a request and returns the response after its head, whatever its status.

        The caller reads the body piece by piece, and closes the response. `call.timeout_s` limits the wait for the
        head, and each pause in the body. Redirects are not followed. Raises aiohttp's errors, which the caller
        translates.
        """
        await wait_for_gate()
        sent = call.to(self.url(call.path)).with_credential(credential)
        async with asyncio.timeout(call.timeout_s):
            return await self._send(
                sent,
                None if call.data is None else Sending(call.data, Delivery()),
                read_bufsize=DOWNLOAD_BUFFER_BYTES,
                timeout=_pauses(call.timeout_s),
            )

    async def _send(self, sent: Outgoing, sending: Sending | None = None, **options: Any) -> aiohttp.ClientResponse:
        """Sends a request over the network that the settings describe. Redirects are not followed."""
        data, headers = (sent.body or None, sent.headers) if sending is None else sending.parts(sent.headers)
        return await self._network.request(
            self._session(), sent.method, sent.url, data=data, headers=headers, **options
        )

    def url(self, path_and_query: str) -> URL:
        """Returns the URL of a path (with or without a query string) that is already percent-encoded."""
        return URL(str(self.base_url) + path_and_query, encoded=True)

    @contextmanager
    def translate_errors(self, call: str, delivery: Delivery | None = None) -> Iterator[None]:
        """Translates errors of aiohttp, errors of the system and timeouts within the block into our errors.

        The cause is not chained: its text and its fields may contain the URL with a token.

        Args:
            call: Method and path, for the message.
            delivery: How far the request came; None if it starts no work.
        """
        delivery = delivery or Delivery()
        try:
            yield
        except TimeoutError:
            message = f"{call}: no response within the timeout"
            raise PlatformUnavailableError(message, unclear=delivery.unclear) from None
        except (aiohttp.ClientError, OSError, CodingError, UnknownCodingError) as error:
            raise self._translated(error, call, delivery) from None

    def _translated(self, error: Exception, call: str, delivery: Delivery) -> PlatformError:
        if trouble := self._network.trouble(error):
            return PlatformUnconnectedError(one_line(f"{call}: {trouble}", self.redactor))
        is_malformed = isinstance(error, aiohttp.ClientResponseError | CodingError | UnknownCodingError)
        kind = PlatformMalformedError if is_malformed else PlatformUnavailableError
        return kind(f"{call}: {self.reason(error)}", unclear=delivery.unclear)

    def reason(self, error: Exception) -> str:
        """Returns what failed, in one line without URLs and without what the response contains."""
        return failure_reason(error, self.redactor)

    async def close(self) -> None:
        """Closes the session. No call may be made afterwards."""
        if self._opened is not None:
            await self._opened.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=record_downloads(
                    self._network.connector(self._address_policy, keepalive_timeout=KEEPALIVE_S)
                ),
                # A cookie would be a credential that is not in the configuration.
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "export-worker"},
                trace_configs=[delivery_trace()],
                auto_decompress=False,  # see `codings`
                max_line_size=HEAD_FIELD_MAX_BYTES,
                max_field_size=HEAD_FIELD_MAX_BYTES,
                max_headers=HEAD_FIELDS_MAX,
            )
        return self._opened


def _pauses(longest_s: float) -> aiohttp.ClientTimeout:
    """Returns the timeouts of a body without a limit of its duration: for the connection, and for each pause."""
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=longest_s)

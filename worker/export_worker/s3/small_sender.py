"""Sends requests without botocore: small ones on the event loop, bodies of parts in threads.

A call of botocore costs more than a millisecond of processor time, ten times as much as to sign and send the request.
So the first attempt of a small call is made here. If it succeeds, the call is complete. If not, botocore makes the same
call, and gets the answer of this attempt as the answer to its own first one. Thus its retries, redirects and errors
are the same as if it had sent the request itself.
"""

import ssl
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError, HTTPClientError, ReadTimeoutError
from botocore.httpsession import URLLib3Session, create_urllib3_context, get_cert_path

from export_worker.s3.bounded_http import (
    ANSWER_MAX_BYTES,
    ANSWER_TIMEOUT_S,
    ERROR_MAX_BYTES,
    AnswerTooLongError,
    ReadBody,
)
from export_worker.s3.sessions import LateCredentials
from export_worker.s3.small_answers import Answer, AnswerReader, BrokenAnswerError
from export_worker.s3.small_http import ConnectionPool, Server, SilentServerError, Timeouts
from export_worker.s3.small_requests import NotSmallError, OperationShape, RequestTemplate
from export_worker.s3.threads import run_in_thread
from export_worker.step_context import check_lease

SMALL_MAX_BYTES = 256 * 1024
"""Largest body of a small request. Its checksum takes the event loop less than 0.1 ms, and its MD5 less than 0.6 ms."""
OPERATIONS = {
    "put_object": "PutObject",
    "upload_part": "UploadPart",
    "head_object": "HeadObject",
    "delete_object": "DeleteObject",
}
"""The calls that are made in this way, by botocore's method."""
_CHANGES = {"put_object", "delete_object"}
_REQUIRED_FIELDS = {
    "put_object": {"ETag"},
    "upload_part": {"ETag"},
    "head_object": {"ETag", "ContentLength"},
    "delete_object": set[str](),
}
_EXPECTED_REFUSALS = {404, 409, 412}
_LEARNING_MAX = 3
"""Attempts to learn the requests of one operation and bucket. One may fail because credentials have just changed."""
_OWED_EACH, _OWED_MAX = 25, 500
"""botocore has a budget of retries, which its own successes fill again: 500 units, 5 to 10 of them for each retry. A
failure here may cost it four retries. So it makes as many calls itself as fill the budget."""


@dataclass(slots=True)
class _FirstAttempt:
    """What botocore uses in place of its own first attempt.

    Args:
        answer: The answer or the error; None if botocore makes the first attempt.
        sent: The requests that botocore has sent.
    """

    answer: Answer | HTTPClientError | None
    sent: list[AWSPreparedRequest] = field(default_factory=list)


_FIRST: ContextVar[_FirstAttempt | None] = ContextVar("first_attempt", default=None)


def first_answer(request: AWSPreparedRequest) -> AWSResponse | None:
    """Returns the answer that the first attempt of this call has had; None if botocore has to send the request.

    Raises:
        HTTPClientError: The first attempt had no answer.
        AnswerTooLongError: The answer was too long.
    """
    first = _FIRST.get()
    if first is None:
        return None
    answer, first.answer = first.answer, None
    if answer is None:
        first.sent.append(request)
        return None
    if isinstance(answer, HTTPClientError):
        raise answer
    if answer.body is None and answer.status < 300:
        raise AnswerTooLongError(max_bytes=ANSWER_MAX_BYTES, timeout_s=ANSWER_TIMEOUT_S)
    return AWSResponse(request.url, answer.status, HTTPHeaders.from_dict(answer.headers), ReadBody(answer.body or b""))


_EXCHANGE_ERRORS = (SilentServerError, OSError, BrokenAnswerError)


def _check(operation: str) -> None:
    if operation in _CHANGES:
        check_lease()


def _botocore_error(error: Exception, url: str) -> HTTPClientError:
    kind = ReadTimeoutError if isinstance(error, SilentServerError) else ConnectionClosedError
    return kind(endpoint_url=url, error=error)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One signed request.

    Args:
        has_body: Its answer may have a body.
    """

    server: Server
    url: str
    wire: bytes
    has_body: bool

    def reader(self) -> AnswerReader:
        return AnswerReader(has_body=self.has_body, success_max_bytes=ANSWER_MAX_BYTES, error_max_bytes=ERROR_MAX_BYTES)


class SmallSender:
    """Makes the small calls of one client of boto3.

    Args:
        client: Calls `first_answer` before each request that it sends.
        credentials: The credentials of the client.
        pool: Connections to the store.
    """

    def __init__(self, client: Any, credentials: LateCredentials, pool: ConnectionPool) -> None:
        self._client = client
        self._credentials = credentials
        self._pool = pool
        model = client.meta.service_model
        self._shapes = {method: OperationShape.of(model.operation_model(name)) for method, name in OPERATIONS.items()}
        self._templates: dict[tuple[str, str], RequestTemplate] = {}
        self._not_learned: Counter[tuple[str, str]] = Counter()
        self._owed = 0

    def call_in_thread(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a call with a body of any size by blocking calls. Raises what the client raises."""
        first = self._attempt_in_thread(operation, arguments)
        response = self._judged(operation, arguments, first)
        return self._by_botocore(operation, arguments, first) if response is None else response

    async def call(self, executor: ThreadPoolExecutor, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a call. Raises what the client raises.

        If the caller is cancelled, this method returns only when no request is on its way.

        Args:
            executor: Its threads make the calls of botocore, and open connections.
            operation: One of `OPERATIONS`.
            arguments: As for boto3. A body has at most `SMALL_MAX_BYTES`.
        """
        first = await self._attempt(executor, operation, arguments)
        response = self._judged(operation, arguments, first)
        if response is not None:
            return response
        return await run_in_thread(executor, partial(self._by_botocore, operation, arguments, first))

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()

    async def _attempt(
        self, executor: ThreadPoolExecutor, operation: str, arguments: Mapping[str, Any]
    ) -> Answer | HTTPClientError | None:
        """Sends the request, if it is known how. Returns None if nothing was sent."""
        prepared = self._prepared(operation, arguments)
        if prepared is None:
            return None
        try:
            connection = await self._pool.take(prepared.server, executor)
        except OSError:  # botocore finds the reason for which no connection can be opened
            return None
        try:
            _check(operation)
            return await connection.exchange(
                prepared.wire, arguments.get("Body", b""), prepared.reader(), self._pool.timeouts
            )
        except _EXCHANGE_ERRORS as error:
            return _botocore_error(error, prepared.url)
        finally:
            self._pool.give_back(connection)

    def _attempt_in_thread(self, operation: str, arguments: Mapping[str, Any]) -> Answer | HTTPClientError | None:
        """Does the same as `_attempt` by blocking calls."""
        prepared = self._prepared(operation, arguments)
        if prepared is None:
            return None
        try:
            connection = self._pool.take_in_thread(prepared.server)
        except OSError:
            return None
        try:
            _check(operation)
            return connection.exchange_in_thread(
                prepared.wire, arguments["Body"], prepared.reader(), self._pool.timeouts
            )
        except _EXCHANGE_ERRORS as error:
            return _botocore_error(error, prepared.url)
        finally:
            self._pool.give_back(connection)

    def _prepared(self, operation: str, arguments: Mapping[str, Any]) -> _Prepared | None:
        """Returns the signed request of a call; None if only botocore can build it."""
        template, credentials = self._templates.get((operation, arguments["Bucket"])), self._credentials.ready()
        if template is None or credentials is None or self._owed:
            return None
        try:
            request = template.build(arguments, credentials)
        except NotSmallError:
            return None
        wire = request.wire(len(arguments.get("Body", b"")))
        return _Prepared(template.server, request.url, wire, has_body=template.shape.method != "HEAD")

    def _judged(
        self, operation: str, arguments: Mapping[str, Any], first: Answer | HTTPClientError | None
    ) -> dict[str, Any] | None:
        """Returns the response if the first attempt has succeeded, and notes its failure otherwise."""
        response = self._response(operation, first) if isinstance(first, Answer) else None
        if response is None and first is not None:
            self._note_failure((operation, arguments["Bucket"]), first)
        return response

    def _response(self, operation: str, answer: Answer) -> dict[str, Any] | None:
        """Returns a successful response; None if botocore has to judge the answer."""
        if not 200 <= answer.status < 300 or answer.body:
            return None
        try:
            response = self._shapes[operation].response(answer.status, answer.headers)
        except ValueError:
            return None
        return response if _REQUIRED_FIELDS[operation] <= response.keys() else None

    def _note_failure(self, name: tuple[str, str], first: Answer | HTTPClientError) -> None:
        if isinstance(first, HTTPClientError) or first.status == 429 or first.status >= 500:
            self._owed = min(self._owed + _OWED_EACH, _OWED_MAX)
        elif first.status not in _EXPECTED_REFUSALS:
            self._templates.pop(name, None)  # botocore may find another address or region

    def _by_botocore(
        self, operation: str, arguments: Mapping[str, Any], answer: Answer | HTTPClientError | None
    ) -> dict[str, Any]:
        first = _FirstAttempt(answer)
        token = _FIRST.set(first)
        try:
            response: dict[str, Any] = getattr(self._client, operation)(**arguments)
        finally:
            _FIRST.reset(token)
        self._owed = max(0, self._owed - 1)
        if answer is None and len(first.sent) == 1:
            self._learn(operation, arguments, first.sent[0])
        return response

    def _learn(self, operation: str, arguments: Mapping[str, Any], sent: AWSPreparedRequest) -> None:
        name, credentials = (operation, arguments["Bucket"]), self._credentials.ready()
        if name in self._templates or self._not_learned[name] >= _LEARNING_MAX or credentials is None:
            return
        try:
            self._templates[name] = RequestTemplate.learned(self._shapes[operation], sent, arguments, credentials)
        except NotSmallError:
            self._not_learned[name] += 1


def small_sender(client: Any, credentials: object, http_session: object, spare_max: int) -> SmallSender | None:
    """Returns a sender for a client; None if its requests need botocore's whole path, such as those to a proxy.

    Args:
        client: A client of boto3, see `SmallSender`.
        credentials: Its credentials.
        http_session: Sends its requests.
        spare_max: Connections that are kept open.
    """
    if not isinstance(credentials, LateCredentials) or not isinstance(http_session, URLLib3Session):
        return None
    # botocore has no other way to learn what it has found in its configuration and in the environment.
    settings = vars(http_session)
    if settings["_proxy_config"].proxy_url_for(client.meta.endpoint_url) or settings["_cert_file"]:
        return None
    config = client.meta.config
    timeouts = Timeouts(config.connect_timeout, config.read_timeout, ANSWER_TIMEOUT_S)
    pool = ConnectionPool(spare_max, timeouts, partial(_tls_context, settings["_verify"]))
    return SmallSender(client, credentials, pool)


def _tls_context(verify: Any) -> ssl.SSLContext:
    """Returns TLS settings as botocore's.

    Args:
        verify: The file of the certificate authorities; True for those of botocore, False to accept every certificate.
    """
    context: ssl.SSLContext = create_urllib3_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(get_cert_path(verify))
    return context

"""Sessions of botocore that read no answer without a limit.

botocore reads the whole body of an answer into memory, whatever its length. A proxy in front of a store, or a store
that is out of order, may send an error page that never ends.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Protocol

import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import BotoCoreError, ConnectionClosedError, HTTPClientError, ReadTimeoutError
from urllib3.exceptions import HTTPError as URLLib3Error
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import ReadTimeoutError as URLLib3ReadTimeoutError

ANSWER_MAX_BYTES = 8 * 1024 * 1024
"""Twice the longest page that S3 sends: a list of 1,000 uploads whose keys have 1,024 bytes each."""
ERROR_MAX_BYTES = 256 * 1024
"""An error of S3 has less than one KiB. An error page of a proxy is larger."""
ANSWER_TIMEOUT_S = 600.0
"""For one body. S3 sends blanks for several minutes while it completes a very large upload."""
_READ_BYTES = 64 * 1024


class AnswerTooLongError(BotoCoreError):
    """A successful response has a longer body than any of S3."""

    fmt = "the response has more than {max_bytes} bytes, or takes more than {timeout_s:.0f} s"


class HttpSession(Protocol):
    """Sends the requests of a client, as `botocore.httpsession.URLLib3Session` does."""

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Sends one request, and returns the response."""

    def close(self) -> None:
        """Closes the connections."""


class BoundedSession(botocore.session.Session):
    """A session of botocore whose clients read answers up to a limit."""

    def create_client(self, *arguments: Any, **options: Any) -> Any:
        """Creates a client. See botocore's method."""
        client: Any = super().create_client(*arguments, **options)
        # botocore has no setting for the HTTP session of a client.
        endpoint = client._endpoint  # noqa: SLF001
        endpoint.http_session = BoundedHttpSession(endpoint.http_session)
        return client


class BoundedHttpSession:
    """Sends requests, and reads their answers up to a limit of bytes and time.

    Args:
        session: Sends the requests; botocore's own.
        timeout_s: Longest time for one body.
    """

    def __init__(self, session: HttpSession, timeout_s: float | None = None) -> None:
        self.session = session
        self._timeout_s = ANSWER_TIMEOUT_S if timeout_s is None else timeout_s

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Sends one request. Replaces the body of an error that is too long by an empty one.

        The body of a successful response that the caller reads itself, such as an object, is not read here.

        Raises:
            AnswerTooLongError: The body of a successful response is too long.
            HTTPClientError: The server cannot be reached, or did not answer.
        """
        is_streamed, request.stream_output = request.stream_output, True
        response = self.session.send(request)
        is_error = response.status_code >= 300
        if is_streamed and not is_error:
            return response
        max_bytes = ERROR_MAX_BYTES if is_error else ANSWER_MAX_BYTES
        body = self._read(request, response.raw, max_bytes)
        if body is None and not is_error:
            raise AnswerTooLongError(max_bytes=max_bytes, timeout_s=self._timeout_s)
        # If an error has no body, botocore uses its status as its code.
        return AWSResponse(response.url, response.status_code, _head_of(response), ReadBody(body or b""))

    def close(self) -> None:
        """Closes the connections."""
        self.session.close()

    def _read(self, request: AWSPreparedRequest, raw: Any, max_bytes: int) -> bytes | None:
        """Returns the body, or None if it exceeds a limit. Then the connection is closed, and not used again."""
        body, deadline_s = bytearray(), time.monotonic() + self._timeout_s
        with _botocore_errors(request):
            while piece := raw.read1(_READ_BYTES):
                body += piece
                if len(body) > max_bytes or time.monotonic() > deadline_s:
                    raw.close()
                    return None
        return bytes(body)


class ReadBody(BytesIO):
    """A body that was read, as botocore reads it."""

    def stream(self) -> Iterator[bytes]:
        """Yields the body."""
        yield self.getvalue()


def _head_of(response: AWSResponse) -> Any:
    """Returns the headers. In the types of botocore, a response takes them as another class than it has them."""
    return response.headers


@contextmanager
def _botocore_errors(request: AWSPreparedRequest) -> Iterator[None]:
    """Converts errors of urllib3 as botocore does: it repeats a call for which it knows the error."""
    try:
        yield
    except URLLib3ReadTimeoutError as error:
        raise ReadTimeoutError(endpoint_url=request.url, error=error) from None
    except ProtocolError as error:
        raise ConnectionClosedError(endpoint_url=request.url, error=error, request=request) from None
    except URLLib3Error as error:
        raise HTTPClientError(error=error) from None

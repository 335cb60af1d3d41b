"""The body of a download whose head has been checked: read in pieces, or received into the caller's memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

import aiohttp
from aiohttp.client_proto import ResponseHandler

from export_worker.errors import DownloadInterruptedError, DownloadInvalidError
from export_worker.platforms.base import Receiver, RestReceiver, ResumePoint
from export_worker.platforms.http.chunked_body import chunked_body
from export_worker.platforms.http.client import HttpClient
from export_worker.platforms.http.codings import CodingError, KeptCodingError, decoded, has_framed_end
from export_worker.platforms.http.direct_body import direct_body
from export_worker.platforms.http.ranges import validator_of
from export_worker.platforms.http.recorded_response import stop_recording

EXPANSION_MAX = 200
"""Largest accepted compression ratio. CSV and JSON reach 5 to 30, nearly equal lines 200, decompression bombs 1,000."""
EXPANSION_FREE_BYTES = 16 * 1024 * 1024
"""The ratio is not checked below this size: a small file of zeroes is harmless."""


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
        self._yielded_bytes = 0
        if codings or self._kept or self.total_bytes is not None:
            stop_recording(self._protocol)

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
        return media_types(self._response)[0]

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
                self._yielded_bytes = done_bytes - self.offset_bytes
                self._check_expansion(self._yielded_bytes)
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

    def rest_receiver(self, received_bytes: int, progress: Callable[[int], None]) -> RestReceiver | None:
        """See `platforms.base.DirectRest`."""
        has_all = received_bytes == self._yielded_bytes
        if self._codings or self._kept or self.total_bytes is not None or not has_all:
            return None
        stall_s = self._client.read_timeout_s
        return chunked_body(self._label, self._response, received_bytes, stall_s=stall_s, progress=progress)

    def _check_expansion(self, done_bytes: int) -> None:
        """Refuses a decompression bomb, which would fill the bucket with a useless file."""
        received_bytes = self._response.content.total_raw_bytes
        if done_bytes > max(EXPANSION_FREE_BYTES, EXPANSION_MAX * received_bytes):
            raise DownloadInvalidError(
                f"{self._label}: {received_bytes} compressed bytes became more than {EXPANSION_MAX} times as many"
            )

    def _closed(self) -> "asyncio.Future[None] | None":
        """Returns the future of the connection's end, for a body that only the end of the connection delimits."""
        protocol = self._protocol
        return None if self._response.content_length is not None or protocol is None else protocol.closed

    @property
    def _protocol(self) -> ResponseHandler | None:
        return None if self._response.connection is None else self._response.connection.protocol


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


def media_types(response: aiohttp.ClientResponse) -> list[str]:
    """Returns all media types of a response, in lower case: a proxy may add a second one. There is at least one."""
    named = ",".join(response.headers.getall("Content-Type", [])).split(",")
    return [name.partition(";")[0].strip().lower() for name in named]

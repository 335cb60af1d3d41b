"""Sends streamed bodies of requests: with their length if it is known, and with the errors of their source."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager

from export_worker.errors import ExportWorkerError, FieldProblem, InvalidRequestError, PlatformError
from export_worker.platforms.base import Upload
from export_worker.platforms.http.delivery import Delivery
from export_worker.platforms.http.outgoing import merged_headers


class Sending:
    """One attempt to send a body.

    Args:
        body: The body.
        delivery: Notes when the body is complete.
    """

    def __init__(self, body: AsyncIterator[bytes], delivery: Delivery) -> None:
        self._body = body
        self._delivery = delivery
        self._total_bytes = body.total_bytes if isinstance(body, Upload) else None
        self.error: ExportWorkerError | None = None
        """The error of the source."""

    @property
    def is_sent(self) -> bool:
        """Whether the last byte has been passed on."""
        return self._delivery.is_sent

    def parts(self, headers: Mapping[str, str]) -> tuple[AsyncIterator[bytes], Mapping[str, str]]:
        """Returns the body, and the headers with its length if it is known. Without a length it is sent in chunks."""
        length = {} if self._total_bytes is None else {"Content-Length": str(self._total_bytes)}
        return self._chunks(), merged_headers(headers, length)

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Yields the body.

        aiohttp would report an error of the source as one of the connection, so `source_errors` raises it again.
        """
        sent_bytes = 0
        try:
            async for chunk in self._body:
                sent_bytes += len(chunk)
                self._check(sent_bytes)
                yield chunk
            self._check(sent_bytes, complete=True)
        except ExportWorkerError as error:
            self.error = error
            raise

    def _check(self, sent_bytes: int, *, complete: bool = False) -> None:
        """Refuses a source that is longer or shorter than announced: the rest would be missing, or look like a call."""
        total_bytes = self._total_bytes
        if total_bytes is not None and (sent_bytes > total_bytes or (complete and sent_bytes < total_bytes)):
            raise InvalidRequestError([FieldProblem("body", "was changed while it was sent; repeat the call")])
        self._delivery.is_sent = complete or sent_bytes == total_bytes


async def rewound(body: AsyncIterator[bytes] | None) -> bool:
    """Returns whether a body can be sent again. It is at its beginning then."""
    return body is None or (isinstance(body, Upload) and await body.rewind())


@contextmanager
def source_errors(sending: Sending | None) -> Iterator[None]:
    """Raises the error of a body's source in place of the error of the connection that it has caused.

    An error behind the end of the body says that the platform may have received the body.
    """
    try:
        yield
    except PlatformError as error:
        if sending is not None and sending.error is not None:
            raise sending.error from None
        if sending is not None and sending.is_sent:
            error.args = (f"{error}; the platform may have received the upload",)
        raise

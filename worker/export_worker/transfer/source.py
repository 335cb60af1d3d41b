"""Reads a download and refuses what is no complete file: error pages, and bodies of another length than announced."""

import json
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from export_worker.errors import DownloadInterruptedError, DownloadInvalidError
from export_worker.platforms.base import Computed, Direct, Download, Receiver
from export_worker.s3.checksums import CRC64NVME, Checksum
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit
from export_worker.transfer.minimum_rate import MinimumRate

SNIFF_BYTES = 64 * 1024
"""No error page of a gateway is larger, and holding it costs little memory."""
EXCERPT_CHARACTERS = 200
"""Long enough to recognize an error page, short enough for a message."""
_PEEK_BYTES = 4096
"""Enough for the excerpt in any charset."""

_JSON_EXTENSIONS = (".json", ".jsonl", ".ndjson")
_HTML_BEGINNINGS = ("<!doctype html", "<html")
_LONGEST_BEGINNING = 20


class ValidatedSource:
    """The body of one download, validated while it is read.

    It yields nothing before it has checked that the beginning is no error page. It ends without an error only if the
    length is as announced, so an object must not be completed before the end.

    Args:
        download: Open; its body has not been read.
        file_name: Its extension shows whether JSON is expected.
        progress: Called with the number of bytes, each time that some are received.
        bandwidth: Limit at which they are read.
        hashed: Compute a checksum. Bytes that are stored unchanged do not need it, since S3's checksum is the same.
    """

    def __init__(
        self,
        download: Download,
        file_name: str,
        progress: Callable[[int], None],
        *,
        bandwidth: BandwidthLimit = UNLIMITED,
        hashed: bool = True,
    ) -> None:
        self._download = download
        self._json_expected = file_name.lower().endswith(_JSON_EXTENSIONS)
        self._progress = progress
        self.bandwidth = bandwidth
        self.rate = MinimumRate(bandwidth.min_bytes_per_s, is_computed=isinstance(download, Computed))
        self._hashed = hashed
        self.is_rest = False
        self._checksum = Checksum(CRC64NVME)
        self.bytes_read = 0

    def resume_at(self, offset_bytes: int) -> None:
        """Counts the bytes before the offset as read and checked. The download starts there."""
        self.is_rest, self.bytes_read = True, offset_bytes

    @property
    def checksum(self) -> Checksum:
        """The checksum of everything that `chunks` has read so far, if it is computed."""
        return self._checksum

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields the body, in pieces of any size.

        Raises:
            DownloadInvalidError: It is an error page.
            DownloadInterruptedError: The connection broke, the source is too slow, or the body does not have the
                announced length.
        """
        head: list[bytes] = []
        checked = self.is_rest  # an earlier attempt checked the beginning of the file
        async with _closed_at_end(self._download.chunks()) as chunks:
            while (chunk := await self.rate.wait_for(anext(chunks, None))) is not None:
                self._count(chunk)
                await self.bandwidth.spend(len(chunk))
                if checked:
                    yield chunk
                    continue
                head.append(chunk)
                if self.bytes_read > SNIFF_BYTES:
                    checked = True
                    refuse_html(b"".join(head)[:SNIFF_BYTES])
                    for piece in head:
                        yield piece
                    head.clear()
        if not checked:
            self._check_whole(b"".join(head))
        self._check_length()
        for piece in head:
            yield piece

    def receiver(self) -> Receiver | None:
        """Returns a receiver of the body that replaces `chunks`, if the download supports it. It validates nothing."""
        return self._download.receiver(self._received) if isinstance(self._download, Direct) else None

    def _received(self, count_bytes: int) -> None:
        self.rate.count(count_bytes)
        self._progress(count_bytes)

    def _count(self, chunk: bytes) -> None:
        self.bytes_read += len(chunk)
        if self._hashed:
            self._checksum = self._checksum.over(chunk)
        total_bytes = self._download.total_bytes
        if total_bytes is not None and self.bytes_read > total_bytes:
            raise DownloadInterruptedError(f"the download is longer than the {total_bytes} bytes that were announced")
        self._received(len(chunk))

    def _check_whole(self, body: bytes) -> None:
        refuse_html(body)
        if not self._json_expected:
            refuse_json_object(body)

    def _check_length(self) -> None:
        total_bytes = self._download.total_bytes
        if total_bytes is not None and self.bytes_read < total_bytes:
            raise DownloadInterruptedError(
                f"the download ended after {self.bytes_read} of the {total_bytes} bytes that were announced"
            )


@asynccontextmanager
async def _closed_at_end(chunks: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Closes a generator that is left before its end. Otherwise its cleanup would run at an unknown later time."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


def refuse_html(head: bytes) -> None:
    """Refuses a body that starts like an HTML page.

    Raises:
        DownloadInvalidError: It does. The message contains its beginning.
    """
    text = _beginning(head)
    if text[:_LONGEST_BEGINNING].lower().startswith(_HTML_BEGINNINGS):
        raise DownloadInvalidError(f"the download is an HTML page, not a file: {_excerpt(text)}")


def refuse_json_object(body: bytes) -> None:
    """Refuses a whole body that is one JSON object: a table never is, but an error message often is.

    Raises:
        DownloadInvalidError: It is one. The message contains its beginning.
    """
    if not _beginning(body).startswith("{"):
        return
    text = _text(body)
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(parsed, dict):
        raise DownloadInvalidError(f"the download is a JSON message, not a file: {_excerpt(text)}")


def _beginning(body: bytes) -> str:
    """Returns the start of the text, without leading blanks. Decoding all of it takes a quarter of a small transfer."""
    text = _text(body[:_PEEK_BYTES]).lstrip()
    return text if len(text) >= _LONGEST_BEGINNING or len(body) <= _PEEK_BYTES else _text(body).lstrip()


def _text(body: bytes) -> str:
    """Returns the body as text, decoded approximately: without byte order marks; zero bytes show that it is UTF-16."""
    if body.startswith(BOM_UTF8):
        return body[len(BOM_UTF8) :].decode("utf-8", "replace")
    if body.startswith(BOM_UTF16_LE):
        return body[2:].decode("utf-16-le", "replace")
    if body.startswith(BOM_UTF16_BE):
        return body[2:].decode("utf-16-be", "replace")
    if body[1:2] == b"\0":
        return body.decode("utf-16-le", "replace")
    if body[:1] == b"\0":
        return body.decode("utf-16-be", "replace")
    return body.decode("utf-8", "replace")


def _excerpt(text: str) -> str:
    """Returns the beginning on one line, for a message."""
    plain = "".join(" " if unicodedata.category(mark).startswith(("C", "Z")) else mark for mark in text[:1000])
    return " ".join(plain.split())[:EXCERPT_CHARACTERS]

"""Reads a download and refuses what is no file: error pages, cut bodies, bodies longer than announced."""

import json
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from export_worker.errors import DownloadInterruptedError, DownloadInvalidError
from export_worker.platforms.base import Direct, Download, Receiver
from export_worker.s3.checksums import CRC64NVME, Checksum
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit

SNIFF_BYTES = 64 * 1024
"""No error page that a gateway writes is larger, and it is little to hold."""
EXCERPT_CHARACTERS = 200
_PEEK_BYTES = 4096
"""Enough for the excerpt in any charset."""

_JSON_EXTENSIONS = (".json", ".jsonl", ".ndjson")
_HTML_BEGINNINGS = ("<!doctype html", "<html")
_LONGEST_BEGINNING = 20


class GuardedSource:
    """The body of one download, checked while it is read.

    Nothing is given out before the beginning has been looked at, and it ends without an error only when the length is
    right: who stores it must not finish before that.

    Args:
        download: Open, its body not read yet.
        file_name: Tells whether JSON is to be expected.
        progress: Called with the number of bytes that have just come, each time that some do.
        pace: At which they may come.
        hashed: Keep a checksum; whoever stores the bytes as they come has it already.
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
        self._hashed = hashed
        self.is_rest = False
        self._checksum = Checksum(CRC64NVME)
        self.bytes_read = 0

    def go_on_behind(self, bytes_before: int) -> None:
        """Take these bytes of the file as read and looked at: the download brings what follows them."""
        self.is_rest, self.bytes_read = True, bytes_before

    @property
    def checksum(self) -> Checksum:
        """Of everything that `chunks` has read so far, where it is kept."""
        return self._checksum

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body, in pieces of any size.

        Raises:
            DownloadInvalidError: It is an error page.
            DownloadInterruptedError: It is cut, or shorter or longer than announced.
        """
        head: list[bytes] = []
        checked = self.is_rest  # its beginning was looked at when it came
        async with _closed_at_end(self._download.chunks()) as chunks:
            async for chunk in chunks:
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
        """The body without `chunks`, where it can be had so; nothing of it has been looked at then."""
        return self._download.receiver(self._progress) if isinstance(self._download, Direct) else None

    def _count(self, chunk: bytes) -> None:
        self.bytes_read += len(chunk)
        if self._hashed:
            self._checksum = self._checksum.over(chunk)
        total_bytes = self._download.total_bytes
        if total_bytes is not None and self.bytes_read > total_bytes:
            raise DownloadInterruptedError(f"the download is longer than the {total_bytes} bytes that were announced")
        self._progress(len(chunk))

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
    """Closes a generator that is left before its end; otherwise its clean-up runs at some later moment."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


def refuse_html(head: bytes) -> None:
    """Refuse a body that begins as an HTML page does.

    Raises:
        DownloadInvalidError: It does; the message has its beginning.
    """
    text = _beginning(head)
    if text[:_LONGEST_BEGINNING].lower().startswith(_HTML_BEGINNINGS):
        raise DownloadInvalidError(f"the download is an HTML page, not a file: {_excerpt(text)}")


def refuse_json_object(body: bytes) -> None:
    """Refuse a whole body that is one JSON object: a table never is, an error message often.

    Raises:
        DownloadInvalidError: It is one; the message has its beginning.
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
    """How the text begins behind what is blank. Decoding all of it took a quarter of the time of a small transfer."""
    text = _text(body[:_PEEK_BYTES]).lstrip()
    return text if len(text) >= _LONGEST_BEGINNING or len(body) <= _PEEK_BYTES else _text(body).lstrip()


def _text(body: bytes) -> str:
    """The body as text, well enough to look at: marks dropped, UTF-16 also told by its zero bytes."""
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
    """The beginning on one line, fit for a message."""
    plain = "".join(" " if unicodedata.category(mark).startswith(("C", "Z")) else mark for mark in text[:1000])
    return " ".join(plain.split())[:EXCERPT_CHARACTERS]

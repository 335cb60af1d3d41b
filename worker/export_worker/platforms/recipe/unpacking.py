"""Unpacks a download while it is read: gzip or zip, whichever its first bytes show."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing

from export_worker.contract.file_names import TABLE_EXTENSIONS, extension_of
from export_worker.contract.packed import packed_format
from export_worker.errors import DownloadInterruptedError, DownloadInvalidError
from export_worker.platforms.base import Download
from export_worker.platforms.http.codings import CodingError, decoded
from export_worker.platforms.http.download_body import EXPANSION_FREE_BYTES, EXPANSION_MAX
from export_worker.platforms.recipe.joining import Joiner
from export_worker.platforms.recipe.zip_stream import ZipStream

_PACKED_MARKS = (b"\x1f\x8b\x08", b"PK\x03\x04", b"PK\x05\x06")
_BEGINNING_BYTES = 16
"""Enough to recognize a packed file."""


class Unpacked:
    """A download whose content is unpacked. Implements `platforms.base.Download`.

    A file that is not packed is passed on unchanged. Of a zip, all files are joined into one. It cannot be resumed: a
    packed file can be read from its beginning only.

    Args:
        download: The packed file.
        name: Name of the unpacked file.
    """

    total_bytes: int | None = None
    validator: str | None = None
    offset_bytes = 0

    def __init__(self, download: Download, name: str) -> None:
        self._download = download
        self._name = name
        self._received_bytes = 0

    @property
    def content_type(self) -> str:
        """Media type that the server sent."""
        return self._download.content_type

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the unpacked content in bounded pieces.

        Raises:
            DownloadInterruptedError: The file is cut, or is not valid.
            DownloadInvalidError: The content is far larger than the packed file.
        """
        done_bytes = 0
        async with aclosing(self._unpacked()) as pieces:
            async for piece in pieces:
                done_bytes += len(piece)
                if done_bytes > max(EXPANSION_FREE_BYTES, EXPANSION_MAX * self._received_bytes):
                    raise DownloadInvalidError(
                        f"{self._name}: {self._received_bytes} packed bytes became more than {EXPANSION_MAX} times "
                        "as many"
                    )
                yield piece

    async def _unpacked(self) -> AsyncGenerator[bytes, None]:
        received = self._received()
        beginning = b""
        async for piece in received:
            beginning += piece
            if len(beginning) >= _BEGINNING_BYTES:
                break
        self._check_beginning(beginning)
        rest = _chained(beginning, received)
        try:
            match packed_format(beginning):
                case "gzip":
                    content = decoded(rest, ("gzip",))
                case "zip":
                    content = self._unzipped(rest)
                case _:
                    content = rest
            async for piece in content:
                yield piece
        except CodingError as error:
            raise DownloadInterruptedError(f"{self._name}: the file is not whole: {error}") from None

    def _check_beginning(self, beginning: bytes) -> None:
        """Refuses the first bytes of a packed file alone: if no length was announced, only they show the cut."""
        is_mark = any(len(beginning) < len(mark) and mark.startswith(beginning) for mark in _PACKED_MARKS)
        if beginning and is_mark and self._download.total_bytes is None:
            raise DownloadInterruptedError(f"{self._name}: the file is not whole: it ends after {len(beginning)} bytes")

    async def _received(self) -> AsyncIterator[bytes]:
        async for piece in self._download.chunks():
            self._received_bytes += len(piece)
            yield piece

    async def _unzipped(self, packed: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        stream = ZipStream()
        joiner = Joiner(has_header=extension_of(self._name) in TABLE_EXTENSIONS)
        async for piece in packed:
            for part in _joined(joiner, stream.feed(piece)):
                yield part
        stream.finish()


def _joined(joiner: Joiner, parts: Iterator[bytes | None]) -> Iterator[bytes]:
    for part in parts:
        text = joiner.end_text() if part is None else joiner.feed(part)
        if text:
            yield text


async def _chained(beginning: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if beginning:
        yield beginning
    async for piece in rest:
        yield piece

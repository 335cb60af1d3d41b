"""Reads a download and refuses what is no complete file: error pages, and bodies of another length than announced."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from export_worker.errors import DownloadInterruptedError
from export_worker.platforms.base import Direct, DirectRest, Download, Receiver, RestReceiver
from export_worker.s3.checksums import CRC64NVME, Checksum
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit
from export_worker.transfer.error_pages import SNIFF_BYTES, ErrorPages
from export_worker.transfer.minimum_rate import MinimumRate


class ValidatedSource:
    """The body of one download, validated while it is read.

    It yields nothing before it has checked that the beginning is no error page. It ends without an error only if the
    length is as announced, so an object must not be completed before the end.

    Args:
        download: Open; its body has not been read.
        error_pages: Recognizes what is no file.
        progress: Called with the number of bytes, each time that some are received.
        bandwidth: Limit at which they are read.
        hashed: Compute a checksum. Bytes that are stored unchanged do not need it, since S3's checksum is the same.
    """

    def __init__(
        self,
        download: Download,
        error_pages: ErrorPages,
        progress: Callable[[int], None],
        *,
        bandwidth: BandwidthLimit = UNLIMITED,
        hashed: bool = True,
    ) -> None:
        self._download = download
        self.error_pages = error_pages
        self._progress = progress
        self.bandwidth = bandwidth
        self.rate = MinimumRate(bandwidth.min_bytes_per_s, is_computed=getattr(download, "is_computed", False))
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
                    self.error_pages.check_beginning(b"".join(head)[:SNIFF_BYTES])
                    for piece in head:
                        yield piece
                    head.clear()
        if not checked:
            self.error_pages.check_whole(b"".join(head))
        self._check_length()
        for piece in head:
            yield piece

    def receiver(self) -> Receiver | None:
        """Returns a receiver of the body that replaces `chunks`, if the download supports it. It validates nothing."""
        return self._download.receiver(self._received) if isinstance(self._download, Direct) else None

    def rest_receiver(self, received_bytes: int) -> RestReceiver | None:
        """Returns a receiver of what follows the bytes that the caller has from `chunks`, if the download supports it.

        It replaces `chunks`. The length of such a download is unknown, so there is nothing to validate at its end.
        """
        download = self._download
        return download.rest_receiver(received_bytes, self._received) if isinstance(download, DirectRest) else None

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

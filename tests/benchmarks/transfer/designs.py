"""The designs from which the engine's was chosen: three ways to read from the source's socket into a part's buffer.

- "pieces": aiohttp's `iter_any`; each piece is copied into the buffer. It works with any framing and encoding.
- "direct": the transport of aiohttp's response is given to a protocol that receives into the buffer.
- "thread": blocking reads of `http.client` into the buffer, in one thread for each file.

`make bench-transfer ARGS='--movers pieces direct thread --cases …'` compares them.
"""

import asyncio
import http.client
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from export_worker.platforms.base import Download, Receiver

PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pieces:
    """A download that can only be read in pieces."""

    download: Download

    @property
    def total_bytes(self) -> int | None:
        return self.download.total_bytes

    @property
    def content_type(self) -> str:
        return self.download.content_type

    def chunks(self) -> AsyncIterator[bytes]:
        return self.download.chunks()


class Blocking:
    """A response that is read by blocking calls in the thread of its file."""

    content_type = "text/csv"

    def __init__(self, answer: http.client.HTTPResponse, thread: ThreadPoolExecutor) -> None:
        self._answer = answer
        self._thread = thread
        self._progress: Callable[[int], None] = lambda _: None
        self.total_bytes = answer.length
        self.left_bytes = answer.length or 0

    def receiver(self, progress: Callable[[int], None]) -> Receiver | None:
        """Returns the receiver into the caller's memory; None if the length is unknown."""
        self._progress = progress
        return None if self.total_bytes is None else self

    async def receive_into(self, buffer: memoryview) -> int:
        """Receives a whole part with one call in the thread."""
        filled = await asyncio.get_running_loop().run_in_executor(self._thread, self._fill, buffer)
        self.left_bytes -= filled
        self._progress(filled)
        return filled

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields pieces, for a body of unknown length."""
        loop = asyncio.get_running_loop()
        while piece := await loop.run_in_executor(self._thread, self._answer.read, PIECE_BYTES):
            yield piece

    def _fill(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer) and (count := self._answer.readinto(buffer[filled:])):
            filled += count
        return filled


@asynccontextmanager
async def blocking(source: str) -> AsyncIterator[Blocking]:
    """Opens the source with a separate connection and thread."""
    parts = urlsplit(source)
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.netloc, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(parts.netloc)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread:
        try:
            await loop.run_in_executor(thread, connection.request, "GET", f"{parts.path}?{parts.query}")
            yield Blocking(await loop.run_in_executor(thread, connection.getresponse), thread)
        finally:
            connection.close()

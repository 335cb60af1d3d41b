"""Three ways from a source's socket into the part's buffer, all through the engine: what it was chosen from.

- "pieces": aiohttp's `iter_any`, each piece copied into the buffer. The general way: any framing, any coding.
- "direct": the transport of aiohttp's answer handed to a protocol that receives into the buffer.
- "thread": blocking reads of `http.client` into the buffer, in a thread for each file.

`make bench-transfer ARGS='--movers pieces direct thread --courses …'` measures them beside each other.
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
    """A download that can be had in pieces alone."""

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
    """An answer that is read by blocking calls, each in the file's thread."""

    content_type = "text/csv"

    def __init__(self, answer: http.client.HTTPResponse, thread: ThreadPoolExecutor) -> None:
        self._answer = answer
        self._thread = thread
        self._progress: Callable[[int], None] = lambda _: None
        self.total_bytes = answer.length
        self.left_bytes = answer.length or 0

    def receiver(self, progress: Callable[[int], None]) -> Receiver | None:
        """Into the caller's memory, where the end is known."""
        self._progress = progress
        return None if self.total_bytes is None else self

    async def receive_into(self, room: memoryview) -> int:
        """A whole part in one call of the thread."""
        filled = await asyncio.get_running_loop().run_in_executor(self._thread, self._fill, room)
        self.left_bytes -= filled
        self._progress(filled)
        return filled

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pieces, where it is not."""
        loop = asyncio.get_running_loop()
        while piece := await loop.run_in_executor(self._thread, self._answer.read, PIECE_BYTES):
            yield piece

    def _fill(self, room: memoryview) -> int:
        filled = 0
        while filled < len(room) and (count := self._answer.readinto(room[filled:])):
            filled += count
        return filled


@asynccontextmanager
async def blocking(source: str) -> AsyncIterator[Blocking]:
    """Open the source by a connection and a thread of its own."""
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

"""Stores the small files of an export several at once, and in the order of the export for everyone who looks.

A small file takes mostly the time of two round trips, to the platform and to S3. So while one file is stored, the next
ones are stored, too. A file that turns out not to be small is stored alone, when all files before it are: its upload
may be resumed, and the record has room for one upload.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from export_worker.contract.status import ManifestObject
from export_worker.platforms.base import Download
from export_worker.s3.objects import Target
from export_worker.s3.small_sender import SMALL_MAX_BYTES
from export_worker.transfer.engine import ReadOptions, StoredFile, TransferEngine, stored_file
from export_worker.transfer.error_pages import ErrorPages
from export_worker.transfer.reader import open_reader
from export_worker.transfer.source import ValidatedSource

FILES_AT_ONCE = 8
"""Enough to hide the round trips. They hold at most 2 MiB of buffers."""
SAVE_INTERVAL_S = 0.5
"""Files are saved in the record this often. A worker that resumes the export finds the others in S3."""


async def store_small_file(
    engine: TransferEngine, download: Download, target: Target, options: ReadOptions
) -> StoredFile | None:
    """Stores a download as an object if it is small. Otherwise stores nothing, and returns None.

    Raises:
        StepError: As `TransferEngine.store_file` says.
    """
    transform, total_bytes = options.transform, download.total_bytes
    if total_bytes is not None and total_bytes > SMALL_MAX_BYTES:
        return None
    source = ValidatedSource(
        download,
        ErrorPages(options.file_name, engine.redactor, is_quoted=options.is_quoted),
        _ignore_bytes,
        bandwidth=options.bandwidth,
        hashed=transform is not None,
    )
    size_bytes = SMALL_MAX_BYTES if total_bytes is None or transform is not None else total_bytes
    with engine.pool.share() as share:
        async with open_reader(source, transform, engine.store.executor) as reader:
            buffer = await share.take(size_bytes)
            with memoryview(buffer.data) as view:
                filled = await reader.fill(view)
            buffer.cut(filled)
            if not await reader.at_end():
                return None
            written = await engine.store.put(target, buffer.data)
    if transform is None:
        return stored_file(target, written, written.bytes, written.checksum)
    return stored_file(target, written, source.bytes_read, source.checksum)


def _ignore_bytes(count_bytes: int) -> None:
    """Counts nothing: the progress counts a small file when it is stored."""


class FilesAhead:
    """Small files behind the current one, which are being stored or are stored.

    Args:
        store: Stores the file with this index; returns None if it is not small.
        end: The number of files.
    """

    def __init__(
        self, store: Callable[[int], Coroutine[Any, Any, ManifestObject | None]], end: int, at_once: int = FILES_AT_ONCE
    ) -> None:
        self._store = store
        self._end = end
        self._at_once = at_once
        self._tasks: dict[int, asyncio.Task[ManifestObject | None]] = {}

    def start(self, index: int) -> None:
        """Starts the files from this one on, as many as may be stored at once."""
        for each in range(index, min(index + self._at_once, self._end)):
            if each not in self._tasks:
                self._tasks[each] = asyncio.create_task(self._store(each))

    async def take(self, index: int) -> ManifestObject | None:
        """Returns a file as soon as it is stored; None if it was not started, or is not small.

        Raises:
            StepError: It could not be stored.
        """
        task = self._tasks.get(index)
        if task is None:
            return None
        stored = await asyncio.shield(task)
        del self._tasks[index]
        return stored

    async def close(self) -> None:
        """Cancels what is still being stored. When it returns, none of it runs."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)


class FileSaver:
    """Saves stored files in the record: the first at once, and the next ones together.

    Args:
        save: Saves the next files of the export.
    """

    def __init__(self, save: Callable[[Sequence[ManifestObject]], Awaitable[None]]) -> None:
        self._save = save
        self._unsaved: list[ManifestObject] = []
        self._saved_s = float("-inf")

    async def add(self, stored: ManifestObject) -> None:
        """Adds the next file."""
        self._unsaved.append(stored)
        if time.monotonic() - self._saved_s >= SAVE_INTERVAL_S:
            await self.flush()

    async def flush(self) -> None:
        """Saves every file that is not saved yet."""
        if self._unsaved:
            unsaved, self._unsaved = self._unsaved, []
            await self._save(unsaved)
            self._saved_s = time.monotonic()

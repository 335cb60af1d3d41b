"""Archives one hour, exactly once: each entry of the hour's log is one row of the hour's file.

1. The hour is closed. From then on, Redis adds no entry to its log, and every worker reads the same entries.
2. If the file is there, it is kept: it has all rows, whichever worker has written it, even if Redis has forgotten them.
3. Else the file is written under its key, which does not depend on the worker or the attempt, if the key is still free.
   S3 makes the whole file visible at once. Of two workers, one writes the file, and the other keeps it.
4. `_SUCCESS` is written.

A worker may die at any point: the next one repeats these steps.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Protocol

from export_worker.archive.layout import PARQUET_TYPE, ArchiveFolder, HourKeys
from export_worker.archive.objects import StreamedObject
from export_worker.archive.rows import EndedExport, row_of
from export_worker.contract.model import epoch_ms
from export_worker.redis.ended_log import EndedEntry
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store

PAGE_ENTRIES = 200
"""Exports whose records are in memory at once: a few hundred KiB, or some MiB if each has hundreds of files."""


class EndedLog(Protocol):
    """The log of ended exports, by hour."""

    async def hours(self) -> Sequence[int]:
        """Returns the starts (ms) of the hours that have entries, the oldest first."""

    async def close(self, hour_ms: int) -> bool:
        """Closes an hour and all hours before it: no entry is added to them any more.

        Returns:
            False if entries may still be added. Nothing was closed then.
        """

    async def length(self, hour_ms: int) -> int:
        """Returns the number of positions in the log of one hour."""

    async def of_hour(self, hour_ms: int, first: int, limit: int) -> Sequence[EndedEntry]:
        """Returns the entries at some positions of one hour, in a fixed order. An expired export has no entry."""


class EndedExports(Protocol):
    """The records of ended exports."""

    async def read(self, entries: Sequence[EndedEntry]) -> list[EndedExport | None]:
        """Returns what is kept about these ends, in the same order; None for one whose record has expired."""


@dataclass(frozen=True, slots=True)
class ArchivedHour:
    """What one run has done for one hour.

    Args:
        exports: Rows that this run has written. 0 if no export ended, or if the file was there.
        missing: Those of them whose record had expired.
    """

    exports: int = 0
    missing: int = 0


class HourArchiver:
    """Archives hours of one namespace.

    Attributes:
        folder: Where it archives them.
    """

    def __init__(self, store: S3Store, folder: ArchiveFolder, log: EndedLog, exports: EndedExports) -> None:
        self._store = store
        self.folder = folder
        self._log = log
        self._exports = exports

    async def archive(self, start: datetime) -> ArchivedHour | None:
        """Archives the hour that begins at a moment, and that is over.

        Returns:
            None if the hour cannot be closed yet. Nothing was written then.

        Raises:
            StorageError: S3 refused a call or did not answer.
            ModuleNotFoundError: The extra `parquet` is not installed.
        """
        keys = self.folder.hour(start)
        if not await self._log.close(epoch_ms(start)):
            return None
        done = ArchivedHour()
        if await self._store.head_object(self._target(keys, keys.file)) is None:
            done = await self._write_file(keys, start)
        await self._store.put(self._target(keys, keys.marker), b"")
        return done

    async def oldest(self) -> datetime | None:
        """Returns the start of the first hour in which an export ended that Redis knows; None if there is none."""
        hours = await self._log.hours()
        return datetime.fromtimestamp(hours[0] / 1000, UTC) if hours else None

    async def abort_uploads(self, before: datetime) -> None:
        """Aborts the uploads of workers that have died: those that were begun before a time. Raises `StorageError`."""
        bucket = self.folder.bucket
        for upload in await self._store.uploads(bucket, self.folder.own_prefix):
            if upload.begun_at < before:
                await self._store.abort(bucket, upload)

    async def _write_file(self, keys: HourKeys, start: datetime) -> ArchivedHour:
        hour_ms, exports, missing = epoch_ms(start), 0, 0
        positions = await self._log.length(hour_ms)
        if not positions:
            return ArchivedHour()
        table = await asyncio.to_thread(_new_table)
        async with StreamedObject(self._store, self._target(keys, keys.file)) as file:
            for first in range(0, positions, PAGE_ENTRIES):
                entries = await self._log.of_hour(hour_ms, first, PAGE_ENTRIES)
                found = await self._exports.read(entries)
                await file.write(await asyncio.to_thread(_add, table, entries, found))
                exports, missing = exports + len(entries), missing + found.count(None)
            await file.write(await asyncio.to_thread(table.finish))
            await file.complete()
        return ArchivedHour(exports, missing)

    def _target(self, keys: HourKeys, key: str) -> Target:
        content_type = PARQUET_TYPE if key == keys.file else "application/octet-stream"
        return Target(self.folder.bucket, key, keys.owner, content_type, keeps_existing=True)


def _new_table() -> Any:
    """Returns a new table. Arrow is large, so only a worker that archives loads it, and not before."""
    return import_module("export_worker.archive.tables").ExportTable()


def _add(table: Any, entries: Sequence[EndedEntry], found: Sequence[EndedExport | None]) -> bytes:
    added: bytes = table.add([row_of(entry, ended) for entry, ended in zip(entries, found, strict=True)])
    return added

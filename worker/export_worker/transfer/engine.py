"""Moves one download into one object: fills one part while several others are being sent.

The memory of one transfer is (parts in flight + the one that is being filled) times the part size. The pool's budget
bounds all transfers together. A buffer is taken before a part is read, so a slow store slows the source down, and no
bytes pile up.
"""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from secrets import token_hex
from typing import NoReturn

from export_worker.credentials import Redactor
from export_worker.errors import (
    DownloadInterruptedError,
    ObjectExistsError,
    StepError,
    StorageRefusedError,
)
from export_worker.lifecycle.observations import ResumableUpload
from export_worker.platforms.base import Download
from export_worker.s3.checksums import Checksum
from export_worker.s3.multipart import MultipartUpload, SentPart
from export_worker.s3.objects import Target, Written
from export_worker.s3.store import S3Store
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit
from export_worker.transfer.buffers import BufferPool, BufferShare, PartBuffer
from export_worker.transfer.callbacks import TransferCallbacks
from export_worker.transfer.error_pages import ErrorPages
from export_worker.transfer.part_sizes import FIRST_PART_BYTES, MAX_OBJECT_BYTES, MAX_PARTS, part_size
from export_worker.transfer.progress import TransferProgress
from export_worker.transfer.reader import PartReader, open_reader
from export_worker.transfer.resume import NotResumable, RecoveredUpload, recover
from export_worker.transfer.source import ValidatedSource
from export_worker.transfer.transforms.base import Transform
from export_worker.transfer.upload_aborts import aborted_on_error
from export_worker.transfer.upload_notes import UploadNotes, UploadRecorder, recorder_of

PARTS_IN_FLIGHT = 4
"""Enough to use a fast connection fully, and little memory."""
MEMORY_BYTES = 2 * (PARTS_IN_FLIGHT + 1) * FIRST_PART_BYTES
"""80 MiB: two transfers at full speed, or more transfers with fewer parts in flight each."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file that is stored in S3.

    Args:
        bytes: Stored bytes, after the transform.
        checksum: Algorithm and base64 of the stored bytes' checksum, such as `CRC64NVME:…`.
        source_bytes: Received bytes, before the transform.
        source_checksum: The same of the received bytes.
        adopted: An earlier attempt of the same export had stored it already.
    """

    bucket: str
    key: str
    bytes: int
    etag: str
    checksum: str
    source_bytes: int
    source_checksum: str
    adopted: bool

    @property
    def uri(self) -> str:
        """`s3://bucket/key`, with the key unchanged."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a download is read.

    Args:
        file_name: Name of the file at the platform. Its extension shows whether JSON or markup is expected.
        transform: A new transform; None stores the bytes unchanged.
        bandwidth: Limit at which the source is read.
        is_quoted: Whether messages may quote an error page. A file with columns of people is not quoted.
    """

    file_name: str
    transform: Transform | None = None
    bandwidth: BandwidthLimit = UNLIMITED
    is_quoted: bool = True


@dataclass(frozen=True, slots=True)
class _Transfer:
    """What one transfer works with.

    Args:
        recorder: Returns what saves the upload; None if it cannot be resumed.
        recovered: What an earlier attempt has left; None to start at the beginning.
    """

    reader: PartReader
    target: Target
    total_bytes: int | None
    share: BufferShare
    progress: TransferProgress
    callbacks: TransferCallbacks
    recorder: Callable[[], UploadRecorder | None]
    recovered: RecoveredUpload | None
    fixed_part_bytes: int | None

    async def read_part(self, number: int) -> PartBuffer:
        """Takes a buffer for one part, then fills it until it is full or the stream ends."""
        if number > MAX_PARTS:
            raise StorageRefusedError(f"the file has more than {MAX_PARTS} parts; set a larger s3.part_size_mib")
        size_bytes = part_size(number, self.total_bytes, self.fixed_part_bytes)
        if self.total_bytes is not None:
            size_bytes = min(size_bytes, self.total_bytes - (number - 1) * size_bytes)
        buffer = await self.share.take(size_bytes)
        with memoryview(buffer.data) as view:
            filled = await self.reader.fill(view)
        buffer.cut(filled)
        return buffer


class TransferEngine:
    """Stores downloads and documents. There is one engine for each store, and transfers may run concurrently.

    Args:
        store: Its executor needs at least as many threads as parts are in flight over all transfers.
        parts_in_flight: Parts of one transfer that are sent at the same time.
        memory_bytes: Bytes in part buffers over all transfers. With less than one part, parts are sent one by one.
        pool: Buffers that are shared with other engines, instead of `memory_bytes`.
        redactor: Masks secrets in what is quoted of an error page; None if no secret is known.
    """

    def __init__(
        self,
        store: S3Store,
        *,
        parts_in_flight: int = PARTS_IN_FLIGHT,
        memory_bytes: int = MEMORY_BYTES,
        pool: BufferPool | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self.store = store
        self.redactor = redactor or Redactor()
        self._parts_in_flight = parts_in_flight
        self.pool = pool or BufferPool(memory_bytes)

    async def recover(self, target: Target, resumable: ResumableUpload) -> RecoveredUpload | StoredFile | NotResumable:
        """Finds what became of an upload that was saved in the record. If it has all its parts, completes it.

        Raises:
            ObjectExistsError: The key belongs to another export.
            StorageError: S3 refused, did not answer, or stored other bytes.
        """
        found = await recover(self.store, target, resumable)
        if isinstance(found, RecoveredUpload) and found.is_whole:
            async with aborted_on_error(found.upload, is_recorded=True):
                found = await found.upload.complete(found.parts)
        # Only uploads of unchanged bytes are recorded, so source and object have the same length and checksum.
        return stored_file(target, found, found.bytes, found.checksum) if isinstance(found, Written) else found

    async def abandon(self, target: Target, resumable: ResumableUpload) -> None:
        """Aborts an upload that was saved in the record."""
        await self.store.upload(replace(target, key=resumable.key), resumable.upload_id).abort()

    async def store_file(
        self,
        download: Download,
        target: Target,
        options: ReadOptions,
        *,
        progress: TransferProgress,
        callbacks: TransferCallbacks,
        recovered: RecoveredUpload | None = None,
    ) -> StoredFile:
        """Streams a download into an object. Returns when the object is complete; otherwise there is no object.

        After a failure or a cancellation, no thread of this transfer runs. Its multipart upload stays open only if it
        was saved by `on_upload_changed` and its parts are right. The next attempt, here or at another worker, may then
        `recover` it. An upload is saved before its first part is sent. Only a file of known length can be resumed, if
        it is stored unchanged and its source reports a version.

        Args:
            download: Open; its body has not been read. It starts behind `recovered`, if that is given.
            target: The object.
            options: How the download is read.
            progress: Counts bytes and parts.
            callbacks: Saves an upload that can be resumed.
            recovered: What `recover` found.

        Raises:
            DownloadInvalidError: The download is an error page.
            DownloadInterruptedError: The connection broke, or the body is shorter or longer than announced.
            TransformError: The bytes do not fit the charset.
            ObjectExistsError: The key belongs to another export.
            StorageError: S3 refused, did not answer, or stored other bytes.
        """
        transform = options.transform
        source = ValidatedSource(
            download,
            ErrorPages(options.file_name, self.redactor, is_quoted=options.is_quoted),
            progress.add_bytes,
            bandwidth=options.bandwidth,
            hashed=transform is not None,
        )
        if recovered is not None:
            source.resume_at(recovered.bytes)
        # A transform changes the length, so the announced one is useless for planning parts.
        total_bytes = download.total_bytes if transform is None else None
        if total_bytes is not None and total_bytes > MAX_OBJECT_BYTES:
            _refuse_size()
        with self.pool.share() as share:
            async with open_reader(source, transform, self.store.executor) as reader:
                transfer = _Transfer(
                    reader=reader,
                    target=target,
                    total_bytes=total_bytes,
                    share=share,
                    progress=progress,
                    callbacks=callbacks,
                    recorder=partial(recorder_of, download, total_bytes, callbacks),
                    recovered=recovered,
                    fixed_part_bytes=self.store.part_bytes,
                )
                written = await self._move(transfer)
        if transform is None:
            return stored_file(target, written, written.bytes, written.checksum)
        return stored_file(target, written, source.bytes_read, source.checksum)

    async def store_document(self, bucket: str, key: str, body: bytes, content_type: str, export_id: str) -> StoredFile:
        """Stores a small document of the worker, such as `_manifest.json`, by the same rules as a file.

        Raises:
            ObjectExistsError: The key belongs to another export.
            StorageError: S3 refused, did not answer, or stored other bytes.
        """
        target = Target(bucket, key, export_id, content_type)
        written = await self.store.put(target, body)
        return stored_file(target, written, len(body), written.checksum)

    async def remove_object(self, bucket: str, key: str, export_id: str, *, surely: bool = False) -> bool:
        """Removes the object with this key. Returns whether there was one. See `S3Store.remove`."""
        return await self.store.remove(Target(bucket, key, export_id, ""), surely=surely)

    async def has_document(self, bucket: str, key: str, export_id: str) -> bool:
        """Whether an object of this export has this key. An object of another export does not count.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        target = Target(bucket, key, export_id, "")
        try:
            if await self.store.head_object(target) is not None:
                return True
        except ObjectExistsError:
            return False
        await self.store.confirm_absence(target)
        return False

    async def abort_leftovers(self, bucket: str, prefix: str, export_id: str, keep: str | None = None) -> int:
        """See `S3Store.abort_leftovers`: after another worker died, and when an export ends."""
        return await self.store.abort_leftovers(bucket, prefix, export_id, keep)

    async def _move(self, transfer: _Transfer) -> Written:
        recovered = transfer.recovered
        if recovered is not None:
            first = await transfer.read_part(len(recovered.parts) + 1)
            further = UploadNotes(recovered.resumable, recovered.upload, transfer.callbacks, recovered.parts)
            return await self._finish(transfer, recovered.upload, first, further)
        first = await transfer.read_part(1)
        if await transfer.reader.at_end():
            written = await self.store.put(transfer.target, first.data)
            transfer.progress.add_part()
            return written
        upload, notes = await self._start_upload(transfer)
        return await self._finish(transfer, upload, first, notes)

    async def _start_upload(self, transfer: _Transfer) -> tuple[MultipartUpload, UploadNotes | None]:
        recorder = transfer.recorder()
        if recorder is None:
            return await self.store.begin(transfer.target), None
        token = token_hex(8)
        upload = await self.store.begin(replace(transfer.target, token=token))
        async with aborted_on_error(upload, is_recorded=False):
            return upload, await recorder.save(transfer.target.key, upload, token)

    async def _finish(
        self, transfer: _Transfer, upload: MultipartUpload, first: PartBuffer, notes: UploadNotes | None
    ) -> Written:
        async with aborted_on_error(upload, is_recorded=notes is not None):
            async with nullcontext() if notes is None else notes.saving():
                parts = await self._send(transfer, upload, first, notes)
            return await upload.complete(parts)

    async def _send(
        self, transfer: _Transfer, upload: MultipartUpload, first: PartBuffer, notes: UploadNotes | None
    ) -> list[SentPart]:
        """Reads and sends parts until the end. When it returns or raises, all its threads have ended.

        If the connection to the source breaks, the parts that were read are sent, so that the next attempt resumes
        behind them.
        """
        sending = _Sending(upload, transfer, self._parts_in_flight, notes)
        broken: DownloadInterruptedError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                try:
                    await sending.start(tasks, first)
                    while not await transfer.reader.at_end():
                        await sending.start(tasks, await transfer.read_part(sending.started + 1))
                except DownloadInterruptedError as error:
                    if notes is None:
                        raise
                    broken = error
        except BaseExceptionGroup as group:
            raise broken or _main_error(group) from None
        if broken is not None:
            raise broken
        return sending.parts()


class _Sending:
    """The parts of one upload that are being sent or have been sent."""

    def __init__(
        self, upload: MultipartUpload, transfer: _Transfer, parts_in_flight: int, notes: UploadNotes | None
    ) -> None:
        self._upload = upload
        self._share = transfer.share
        self._progress = transfer.progress
        self._notes = notes
        self._slots = asyncio.Semaphore(parts_in_flight)
        self._before = () if transfer.recovered is None else transfer.recovered.parts
        self._tasks: list[asyncio.Task[SentPart]] = []
        self._bytes = sum(part.bytes for part in self._before)

    @property
    def started(self) -> int:
        return len(self._before) + len(self._tasks)

    async def start(self, tasks: asyncio.TaskGroup, buffer: PartBuffer) -> None:
        """Starts to send the next part, as soon as a slot is free."""
        self._bytes += len(buffer.data)
        if self._bytes > MAX_OBJECT_BYTES:
            _refuse_size()
        await self._slots.acquire()
        task = tasks.create_task(self._upload.send(self.started + 1, buffer.data))
        # A callback and no `finally` in the task: a task that is cancelled before it starts runs none of its body.
        task.add_done_callback(lambda ended: self._ended(ended, buffer))
        self._tasks.append(task)

    def parts(self) -> list[SentPart]:
        """Returns all parts in order, after every task has succeeded."""
        return [*self._before, *(task.result() for task in self._tasks)]

    def _ended(self, task: asyncio.Task[SentPart], buffer: PartBuffer) -> None:
        if not task.cancelled() and task.exception() is None:
            self._progress.add_part()
            if self._notes is not None:
                self._notes.add(task.result())
        self._share.give_back(buffer)
        self._slots.release()


def _main_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Returns the most specific error: the first `StepError` if there is one."""
    return next((error for error in group.exceptions if isinstance(error, StepError)), group.exceptions[0])


def _refuse_size() -> NoReturn:
    raise StorageRefusedError(f"the file has more than {MAX_OBJECT_BYTES} bytes, the maximum of one S3 object")


def stored_file(target: Target, written: Written, source_bytes: int, source_checksum: Checksum) -> StoredFile:
    """Returns a file that was written; see `StoredFile`."""
    return StoredFile(
        bucket=target.bucket,
        key=target.key,
        bytes=written.bytes,
        etag=written.etag,
        checksum=str(written.checksum),
        source_bytes=source_bytes,
        source_checksum=str(source_checksum),
        adopted=written.adopted,
    )

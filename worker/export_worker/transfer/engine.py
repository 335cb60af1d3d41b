"""Moves one download into one object: reads ahead by one part, sends several at once, holds no more than that.

Memory of one transfer: (parts in flight + the one that is being filled) times the part size. Of all transfers
together: the pool's budget. A permit is taken before a part is read, so a slow store slows the source down and
nothing piles up.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import NoReturn

from export_worker.errors import DownloadInvalidError, IntegrityError, StepError, StorageError, StorageRefusedError
from export_worker.lifecycle.observations import ResumableUpload
from export_worker.platforms.base import Download, Versioned
from export_worker.s3.checksums import Checksum
from export_worker.s3.multipart import MultipartUpload, SentPart
from export_worker.s3.objects import Target, Written
from export_worker.s3.store import S3Store
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit
from export_worker.transfer.buffers import BufferPool, BufferShare, PartBuffer
from export_worker.transfer.part_sizes import FIRST_PART_BYTES, MAX_OBJECT_BYTES, part_size
from export_worker.transfer.reader import PartReader, open_reader
from export_worker.transfer.resume import NotResumable, RecoveredUpload, recover
from export_worker.transfer.source import GuardedSource
from export_worker.transfer.transforms.base import Transform

PARTS_IN_FLIGHT = 4
"""Enough to fill a fast line, and little memory."""
MEMORY_BYTES = 2 * (PARTS_IN_FLIGHT + 1) * FIRST_PART_BYTES
"""80 MiB: two transfers at full speed, or more of them with fewer parts each."""

OnBegun = Callable[[ResumableUpload], Awaitable[None]]
OnPart = Callable[[], None]


def _untold() -> None:
    """For who does not want to know."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file as it stands in S3.

    Args:
        bytes: As stored, after the transform.
        checksum: Algorithm and base64, such as `CRC64NVME:…`, of the stored bytes.
        source_bytes: As they came, before the transform.
        source_checksum: The same, of the source's bytes.
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
        """`s3://bucket/key`, the key as it stands."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class _Transfer:
    """What one transfer works with.

    Args:
        noting: How to note an upload; None when it is of no use to anybody else.
        kept: What an earlier attempt has left.
        on_part: Whom to tell of each part that S3 has taken.
    """

    reader: PartReader
    target: Target
    total_bytes: int | None
    share: BufferShare
    noting: "_Noting | None"
    kept: RecoveredUpload | None
    on_part: OnPart

    async def part(self, number: int) -> PartBuffer:
        """Room for one part, taken first, then filled as far as the stream goes."""
        size_bytes = part_size(number, self.total_bytes)
        if self.total_bytes is not None:
            size_bytes = min(size_bytes, self.total_bytes - (number - 1) * size_bytes)
        buffer = await self.share.take(size_bytes)
        with memoryview(buffer.data) as room:
            filled = await self.reader.fill(room)
        buffer.cut(filled)
        return buffer


@dataclass(frozen=True, slots=True)
class _Noting:
    """What is known of the source before an upload is begun, and who wants to know."""

    on_begun: OnBegun
    validator: str
    total_bytes: int

    async def note(self, key: str, upload_id: str, token: str) -> None:
        await self.on_begun(ResumableUpload(key, upload_id, token, self.validator, self.total_bytes))


class TransferEngine:
    """Stores downloads and documents. One for each store; transfers may run side by side.

    Args:
        store: Its executor should have at least as many threads as parts are in flight over all transfers.
        parts_in_flight: Of one transfer.
        memory_bytes: In part buffers, over all transfers. Less than one part is no error: parts then go one by one.
        pool: Buffers that are shared with other engines, in place of `memory_bytes`.
    """

    def __init__(
        self,
        store: S3Store,
        *,
        parts_in_flight: int = PARTS_IN_FLIGHT,
        memory_bytes: int = MEMORY_BYTES,
        pool: BufferPool | None = None,
    ) -> None:
        self._store = store
        self._parts_in_flight = parts_in_flight
        self._pool = pool or BufferPool(memory_bytes)

    async def recover(self, target: Target, noted: ResumableUpload) -> RecoveredUpload | StoredFile | NotResumable:
        """What has become of an upload that was noted; one that has all its parts is completed here.

        Raises:
            ObjectExistsError: The key belongs to another export.
            StorageError: S3 refused, did not answer, or stored something else.
        """
        found = await recover(self._store, target, noted)
        if isinstance(found, RecoveredUpload) and found.is_whole:
            async with _open_until(found.upload, is_noted=True):
                found = await found.upload.complete(found.parts)
        # As it came, so it was stored: what is noted went through no transform.
        return _stored(target, found, found.bytes, found.checksum) if isinstance(found, Written) else found

    async def store_file(
        self,
        download: Download,
        target: Target,
        *,
        file_name: str,
        transform: Transform | None,
        progress: Callable[[int], None],
        on_part: OnPart = _untold,
        bandwidth: BandwidthLimit = UNLIMITED,
        on_begun: OnBegun | None = None,
        kept: RecoveredUpload | None = None,
    ) -> StoredFile:
        """Stream a download into an object. Returns when it stands complete; otherwise nothing stands there.

        After a failure or a cancellation no thread of it runs. A multipart upload of it is open only when it was
        noted, and nothing is wrong with its parts: the next attempt, here or elsewhere, may `recover` it.

        Args:
            download: Open, its body not read yet; behind `kept`, if that is given.
            target: Where to.
            file_name: As the platform calls it: says whether JSON is to be expected.
            transform: Fresh; None stores the bytes as they come.
            progress: Called on the loop with the number of source bytes that have just come.
            on_part: Called on the loop when S3 has taken a part, or a file that is a single one.
            pace: At which the source is read.
            on_begun: Notes an upload that can be resumed, before its first part is sent. Only a file of known length
                that is stored as it comes can be, from a source that tells its version.
            kept: What `recover` found.

        Raises:
            DownloadInvalidError: An error page came.
            DownloadInterruptedError: It is cut, or shorter or longer than announced.
            TransformError: The bytes do not fit the charset.
            ObjectExistsError: The key belongs to another export.
            StorageError: S3 refused, did not answer, or stored something else.
        """
        source = GuardedSource(download, file_name, progress, bandwidth=bandwidth, hashed=transform is not None)
        if kept is not None:
            source.go_on_behind(kept.bytes)
        # A transform changes the length, so the announced one plans nothing.
        total_bytes = download.total_bytes if transform is None else None
        if total_bytes is not None and total_bytes > MAX_OBJECT_BYTES:
            _refuse_size()
        noting = None
        if on_begun is not None and total_bytes is not None and (validator := _validator_of(download)) is not None:
            noting = _Noting(on_begun, validator, total_bytes)
        with self._pool.share() as share:
            async with open_reader(source, transform, self._store.executor) as reader:
                written = await self._move(_Transfer(reader, target, total_bytes, share, noting, kept, on_part))
        if transform is None:
            return _stored(target, written, written.bytes, written.checksum)
        return _stored(target, written, source.bytes_read, source.checksum)

    async def store_document(self, bucket: str, key: str, body: bytes, content_type: str, export_id: str) -> StoredFile:
        """Store a small document of ours, such as `manifest.json`, under the same rules as a file.

        Raises:
            ObjectExistsError: The key belongs to another export.
            StorageError: S3 refused, did not answer, or stored something else.
        """
        target = Target(bucket, key, export_id, content_type)
        written = await self._store.put(target, body)
        return _stored(target, written, len(body), written.checksum)

    async def remove_document(self, bucket: str, key: str, export_id: str) -> None:
        """Remove what stands under a key, if anything does.

        Raises:
            ObjectExistsError: The key belongs to another export.
            StorageError: S3 refused or did not answer.
        """
        await self._store.remove(Target(bucket, key, export_id, ""))

    async def abort_leftovers(self, bucket: str, prefix: str, export_id: str, keep: str | None = None) -> int:
        """See `S3Store.abort_leftovers`: for an export taken up after a worker's death, and for one that ends."""
        return await self._store.abort_leftovers(bucket, prefix, export_id, keep)

    async def _move(self, transfer: _Transfer) -> Written:
        kept = transfer.kept
        if kept is not None:
            first = await transfer.part(len(kept.parts) + 1)
            return await self._finish(transfer, kept.upload, first, is_noted=True)
        first = await transfer.part(1)
        if await transfer.reader.at_end():
            written = await self._store.put(transfer.target, first.data)
            transfer.on_part()
            return written
        upload = await self._begin(transfer)
        return await self._finish(transfer, upload, first, is_noted=transfer.noting is not None)

    async def _begin(self, transfer: _Transfer) -> MultipartUpload:
        noting = transfer.noting
        if noting is None:
            return await self._store.begin(transfer.target)
        token = token_hex(8)
        upload = await self._store.begin(replace(transfer.target, token=token))
        async with _open_until(upload, is_noted=False):
            await noting.note(transfer.target.key, upload.upload_id, token)
        return upload

    async def _finish(
        self, transfer: _Transfer, upload: MultipartUpload, first: PartBuffer, *, is_noted: bool
    ) -> Written:
        async with _open_until(upload, is_noted=is_noted):
            return await upload.complete(await self._send(transfer, upload, first))

    async def _send(self, transfer: _Transfer, upload: MultipartUpload, first: PartBuffer) -> list[SentPart]:
        """Read and send until the end. All threads have ended when this does, however it does."""
        sending = _Sending(upload, transfer, self._parts_in_flight)
        try:
            async with asyncio.TaskGroup() as tasks:
                await sending.start(tasks, first)
                while not await transfer.reader.at_end():
                    await sending.start(tasks, await transfer.part(sending.started + 1))
        except BaseExceptionGroup as group:
            raise _telling(group) from None
        return sending.parts()


class _Sending:
    """The parts of one upload that are on their way or there."""

    def __init__(self, upload: MultipartUpload, transfer: _Transfer, parts_in_flight: int) -> None:
        self._upload = upload
        self._share = transfer.share
        self._on_part = transfer.on_part
        self._slots = asyncio.Semaphore(parts_in_flight)
        self._before = () if transfer.kept is None else transfer.kept.parts
        self._tasks: list[asyncio.Task[SentPart]] = []
        self._bytes = sum(part.bytes for part in self._before)

    @property
    def started(self) -> int:
        return len(self._before) + len(self._tasks)

    async def start(self, tasks: asyncio.TaskGroup, buffer: PartBuffer) -> None:
        """Send the next part, as soon as few enough are in flight."""
        self._bytes += len(buffer.data)
        if self._bytes > MAX_OBJECT_BYTES:
            _refuse_size()
        await self._slots.acquire()
        task = tasks.create_task(self._upload.send(self.started + 1, buffer.data))
        # A callback, not a `finally` inside: a task that is cancelled before it begins runs none of its body.
        task.add_done_callback(lambda ended: self._ended(ended, buffer))
        self._tasks.append(task)

    def parts(self) -> list[SentPart]:
        """All parts in order, when every task has ended well."""
        return [*self._before, *(task.result() for task in self._tasks)]

    def _ended(self, task: asyncio.Task[SentPart], buffer: PartBuffer) -> None:
        if not task.cancelled() and task.exception() is None:
            self._on_part()
        self._share.give_back(buffer)
        self._slots.release()


@asynccontextmanager
async def _open_until(upload: MultipartUpload, *, is_noted: bool) -> AsyncIterator[None]:
    """Keep an upload open until the block has ended well, or until somebody goes on with it who knows of it."""
    try:
        yield
    except BaseException as error:
        if not is_noted or _spoils(error):
            await _abandon(upload, error)
        raise


def _spoils(error: BaseException) -> bool:
    """Whether nobody should build upon an upload that ended so."""
    if isinstance(error, IntegrityError | DownloadInvalidError):
        return True
    return isinstance(error, StepError) and not error.retryable


def _validator_of(download: Download) -> str | None:
    return download.validator if isinstance(download, Versioned) else None


async def _abandon(upload: MultipartUpload, error: BaseException) -> None:
    """Abort the upload; when even that fails, the first error is still the one to tell."""
    try:
        await upload.abort()
    except StorageError as failure:
        error.add_note(f"its multipart upload may still be open: {failure}")


def _telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that says most: one of ours, if there is one."""
    return next((error for error in group.exceptions if isinstance(error, StepError)), group.exceptions[0])


def _refuse_size() -> NoReturn:
    raise StorageRefusedError(f"the file has more than {MAX_OBJECT_BYTES} bytes, which is all that one S3 object takes")


def _stored(target: Target, written: Written, source_bytes: int, source_checksum: Checksum) -> StoredFile:
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

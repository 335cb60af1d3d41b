"""Notes in the record which parts of an upload were sent, so that another worker can resume it on any store.

Some stores (Ceph, SeaweedFS, rclone, Swift) list the parts of an upload without their checksums.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256

from export_worker.lifecycle.observations import ResumableUpload, SentParts
from export_worker.platforms.base import Download, Versioned
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.s3.checksums import Checksum
from export_worker.s3.multipart import MultipartUpload, SentPart, checksum_with
from export_worker.s3.objects import unquoted
from export_worker.transfer.callbacks import TransferCallbacks
from export_worker.transfer.part_sizes import RESUMED_PARTS_MIN

FIRST_WAIT_S = 0.05
LAST_WAIT_S = 2.0
"""Waits between two notes. Each one is twice as long as the one before, up to the second of them. The parts that were
sent in between are sent again after the death of a worker, and each note costs a call of Redis."""


class UploadNotes:
    """The parts of one upload that the store has confirmed, from the first one up to the first gap.

    Args:
        resumable: The upload as the record has it.
        upload: The same upload.
        parts: Those of its parts that an earlier attempt has sent.
        callbacks: Save the note.
    """

    def __init__(
        self,
        resumable: ResumableUpload,
        upload: MultipartUpload,
        callbacks: TransferCallbacks,
        parts: Iterable[SentPart] = (),
    ) -> None:
        self._resumable = resumable
        self._upload = upload
        self._callbacks = callbacks
        self._count = self._noted_count = self._bytes = 0
        self._checksum: Checksum | None = None
        self._etags = sha256()
        self._behind_gap: dict[int, SentPart] = {}
        self._has_more = asyncio.Event()
        for part in parts:
            self.add(part)
        self._noted_count = self._count

    def add(self, part: SentPart) -> None:
        """Adds a part that was sent. Parts may be added in any order."""
        self._behind_gap[part.number] = part
        while following := self._behind_gap.pop(self._count + 1, None):
            self._count += 1
            self._bytes += following.bytes
            self._checksum = checksum_with(self._checksum, following)
            self._etags.update(_digested(following.etag))
            self._has_more.set()

    @asynccontextmanager
    async def saving(self) -> AsyncIterator[None]:
        """Saves the note again and again while the block runs, and once more after it, unless it is cancelled."""
        saving = asyncio.create_task(self._save_repeatedly())
        try:
            yield
        except Exception:
            await cancel_and_wait(saving)
            await self._save()
            raise
        else:
            await cancel_and_wait(saving)
            if not saving.cancelled():
                saving.result()  # it ends by itself only with an error
            await self._save()
        finally:
            await cancel_and_wait(saving)

    async def _save_repeatedly(self) -> None:
        wait_s = FIRST_WAIT_S
        while await self._has_more.wait():
            self._has_more.clear()
            await self._save()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LAST_WAIT_S)

    async def _save(self) -> None:
        if self._checksum is None or self._count < RESUMED_PARTS_MIN or self._count == self._noted_count:
            return
        etags, full_object = self._etags.hexdigest(), self._upload.has_full_checksum
        sent = SentParts(self._count, self._bytes, str(self._checksum), etags, full_object)
        await self._callbacks.on_parts_sent(replace(self._resumable, sent=sent))
        self._noted_count = sent.count


@dataclass(frozen=True, slots=True)
class UploadRecorder:
    """Saves an upload in the export's record, so that the next attempt can resume it."""

    callbacks: TransferCallbacks
    validator: str
    total_bytes: int

    async def save(self, key: str, upload: MultipartUpload, token: str) -> UploadNotes:
        """Saves a new upload. Returns the notes of its parts."""
        resumable = ResumableUpload(key, upload.upload_id, token, self.validator, self.total_bytes)
        await self.callbacks.on_upload_changed(resumable, None)
        return UploadNotes(resumable, upload, self.callbacks)


def recorder_of(download: Download, total_bytes: int | None, callbacks: TransferCallbacks) -> UploadRecorder | None:
    """Returns a recorder if the upload of this download can be resumed."""
    validator = download.validator if isinstance(download, Versioned) else None
    if total_bytes is None or validator is None:
        return None
    return UploadRecorder(callbacks, validator, total_bytes)


def digest_of(etags: Iterable[str]) -> str:
    """Returns the digest of the ETags of consecutive parts, as a note has it."""
    return sha256(b"".join(map(_digested, etags))).hexdigest()


def _digested(etag: str) -> bytes:
    """A store may list an ETag without the quotes with which it has returned it."""
    return unquoted(etag).encode() + b"\n"

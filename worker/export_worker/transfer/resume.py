"""Going on with an upload that an earlier attempt has left: S3's list of parts says how far it came.

Only parts of our own plan are taken over, from the first one without a gap. What stands behind a gap is sent again
under its number. Anything odd, and the upload is dropped: beginning anew costs time, a wrong part would cost the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from export_worker.errors import StorageRefusedError
from export_worker.lifecycle.observations import ResumableUpload
from export_worker.platforms.base import Download, ResumePoint, Versioned
from export_worker.s3.checksums import Checksum
from export_worker.s3.multipart import MultipartUpload, SentPart, whole_checksum
from export_worker.s3.objects import Target, Written
from export_worker.s3.store import ListedPart, S3Store
from export_worker.transfer.part_sizes import part_size

PARTS_MIN = 2
"""What a single part saves is not worth a question to the source that it may not understand."""


@dataclass(frozen=True, slots=True)
class RecoveredUpload:
    """An open upload, and the parts of it that can be built upon."""

    upload: MultipartUpload
    target: Target
    parts: tuple[SentPart, ...]
    noted: ResumableUpload

    @property
    def bytes(self) -> int:
        """Of the file, from its beginning."""
        return sum(part.bytes for part in self.parts)

    @property
    def checksum(self) -> Checksum:
        """Of these bytes."""
        return whole_checksum(self.parts)

    @property
    def is_whole(self) -> bool:
        """Nothing is missing but its completion."""
        return self.bytes == self.noted.total_bytes

    @property
    def mark(self) -> ResumePoint:
        """Where the source is to go on."""
        return ResumePoint(self.bytes, self.noted.validator, self.noted.total_bytes)

    def __str__(self) -> str:
        return f"{self.target.key} at {self.bytes} of {self.noted.total_bytes} bytes, after part {len(self.parts)}"


@dataclass(frozen=True, slots=True)
class NotResumable:
    """Nothing to go on with."""

    reason: str


async def recover(store: S3Store, target: Target, noted: ResumableUpload) -> RecoveredUpload | Written | NotResumable:
    """What has become of an upload: open and fit to go on with, complete already, or of no use and aborted.

    Raises:
        ObjectExistsError: The key belongs to another export.
        StorageError: S3 refused the rest, or did not answer.
    """
    target = replace(target, token=noted.token)
    upload = store.upload(target, noted.upload_id)
    if noted.key != target.key:
        await store.upload(Target(target.bucket, noted.key, target.export_id, ""), noted.upload_id).abort()
        return NotResumable("it was of another file")
    try:
        listed = await store.parts(target, noted.upload_id)
    except StorageRefusedError as error:
        # A right that nothing else needs: without it transfers work, and begin anew.
        await upload.abort()
        return NotResumable(f"its parts cannot be listed ({error})")
    if listed is None:
        return await _completed(store, target, noted)
    parts = fit_parts(listed, noted.total_bytes)
    if isinstance(parts, NotResumable):
        await upload.abort()
        return parts
    return RecoveredUpload(
        store.upload(target, noted.upload_id, parts[0].checksum.algorithm), target, tuple(parts), noted
    )


async def _completed(store: S3Store, target: Target, noted: ResumableUpload) -> Written | NotResumable:
    """An upload that is gone has been completed by a worker that could not say so any more, or was aborted."""
    head = await store.head_object(target)
    if head is None or (head.token, head.bytes) != (noted.token, noted.total_bytes):
        return NotResumable("it is not open any more")
    checksum = next(iter(head.checksums.values()), None)
    if checksum is None:
        return NotResumable("it is complete, but the store does not tell its checksum")
    return Written(head.etag, head.bytes, checksum, adopted=True)


def fit_parts(listed: Sequence[ListedPart], total_bytes: int) -> list[SentPart] | NotResumable:
    """The parts from the first one on that are as the plan has them; all that are listed must be."""
    size_bytes = part_size(1, total_bytes)
    sent: list[SentPart] = []
    for part in sorted(listed, key=lambda item: item.number):
        planned_bytes = min(size_bytes, total_bytes - (part.number - 1) * size_bytes)
        if part.bytes != planned_bytes:
            return NotResumable(
                f"its part {part.number} has {part.bytes} bytes where {max(0, planned_bytes)} were planned"
            )
        if part.number == len(sent) + 1:
            if part.checksum is None or (sent and part.checksum.algorithm != sent[0].checksum.algorithm):
                return NotResumable("the store does not list the checksums of its parts")
            sent.append(SentPart(part.number, part.bytes, part.etag, part.checksum))
    if len(sent) < PARTS_MIN:
        return NotResumable(f"it has {len(sent)} part(s) to begin with")
    return sent


def restart_reason(download: Download, noted: ResumableUpload) -> NotResumable | None:
    """Why a source that was asked to go on brings the whole file; None when it does go on."""
    if not isinstance(download, Versioned):
        return NotResumable("the platform cannot go on in the middle of a file")
    if download.offset_bytes:
        return None
    if (download.validator, download.total_bytes) == (noted.validator, noted.total_bytes):
        return NotResumable("the server does not go on in the middle of a file")
    return NotResumable("the file has changed at its source")

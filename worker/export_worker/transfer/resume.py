"""Resumes an upload that an earlier attempt has left open. S3's list of parts shows which bytes it has.

Only parts of the expected sizes are reused, from the first one up to the first gap. Parts behind a gap are sent again
with the same numbers. If anything else is unexpected, the upload is aborted: a restart costs time, but a wrong part
would spoil the file.

The checksum of a part is the one that the store lists. If it lists none, parts are reused as far as their ETags are
those that the record notes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from export_worker.errors import StorageRefusedError
from export_worker.lifecycle.observations import ResumableUpload, SentParts
from export_worker.platforms.base import Download, ResumePoint, Versioned
from export_worker.s3.checksums import Checksum
from export_worker.s3.multipart import MultipartUpload, SentPart, whole_checksum
from export_worker.s3.objects import Target, Written
from export_worker.s3.store import ListedPart, S3Store
from export_worker.transfer.part_sizes import RESUMED_PARTS_MIN, part_size
from export_worker.transfer.upload_notes import digest_of


@dataclass(frozen=True, slots=True)
class RecoveredUpload:
    """An open upload, and those of its parts that can be reused.

    Args:
        resumable: The upload as the record has it.
    """

    upload: MultipartUpload
    target: Target
    parts: tuple[SentPart, ...]
    resumable: ResumableUpload

    @property
    def bytes(self) -> int:
        """Number of bytes in the parts, from the beginning of the file."""
        return sum(part.bytes for part in self.parts)

    @property
    def checksum(self) -> Checksum:
        """Checksum of these bytes."""
        return whole_checksum(self.parts)

    @property
    def is_whole(self) -> bool:
        """Whether all parts are there, so that only the completion is missing."""
        return self.bytes == self.resumable.total_bytes

    @property
    def resume_point(self) -> ResumePoint:
        """The offset in the source from which to resume, and the version of the source."""
        return ResumePoint(self.bytes, self.resumable.validator, self.resumable.total_bytes)

    def __str__(self) -> str:
        return f"{self.target.key} at {self.bytes} of {self.resumable.total_bytes} bytes, after part {len(self.parts)}"


@dataclass(frozen=True, slots=True)
class NotResumable:
    """The file must be stored from its beginning."""

    reason: str


async def recover(
    store: S3Store, target: Target, resumable: ResumableUpload
) -> RecoveredUpload | Written | NotResumable:
    """Returns the state of an earlier upload: open with reusable parts, or complete. Aborts an upload of no use.

    Raises:
        ObjectExistsError: The key belongs to another export.
        StorageError: S3 refused a call, or did not answer.
    """
    target = replace(target, token=resumable.token)
    upload = store.upload(target, resumable.upload_id)
    if resumable.key != target.key:
        await store.upload(Target(target.bucket, resumable.key, target.export_id, ""), resumable.upload_id).abort()
        return NotResumable("it belongs to another file")
    try:
        listed = await store.parts(target, resumable.upload_id)
    except StorageRefusedError as error:
        # Only a resume needs the permission to list parts. Without it, transfers work, but restart from the beginning.
        await upload.abort()
        return NotResumable(f"its parts cannot be listed ({error})")
    if listed is None:
        return await _find_completed(store, target, resumable)
    parts = fit_parts(listed, resumable.total_bytes, store.part_bytes, noted=resumable.sent)
    if isinstance(parts, NotResumable):
        await upload.abort()
        return parts
    # A store that lists checksums keeps one of the whole object as well.
    has_full_checksum = resumable.sent is None or resumable.sent.full_object or parts[0].checksum is not None
    upload = store.upload(
        target, resumable.upload_id, whole_checksum(parts).algorithm, has_full_checksum=has_full_checksum
    )
    return RecoveredUpload(upload, target, tuple(parts), resumable)


async def _find_completed(store: S3Store, target: Target, resumable: ResumableUpload) -> Written | NotResumable:
    """Looks for the object of an upload that is no longer open: the upload was completed, or it was aborted."""
    head = await store.head_object(target)
    if head is None or (head.token, head.bytes) != (resumable.token, resumable.total_bytes):
        return NotResumable("it is no longer open")
    checksum = _noted_checksum(resumable)
    if checksum is None:
        return NotResumable("it is complete, but the record does not note all of its parts")
    if any(_contradict(stored, checksum) for stored in head.checksums.values()):
        return NotResumable("the store has made other bytes of it")
    return Written(head.etag, head.bytes, checksum, adopted=True)


def _contradict(stored: Checksum, noted: Checksum) -> bool:
    return stored.algorithm == noted.algorithm and stored != noted


def _noted_checksum(resumable: ResumableUpload) -> Checksum | None:
    """Returns the noted checksum, if all parts are noted."""
    sent = resumable.sent
    return None if sent is None or sent.bytes != resumable.total_bytes else Checksum.read(sent.checksum)


def fit_parts(
    listed: Sequence[ListedPart],
    total_bytes: int,
    fixed_bytes: int | None = None,
    *,
    noted: SentParts | None = None,
) -> list[SentPart] | NotResumable:
    """Returns the parts up to the first gap. Every listed part must have the size that `part_size` plans.

    Args:
        listed: The parts, as the store lists them.
        total_bytes: Length of the file.
        fixed_bytes: The size of all parts, if the store requires one.
        noted: The parts, as the record notes them. Needed if the store lists no checksums. If it does, the checksums
            must fit the note.
    """
    size_bytes = part_size(1, total_bytes, fixed_bytes)
    sent: list[SentPart] = []
    for part in sorted(listed, key=lambda item: item.number):
        planned_bytes = min(size_bytes, total_bytes - (part.number - 1) * size_bytes)
        if part.bytes != planned_bytes:
            return NotResumable(
                f"its part {part.number} has {part.bytes} bytes where {max(0, planned_bytes)} were planned"
            )
        if part.number == len(sent) + 1:
            sent.append(SentPart(part.number, part.bytes, part.etag, part.checksum))
    fitting = _listed_parts(sent, noted) if _have_one_algorithm(sent) else _noted_parts(sent, noted)
    if not isinstance(fitting, NotResumable) and len(fitting) < RESUMED_PARTS_MIN:
        return NotResumable(f"it has only {len(fitting)} part(s) before the first gap")
    return fitting


def _have_one_algorithm(parts: Sequence[SentPart]) -> bool:
    """Whether the store has listed the checksum of each part, by one algorithm."""
    algorithms = {part.checksum.algorithm if part.checksum else None for part in parts}
    return len(algorithms) <= 1 and None not in algorithms


def _listed_parts(parts: list[SentPart], noted: SentParts | None) -> list[SentPart] | NotResumable:
    """Returns the parts, whose checksums are listed. Those that are noted must be the same as when they were sent."""
    checksum = None if noted is None else Checksum.read(noted.checksum)
    if noted is None or checksum is None or len(parts) < noted.count:
        return parts
    if _contradict(whole_checksum(parts[: noted.count]), checksum):
        return NotResumable("the store does not have the parts that were sent")
    return parts


def _noted_parts(parts: Sequence[SentPart], noted: SentParts | None) -> list[SentPart] | NotResumable:
    """Returns the parts that are noted. Their ETags must be the noted ones."""
    checksum = None if noted is None else Checksum.read(noted.checksum)
    if noted is None or checksum is None:
        return NotResumable("the store does not list the checksums of its parts, and none are noted")
    found = [replace(part, checksum=None) for part in parts[: noted.count]]
    same_bytes = sum(part.bytes for part in found) == noted.bytes
    if len(found) < noted.count or not same_bytes or digest_of(part.etag for part in found) != noted.etags:
        return NotResumable("the store does not have the parts that were sent")
    return [*found[:-1], replace(found[-1], checksum_so_far=checksum)]


def restart_reason(download: Download, resumable: ResumableUpload) -> NotResumable | None:
    """Returns why a source sends the whole file although a resume was requested; None if the source resumes."""
    if not isinstance(download, Versioned):
        return NotResumable("the platform cannot resume in the middle of a file")
    if download.offset_bytes:
        return None
    if (download.validator, download.total_bytes) == (resumable.validator, resumable.total_bytes):
        return NotResumable("the server does not resume in the middle of a file")
    return NotResumable("the file has changed at its source")

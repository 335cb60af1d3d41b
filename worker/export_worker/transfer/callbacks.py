"""What a transfer calls outside of this package: opening files, and saving what was stored."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from export_worker.contract.status import ManifestObject
from export_worker.lifecycle.observations import RemoteFile, ResumableUpload
from export_worker.platforms.base import Download, ResumePoint
from export_worker.transfer.progress import TransferProgress


@dataclass(frozen=True, slots=True)
class TransferCallbacks:
    """The callbacks of one transfer. An exception from any of them ends the transfer.

    Args:
        open_file: Opens one file at its beginning, or at the point from which it is resumed.
        on_progress: Called once, before the first file, with the object that counts the progress.
        on_files_stored: Called with the next files that are stored in S3, in the order of the export.
        on_upload_changed: Called when the open upload changes. The first argument is the upload that the next attempt
            resumes if this attempt does not complete it; None for no upload. The second is a note for the timeline, or
            None.
        on_parts_sent: Called with the open upload when the parts that the store has confirmed are to be saved. Without
            this note, the transfer still works, so a failure to save it must not raise.
    """

    open_file: Callable[[RemoteFile, ResumePoint | None], AbstractAsyncContextManager[Download]]
    on_progress: Callable[[TransferProgress], None]
    on_files_stored: Callable[[Sequence[ManifestObject]], Awaitable[None]]
    on_upload_changed: Callable[[ResumableUpload | None, str | None], Awaitable[None]]
    on_parts_sent: Callable[[ResumableUpload], Awaitable[None]]

"""What a transfer needs beside its download, for tests that move bytes without a worker."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from export_worker.contract.status import ManifestObject
from export_worker.lifecycle.observations import RemoteFile, ResumableUpload
from export_worker.platforms.base import Download, ResumePoint
from export_worker.transfer.callbacks import TransferCallbacks
from export_worker.transfer.progress import TransferProgress


def progress_of_one_file() -> TransferProgress:
    """Returns the progress of an export with one file, of which nothing is stored yet."""
    return TransferProgress(files_total=1, files_done=0, bytes_done=0)


def idle_callbacks() -> TransferCallbacks:
    """Returns callbacks that save nothing and open no file."""
    return TransferCallbacks(_open_file, _on_progress, _on_files_stored, _on_upload_changed, _on_parts_sent)


def _open_file(file: RemoteFile, resume_point: ResumePoint | None) -> AbstractAsyncContextManager[Download]:
    raise NotImplementedError("the test opens the download itself")


def _on_progress(progress: TransferProgress) -> None:
    """Does nothing."""


async def _on_files_stored(stored: Sequence[ManifestObject]) -> None:
    """Does nothing."""


async def _on_upload_changed(upload: ResumableUpload | None, note: str | None) -> None:
    """Does nothing."""


async def _on_parts_sent(upload: ResumableUpload) -> None:
    """Does nothing."""

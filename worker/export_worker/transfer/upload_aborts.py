"""Decides whether an upload that has failed stays open for the next attempt."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from export_worker.errors import DownloadInvalidError, IntegrityError, StepError, StorageError
from export_worker.s3.multipart import MultipartUpload


@asynccontextmanager
async def aborted_on_error(upload: MultipartUpload, *, is_recorded: bool) -> AsyncIterator[None]:
    """Aborts an upload if the block fails, unless it is in the record and can be resumed."""
    try:
        yield
    except BaseException as error:
        if not is_recorded or _is_spoiled_by(error):
            await _abort(upload, error)
        raise


def _is_spoiled_by(error: BaseException) -> bool:
    """Whether an upload that ended with this error must not be resumed."""
    if isinstance(error, IntegrityError | DownloadInvalidError):
        return True
    return isinstance(error, StepError) and not error.retryable


async def _abort(upload: MultipartUpload, error: BaseException) -> None:
    """Aborts the upload. If that fails, the first error gets a note and is still the one that is raised."""
    try:
        await upload.abort()
    except StorageError as failure:
        error.add_note(f"its multipart upload may still be open: {failure}")

"""Copies the stored files of another export within S3, several at once."""

import asyncio
from collections.abc import Sequence
from itertools import repeat

from export_worker.contract.status import ManifestObject
from export_worker.errors import ResultMissingError
from export_worker.lifecycle.export import Transferring
from export_worker.s3.checksums import Checksum
from export_worker.s3.copying import StoredSource
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.transfer.callbacks import TransferCallbacks
from export_worker.transfer.progress import TransferProgress

COPIES_AT_ONCE = 8
"""Enough to hide the time of a round trip, and few beside the transfers that share the threads."""


async def copy_file(store: S3Store, item: ManifestObject, target: Target) -> ManifestObject:
    """Copies one file. Returns how the manifest of the copy lists it.

    Raises:
        ResultMissingError: The file was removed or replaced, or nothing proves that a copy of it is complete.
        StepError: As `S3Store.copy` says.
    """
    checksum = Checksum.read(item.checksum)
    if checksum is None:
        raise ResultMissingError(f"{item.uri}, which is copied, has no checksum that this worker knows")
    source = StoredSource(item.bucket, item.key, item.etag, item.bytes, checksum)
    written = await store.copy(target, source)
    copied = {
        "uri": f"s3://{target.bucket}/{target.key}",
        "bucket": target.bucket,
        "key": target.key,
        "etag": written.etag,
        "checksum": str(written.checksum),
    }
    return item.model_copy(update=copied)


async def copy_all(
    store: S3Store,
    files: Sequence[ManifestObject],
    targets: Sequence[Target],
    state: Transferring,
    callbacks: TransferCallbacks,
) -> None:
    """Copies every file that is not copied yet, and saves what was copied.

    Args:
        files: The files of the other export, as its manifest lists them.
        targets: The key of each copy, in the same order.
        state: Has the files that are copied already.

    Raises:
        StepError: As `copy_file` says. All files before that one are saved.
    """
    done_bytes = sum(item.source_bytes for item in state.stored)
    progress = TransferProgress(len(files), len(state.stored), done_bytes)
    callbacks.on_progress(progress)
    for first in range(len(state.stored), len(files), COPIES_AT_ONCE):
        several = slice(first, first + COPIES_AT_ONCE)
        copies = map(copy_file, repeat(store), files[several], targets[several])
        results = await asyncio.gather(*copies, return_exceptions=True)
        copied: list[ManifestObject] = []
        errors = [result for result in results if isinstance(result, BaseException)]
        for result in results:
            if isinstance(result, BaseException):
                break
            progress.add_small_file(result.source_bytes)
            copied.append(result)
        if copied:
            await callbacks.on_files_stored(copied)
        if errors:
            raise errors[0]

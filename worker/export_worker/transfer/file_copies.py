"""Copies the stored files of another export within S3, several at once."""

import asyncio
from collections.abc import Sequence

from export_worker.contract.status import ManifestObject
from export_worker.errors import ResultMissingError
from export_worker.s3.checksums import Checksum
from export_worker.s3.copying import StoredSource
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store

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


async def copy_several(
    store: S3Store, items: Sequence[ManifestObject], targets: Sequence[Target]
) -> list[ManifestObject]:
    """Copies some files at the same time. Raises the first error after all have ended."""
    copies = [copy_file(store, item, target) for item, target in zip(items, targets, strict=True)]
    results = await asyncio.gather(*copies, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, ManifestObject)]

"""Copies stored objects within S3, by the same rules as other writes: no byte passes through the worker.

An object of up to 5 GiB is copied with one call if the key of the copy contains the id of the export, so that no other
export writes it. In any other case it is copied as the parts of an upload, which S3 completes only if the key is free.
A copy is of exactly the object that the manifest lists (`x-amz-copy-source-if-match`), and its size and checksum are
compared.
"""

from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import ClientError

from export_worker.errors import ResultMissingError
from export_worker.s3.calls import HEAD, S3Calls, storage_errors
from export_worker.s3.checksum_modes import UploadedParts
from export_worker.s3.checksums import Checksum
from export_worker.s3.create_only import COPY, CreateOnlyWrite
from export_worker.s3.errors import status_of
from export_worker.s3.multipart import MultipartUpload, SentPart
from export_worker.s3.objects import Target, Written

COPY_MAX_BYTES = 5 * 2**30
"""The largest object that one call copies (Amazon S3 API Reference, CopyObject)."""
COPIED_PART_BYTES = 2**30
"""The size of the parts of a larger one: an object of S3's maximum has fewer than 10,000 of them."""


@dataclass(frozen=True, slots=True)
class StoredSource:
    """An object that is copied, as a manifest describes it.

    Args:
        checksum: Of its bytes.
    """

    bucket: str
    key: str
    etag: str
    bytes: int
    checksum: Checksum

    @property
    def address(self) -> dict[str, Any]:
        """The arguments of a call that reads exactly this object."""
        match = {"IfMatch": f'"{self.etag}"'} if self.etag else {}
        return {"Bucket": self.bucket, "Key": self.key} | match

    @property
    def copy_arguments(self) -> dict[str, Any]:
        """The arguments of a call that copies exactly this object."""
        match = {"CopySourceIfMatch": f'"{self.etag}"'} if self.etag else {}
        return {"CopySource": {"Bucket": self.bucket, "Key": self.key}} | match


async def content_type_of(calls: S3Calls, source: StoredSource) -> str:
    """Returns the content type of an object that is about to be copied.

    Raises:
        ResultMissingError: The object does not exist, or is another one.
        StorageError: S3 refused the call or did not answer.
    """
    with storage_errors(HEAD, source.bucket):
        try:
            response = await calls.call(HEAD, source.address)
        except ClientError as error:
            if status_of(error) not in {404, 412}:
                raise
            raise _missing(source) from None
    if response["ContentLength"] != source.bytes:
        raise _missing(source)
    return str(response.get("ContentType") or "application/octet-stream")


async def copy_whole(calls: S3Calls, target: Target, source: StoredSource) -> Written:
    """Copies an object with one call. Raises what `S3Store.copy` raises."""
    arguments = target.creation_arguments | source.copy_arguments | {"MetadataDirective": "REPLACE"}

    async def write(_: dict[str, str]) -> dict[str, Any]:
        try:
            response = await calls.call(COPY, arguments)
        except ClientError as error:
            if status_of(error) not in {404, 412}:
                raise
            await content_type_of(calls, source)
            raise
        copied: dict[str, Any] = response.get("CopyObjectResult", {})
        return copied

    # A store may ignore a condition on the key in this call.
    create_only = CreateOnlyWrite(calls, target, source.bytes, conditionally=False)
    return await create_only.run(COPY, write, UploadedParts(source.checksum))


async def copy_parts(upload: MultipartUpload, source: StoredSource) -> list[SentPart]:
    """Copies an object as the parts of an upload. The caller completes or aborts the upload.

    Raises:
        StorageError: S3 refused a call or did not answer.
    """
    parts: list[SentPart] = []
    for number, first in enumerate(range(0, source.bytes, COPIED_PART_BYTES), 1):
        size_bytes = min(COPIED_PART_BYTES, source.bytes - first)
        part = await upload.copy(number, size_bytes, source.copy_arguments, first)
        is_last = first + size_bytes == source.bytes
        parts.append(replace(part, checksum_so_far=source.checksum) if is_last else part)
    return parts


def _missing(source: StoredSource) -> ResultMissingError:
    return ResultMissingError(f"s3://{source.bucket}/{source.key}, which is copied, was removed or replaced")

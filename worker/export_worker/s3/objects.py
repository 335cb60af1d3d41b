"""Existing objects: whose they are, and whether an export may adopt or replace them."""

from dataclasses import dataclass
from typing import Any, Self

from botocore.exceptions import ClientError

from export_worker.errors import ObjectExistsError
from export_worker.s3.calls import DELETE, HEAD, S3Calls, storage_errors
from export_worker.s3.checksum_modes import checksums_in
from export_worker.s3.checksums import Algorithm, Checksum
from export_worker.s3.errors import status_of

OWNER_FIELD = "export-id"
"""Metadata field of every object: shows whether an earlier attempt of the same export or another export wrote it."""
UPLOAD_FIELD = "upload"
"""Metadata field of objects from multipart uploads: shows which upload created the object."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an object is written, and its metadata.

    Args:
        token: Random name of the multipart upload that creates the object, if one does.
        keeps_existing: An object of the same owner is adopted, whatever its bytes are.
    """

    bucket: str
    key: str
    export_id: str
    content_type: str
    token: str | None = None
    keeps_existing: bool = False

    @property
    def address(self) -> dict[str, str]:
        """The arguments that every call about the object has."""
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def creation_arguments(self) -> dict[str, Any]:
        """The arguments of a call that creates the object."""
        token = {UPLOAD_FIELD: self.token} if self.token else {}
        metadata = {OWNER_FIELD: self.export_id} | token
        return self.address | {"ContentType": self.content_type, "Metadata": metadata}


@dataclass(frozen=True, slots=True)
class Written:
    """An object that is complete under its key.

    Args:
        adopted: An earlier attempt of the same export wrote it.
    """

    etag: str
    bytes: int
    checksum: Checksum
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """An object's description, as `head_object` returns it.

    Args:
        export_id: The export that wrote the object; None if its metadata does not name one.
        checksums: The checksums of the whole object that the store returns.
        token: Random name of the multipart upload that created the object, if one did.
    """

    export_id: str | None
    etag: str
    bytes: int
    checksums: dict[Algorithm, Checksum]
    token: str | None

    @classmethod
    def of(cls, response: dict[str, Any]) -> Self:
        """Reads the response to a head_object call."""
        metadata = metadata_in(response)
        return cls(
            export_id=metadata.get(OWNER_FIELD),
            etag=unquoted(response["ETag"]),
            bytes=response["ContentLength"],
            checksums=checksums_in(response),
            token=metadata.get(UPLOAD_FIELD),
        )


async def head_object(calls: S3Calls, target: Target) -> ObjectHead | None:
    """Returns the description of the object under a key, or None if the key is free.

    Raises:
        ObjectExistsError: The object belongs to another export.
        StorageError: S3 refused the call or did not answer.
    """
    with storage_errors(HEAD, target.bucket):
        try:
            response = await calls.call(HEAD, target.address | {"ChecksumMode": "ENABLED"})
        except ClientError as error:
            if status_of(error) == 404:
                return None
            raise
    head = ObjectHead.of(response)
    if head.export_id != target.export_id:
        raise ObjectExistsError(
            f"s3://{target.bucket}/{target.key} belongs to another export and is not overwritten; "
            "put {export_id} into s3.key_template, so that no two exports share a key"
        )
    return head


async def delete_own_object(calls: S3Calls, target: Target, etag: str) -> bool:
    """Deletes an object of the same export, if it is still the one that the caller has examined.

    A request may arrive late, after another worker has resumed the export and has written the object again. On a store
    without conditional deletes, such a request deletes the new object.

    Args:
        etag: The object's ETag, as the caller has found it.

    Returns:
        False if another object has the key now.
    """
    with storage_errors(DELETE, target.bucket):
        if await calls.delete(target.address, etag):
            return True
    head = await head_object(calls, target)
    if head is None or head.etag != etag:
        return head is None
    # It is the same object after all, so the store compares ETags in another way.
    with storage_errors(DELETE, target.bucket):
        await calls.delete_unconditionally(target.address)
    return True


def metadata_in(response: dict[str, Any]) -> dict[str, str]:
    """Returns an object's metadata, with its names in lower case. Some stores, such as rclone, return `Export-Id`."""
    return {name.lower(): value for name, value in response.get("Metadata", {}).items()}


def unquoted(etag: str) -> str:
    """Returns an ETag without the quotes that HTTP puts around it."""
    return etag.strip('"')

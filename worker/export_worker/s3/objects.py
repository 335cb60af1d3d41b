"""What stands under a key, and whether it may be adopted, replaced or must be left alone."""

from dataclasses import dataclass
from typing import Any, Self

from botocore.exceptions import ClientError

from export_worker.errors import ObjectExistsError
from export_worker.s3.calls import DELETE, HEAD, S3Calls, translated
from export_worker.s3.checksum_modes import checksums_in
from export_worker.s3.checksums import Algorithm, Checksum
from export_worker.s3.errors import status_of

OWNER_FIELD = "export-id"
"""The one metadata field of every object: tells an earlier attempt of ours from another export."""
UPLOAD_FIELD = "upload"
"""Of what came by a multipart upload: tells which one."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an object goes and what its head says."""

    bucket: str
    key: str
    export_id: str
    content_type: str
    content_encoding: str | None = None
    token: str | None = None

    @property
    def address(self) -> dict[str, str]:
        """The fields that every call has."""
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def head(self) -> dict[str, Any]:
        """The fields with which an object is created."""
        encoding = {"ContentEncoding": self.content_encoding} if self.content_encoding else {}
        token = {UPLOAD_FIELD: self.token} if self.token else {}
        metadata = {OWNER_FIELD: self.export_id} | token
        return self.address | encoding | {"ContentType": self.content_type, "Metadata": metadata}


@dataclass(frozen=True, slots=True)
class Written:
    """An object that stands complete under its key.

    Args:
        adopted: An earlier attempt of the same export had written it.
    """

    etag: str
    bytes: int
    checksum: Checksum
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """An object as the store describes it.

    Args:
        token: Of the multipart upload that it came by, if it did.
        checksums: Of the whole object, those that the store tells.
    """

    export_id: str | None
    etag: str
    bytes: int
    checksums: dict[Algorithm, Checksum]
    token: str | None

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """Read the answer to a head_object."""
        return cls(
            export_id=answer.get("Metadata", {}).get(OWNER_FIELD),
            etag=unquoted(answer["ETag"]),
            bytes=answer["ContentLength"],
            checksums=checksums_in(answer),
            token=answer.get("Metadata", {}).get(UPLOAD_FIELD),
        )


async def head_object(calls: S3Calls, target: Target) -> ObjectHead | None:
    """What stands under the key; None when nothing does.

    Raises:
        ObjectExistsError: It belongs to another export.
        StorageError: S3 refused or did not answer.
    """
    with translated(HEAD, target.bucket):
        try:
            answer = await calls.call(HEAD, target.address | {"ChecksumMode": "ENABLED"})
        except ClientError as error:
            if status_of(error) == 404:
                return None
            raise
    head = ObjectHead.of(answer)
    if head.export_id != target.export_id:
        raise ObjectExistsError(
            f"s3://{target.bucket}/{target.key} belongs to another export and is left alone; "
            "put {export_id} into s3.key_template, so that every export has keys of its own"
        )
    return head


async def delete_ours(calls: S3Calls, target: Target) -> None:
    """Delete an object that `head_object` has found to be our own."""
    with translated(DELETE, target.bucket):
        await calls.call(DELETE, target.address)


def unquoted(etag: str) -> str:
    """An ETag without the quotes that HTTP puts around it."""
    return etag.strip('"')

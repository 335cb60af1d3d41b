"""Reads one object of S3 piece by piece. Each piece is a call of its own, so a slow reader keeps no connection open."""

import asyncio
from dataclasses import dataclass
from typing import Any, Self

from botocore.exceptions import ClientError

from export_worker.errors import StorageError, StorageRefusedError
from export_worker.s3.client import S3Client
from export_worker.s3.errors import CALL_ERRORS, status_of, storage_error

PIECE_BYTES = 4 * 1024 * 1024
"""Bytes of one call: few calls for a large object, and little memory."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One version of an object.

    Args:
        client: Makes the calls.
        etag: Identifies the version, as S3 writes it.
        total_bytes: Length.
    """

    client: S3Client
    bucket: str
    key: str
    etag: str
    total_bytes: int

    @classmethod
    async def find(cls, client: S3Client, bucket: str, key: str) -> Self | None:
        """Returns the object with this key; None if there is none.

        Raises:
            StorageError: S3 refused the call, or did not answer.
        """
        try:
            head = await asyncio.to_thread(client.head_object, Bucket=bucket, Key=key)
        except CALL_ERRORS as error:
            if isinstance(error, ClientError) and status_of(error) == 404:
                return None
            raise storage_error(error, "head_object", bucket) from None
        return cls(client, bucket, key, str(head.get("ETag") or ""), int(head["ContentLength"]))

    async def read(self, offset_bytes: int) -> bytes:
        """Returns the next bytes of the object from an offset on; none behind its end.

        Raises:
            StorageError: S3 refused the call, did not answer, or has another version by now.
        """
        end = min(offset_bytes + PIECE_BYTES, self.total_bytes)
        if offset_bytes >= end:
            return b""
        try:
            piece = await asyncio.to_thread(self._read, offset_bytes, end)
        except CALL_ERRORS as error:
            if isinstance(error, ClientError) and status_of(error) == 412:
                raise StorageRefusedError(f"s3://{self.bucket}/{self.key} was changed while it was read") from None
            raise storage_error(error, "get_object", self.bucket) from None
        if len(piece) != end - offset_bytes:
            raise StorageError(f"get_object on bucket {self.bucket}: S3 sent another range than the requested one")
        return piece

    def _read(self, start: int, end: int) -> bytes:
        condition: dict[str, Any] = {"IfMatch": self.etag} if self.etag else {}
        response = self.client.get_object(
            Bucket=self.bucket, Key=self.key, Range=f"bytes={start}-{end - 1}", **condition
        )
        with response["Body"] as body:
            piece: bytes = body.read(end - start + 1)
        return piece

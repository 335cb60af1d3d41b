"""A multipart upload and its parts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from export_worker.s3.calls import ABORT, COMPLETE, COPY_PART, PART, S3Calls, storage_errors
from export_worker.s3.checksum_modes import ChecksumMode, RequestBody, UploadedParts
from export_worker.s3.checksums import Checksum
from export_worker.s3.create_only import CreateOnlyWrite
from export_worker.s3.errors import code_of
from export_worker.s3.objects import Target, Written
from export_worker.s3.threads import finish


@dataclass(frozen=True, slots=True)
class SentPart:
    """One part that the store has confirmed.

    Args:
        etag: As the store returned it.
        checksum: Of its bytes; None if another worker has sent it and the store does not list it.
        checksum_so_far: Of its bytes and of all bytes before them. The last part of those without a checksum has it.
    """

    number: int
    bytes: int
    etag: str
    checksum: Checksum | None
    checksum_so_far: Checksum | None = None


class MultipartUpload:
    """One open upload.

    Args:
        mode: The checksum mode in which it was created.
        has_full_checksum: The store has confirmed that it keeps a checksum of the whole object. A store that has not
            may know only a checksum of the parts' checksums, and refuse the whole one as wrong. The checksums of the
            parts are sent in both cases.
    """

    def __init__(
        self, calls: S3Calls, target: Target, upload_id: str, mode: ChecksumMode, *, has_full_checksum: bool = True
    ) -> None:
        self.upload_id = upload_id
        self.has_full_checksum = has_full_checksum
        self._mode = mode
        self._calls = calls
        self._target = target
        self._address = target.address | {"UploadId": upload_id}

    async def send(self, number: int, body: bytearray) -> SentPart:
        """Sends one part. Parts may be sent at the same time and in any order.

        If the caller is cancelled, this method returns only when its thread has ended.

        Raises:
            StorageError: S3 refused the call or did not answer.
        """
        request_body, arguments = RequestBody(body), self._address | {"PartNumber": number}
        with storage_errors(PART, self._target.bucket):
            response, self._mode = await self._calls.write(
                PART, arguments, request_body.arguments, upload_mode=self._mode, sent_bytes=len(body)
            )
        return SentPart(number, len(body), response["ETag"], request_body.checksum)

    async def copy(self, number: int, size_bytes: int, source: dict[str, Any], first: int) -> SentPart:
        """Copies a range of a stored object as one part. No byte passes through the worker.

        Args:
            source: The arguments that name the object.
            first: The position of the first byte of the part.

        Raises:
            StorageError: S3 refused the call or did not answer.
        """
        part = {"PartNumber": number, "CopySourceRange": f"bytes={first}-{first + size_bytes - 1}"}
        with storage_errors(COPY_PART, self._target.bucket):
            response = await self._calls.call(COPY_PART, self._address | source | part)
        return SentPart(number, size_bytes, response["CopyPartResult"]["ETag"], None)

    async def complete(self, parts: Sequence[SentPart]) -> Written:
        """Makes one object of the parts, in this order, if its key is free. Raises what `S3Store.put` raises.

        If an equal object of the same export exists, it stays, and the upload is aborted.
        """
        checksum = whole_checksum(parts)

        def mode_arguments(mode: ChecksumMode) -> dict[str, Any]:
            own = mode.checksum_argument(checksum) | mode.full_object_argument if self.has_full_checksum else {}
            return own | {"MultipartUpload": {"Parts": [_part_argument(part, mode) for part in parts]}}

        async def write(condition: dict[str, str]) -> dict[str, Any]:
            arguments, mode = self._address | condition, self._mode
            response, self._mode = await self._calls.write(COMPLETE, arguments, mode_arguments, upload_mode=mode)
            return response

        size_bytes = sum(part.bytes for part in parts)
        create_only = CreateOnlyWrite(self._calls, self._target, size_bytes)
        written = await create_only.run(COMPLETE, write, UploadedParts(checksum))
        if written.adopted:
            await self.abort()
        return written

    async def abort(self) -> None:
        """Deletes the upload and its parts, even if the caller is cancelled. Does nothing if the upload does not exist.

        Raises:
            StorageError: S3 refused the call or did not answer.
        """
        _, cancelled = await finish(self._abort())
        if cancelled:
            raise asyncio.CancelledError

    async def _abort(self) -> None:
        with storage_errors(ABORT, self._target.bucket):
            try:
                await self._calls.call(ABORT, self._address)
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise


def whole_checksum(parts: Sequence[SentPart]) -> Checksum:
    """Returns the checksum of all parts in this order. The parts' checksums must be by one algorithm."""
    whole: Checksum | None = None
    for part in parts:
        whole = checksum_with(whole, part)
    if whole is None:
        raise ValueError("no part has a checksum")
    return whole


def checksum_with(before: Checksum | None, part: SentPart) -> Checksum | None:
    """Returns the checksum of the bytes before a part and of the part; None if it is not known yet."""
    if part.checksum is None:
        return part.checksum_so_far
    return part.checksum if before is None else before.followed_by(part.checksum, part.bytes)


def _part_argument(part: SentPart, mode: ChecksumMode) -> dict[str, Any]:
    checksum = {} if part.checksum is None else mode.checksum_argument(part.checksum)
    return {"PartNumber": part.number, "ETag": part.etag} | checksum

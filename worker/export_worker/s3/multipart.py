"""A multipart upload and its parts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from export_worker.s3.calls import ABORT, COMPLETE, PART, S3Calls, translated
from export_worker.s3.checksum_modes import Body, ChecksumMode, Joined, whole
from export_worker.s3.checksums import Checksum
from export_worker.s3.create_only import _CreateOnce
from export_worker.s3.errors import code_of
from export_worker.s3.objects import Target, Written
from export_worker.s3.threads import finish


@dataclass(frozen=True, slots=True)
class SentPart:
    """One part that the store has; the ETag as the store wrote it."""

    number: int
    bytes: int
    etag: str
    checksum: Checksum


class MultipartUpload:
    """One open upload.

    Args:
        guard: With which it was begun.
        is_whole: The store has said that it keeps the checksum of the whole object. One that has not may know one of
            the parts' checksums only, and take ours for wrong; those of the parts are named to it all the same.
    """

    def __init__(
        self, calls: S3Calls, target: Target, upload_id: str, mode: ChecksumMode, *, is_whole: bool = True
    ) -> None:
        self.upload_id = upload_id
        self._mode = mode
        self._is_whole = is_whole
        self._calls = calls
        self._target = target
        self._address = target.address | {"UploadId": upload_id}

    async def send(self, number: int, body: bytearray) -> SentPart:
        """Send one part; parts may go at the same time and in any order. Ends only when its thread has.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        guarded, plain = Body(body), self._address | {"PartNumber": number}
        with translated(PART, self._target.bucket):
            answer, self._mode = await self._calls.write(
                PART, plain, guarded.fields, begun=self._mode, sent_bytes=len(body)
            )
        return SentPart(number, len(body), answer["ETag"], guarded.checksum)

    async def complete(self, parts: Sequence[SentPart]) -> Written:
        """Make the parts, in this order, one object, create-only. Raises as `S3Store.put` does.

        When an equal object of ours stands there already, that one stays and the upload is aborted.
        """
        checksum, plain = whole_checksum(parts), self._address | {"IfNoneMatch": "*"}

        def fields(mode: ChecksumMode) -> dict[str, Any]:
            own = mode.named(checksum) | whole(mode) if self._is_whole else {}
            return own | {"MultipartUpload": {"Parts": [_listed(part, mode) for part in parts]}}

        async def write() -> dict[str, Any]:
            answer, self._mode = await self._calls.write(COMPLETE, plain, fields, begun=self._mode)
            return answer

        size_bytes = sum(part.bytes for part in parts)
        written = await _CreateOnce(self._calls, self._target, size_bytes).write(COMPLETE, write, Joined(checksum))
        if written.adopted:
            await self.abort()
        return written

    async def abort(self) -> None:
        """Drop the upload and its parts, also when the caller is cancelled. One that is gone already is fine.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        _, cancelled = await finish(self._abort())
        if cancelled:
            raise asyncio.CancelledError

    async def _abort(self) -> None:
        with translated(ABORT, self._target.bucket):
            try:
                await self._calls.call(ABORT, self._address)
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise


def whole_checksum(parts: Sequence[SentPart]) -> Checksum:
    """Of all parts in this order; they are of one algorithm."""
    whole = parts[0].checksum
    for part in parts[1:]:
        whole = whole.followed_by(part.checksum, part.bytes)
    return whole


def _listed(part: SentPart, mode: ChecksumMode) -> dict[str, Any]:
    return {"PartNumber": part.number, "ETag": part.etag} | mode.named(part.checksum)

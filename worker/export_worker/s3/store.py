"""The S3 side: create-only writes, and multipart uploads that never stay open.

A key is written only when nothing stands there (`If-None-Match: *`). Where something does, its metadata says whose it
is: an equal object of the same export is adopted, a different one of the same export (an earlier attempt) is replaced,
another export's is never touched.

A checksum of the whole object goes with every write, and what S3 answers is compared: CRC64NVME, or what else the
store takes; see `guards`. That is found out once and kept in the `S3Store`. ETags are not compared: they are no MD5 as
soon as a store encrypts. Where there is no CRC, Content-MD5 says as much of every part, and completing names their
ETags.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from secrets import token_hex
from typing import Any

from botocore.exceptions import ClientError

from export_worker.errors import StorageError
from export_worker.s3.calls import CREATE, LIST, LIST_PARTS, PUT, S3Calls, translated
from export_worker.s3.checksum_modes import CHECKSUM_MODES, Body, ChecksumMode, beginning, checksums_in
from export_worker.s3.checksums import CRC64NVME, Algorithm, Checksum
from export_worker.s3.client import S3Client
from export_worker.s3.create_only import _CreateOnce
from export_worker.s3.errors import code_of
from export_worker.s3.multipart import MultipartUpload
from export_worker.s3.objects import ObjectHead, Target, Written, delete_ours, head_object
from export_worker.s3.threads import finish
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument


@dataclass(frozen=True, slots=True)
class IncompleteUpload:
    """An upload that is open, whosever it is."""

    key: str
    upload_id: str
    begun_at: datetime


@dataclass(frozen=True, slots=True)
class ListedPart:
    """One part as the store lists it; some list no checksums."""

    number: int
    bytes: int
    etag: str
    checksum: Checksum | None


class S3Store:
    """One S3 endpoint.

    Args:
        client: See `build_client`.
        executor: Bounded; every call of boto3 runs in it.
        instrument: Hears of each call.
    """

    def __init__(
        self, client: S3Client, executor: ThreadPoolExecutor, instrument: Instrument = NULL_INSTRUMENT
    ) -> None:
        self.executor = executor
        self._calls = S3Calls(client, executor, instrument)

    async def put(self, target: Target, body: bytes | bytearray) -> Written:
        """Store a whole object by one call, create-only.

        Raises:
            ObjectExistsError: The key belongs to another export.
            IntegrityError: S3 stored something else; it has been removed.
            StorageError: S3 refused or did not answer.
        """
        guarded, plain = Body(body), target.head | {"IfNoneMatch": "*"}

        async def write() -> dict[str, Any]:
            answer, _ = await self._calls.write(PUT, plain, guarded.fields, sent_bytes=len(body))
            return answer

        return await _CreateOnce(self._calls, target, len(body)).write(PUT, write, guarded)

    async def begin(self, target: Target) -> "MultipartUpload":
        """Open a multipart upload, to be completed or aborted. Cancelled meanwhile, this leaves none open.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        # The token tells an object that came by this upload from what an earlier attempt has left.
        upload, cancelled = await finish(self._begin(replace(target, token=target.token or token_hex(8))))
        if cancelled:
            with suppress(StorageError):  # whoever comes next aborts it
                await upload.abort()
            raise asyncio.CancelledError
        return upload

    async def _begin(self, target: Target) -> "MultipartUpload":
        with translated(CREATE, target.bucket):
            answer, mode = await self._calls.write(CREATE, target.head, beginning)
        is_whole = answer.get("ChecksumType") == "FULL_OBJECT"
        upload = MultipartUpload(self._calls, target, answer["UploadId"], mode, is_whole=is_whole)
        if answer["ResponseMetadata"].get("RetryAttempts"):
            # A call whose answer was lost has opened another one. What cannot be aborted now, the sweep will.
            with suppress(StorageError):
                await self.abort_leftovers(target.bucket, target.key, target.export_id, upload.upload_id)
        return upload

    def upload(self, target: Target, upload_id: str, algorithm: Algorithm = CRC64NVME) -> "MultipartUpload":
        """One that was begun before, here or elsewhere, with checksums of this algorithm."""
        return MultipartUpload(self._calls, target, upload_id, ChecksumMode(algorithm))

    async def parts(self, target: Target, upload_id: str) -> list[ListedPart] | None:
        """The parts that an open upload has; None when there is no such upload.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        listed: list[ListedPart] = []
        page = target.address | {"UploadId": upload_id}
        with translated(LIST_PARTS, target.bucket):
            try:
                while True:
                    answer = await self._calls.call(LIST_PARTS, page)
                    listed += map(_listed_part, answer.get("Parts", []))
                    if not answer.get("IsTruncated"):
                        return listed
                    page |= _following(page, PartNumberMarker=answer.get("NextPartNumberMarker"))
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise
                return None

    async def remove(self, target: Target) -> None:
        """Remove an object of ours, if there is one. Raises as `head.head_object` does."""
        if await head_object(self._calls, target) is not None:
            await delete_ours(self._calls, target)

    async def head_object(self, target: Target) -> ObjectHead | None:
        """See `head.head_object`."""
        return await head_object(self._calls, target)

    async def abort_leftovers(self, bucket: str, prefix: str, export_id: str, keep: str | None = None) -> int:
        """Abort what a killed worker has left open: uploads under the prefix whose key names the export.

        No upload of this export may be running. Keys that do not hold the export id are left alone, since they could
        be another's.

        Args:
            keep: The upload that is to be resumed.

        Returns:
            How many were aborted.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        aborted = 0
        for upload in await self.uploads(bucket, prefix):
            if export_id in upload.key and upload.upload_id != keep:
                await self.abort(bucket, upload)
                aborted += 1
        return aborted

    async def uploads(self, bucket: str, prefix: str) -> list[IncompleteUpload]:
        """Every upload that is open under a prefix.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        found: list[IncompleteUpload] = []
        page = {"Bucket": bucket, "Prefix": prefix}
        with translated(LIST, bucket):
            while True:
                answer = await self._calls.call(LIST, page)
                found += map(_standing_upload, answer.get("Uploads", []))
                if not answer.get("IsTruncated"):
                    return found
                key, upload_id = answer.get("NextKeyMarker"), answer.get("NextUploadIdMarker") or ""
                page |= _following(page, KeyMarker=key, UploadIdMarker=upload_id)

    async def abort(self, bucket: str, upload: IncompleteUpload) -> None:
        """Drop an upload with its parts. Raises as `MultipartUpload.abort` does."""
        await MultipartUpload(
            self._calls, Target(bucket, upload.key, "", ""), upload.upload_id, CHECKSUM_MODES[0]
        ).abort()


def _following(page: dict[str, Any], **markers: Any) -> dict[str, Any]:
    """Where the next page begins. A store that says no other place than before would be asked for ever."""
    if all(page.get(name) == marker for name, marker in markers.items()) or None in markers.values():
        raise StorageError(f"bucket {page['Bucket']}: a listing goes on, and the store does not tell from where")
    return markers


def _standing_upload(item: dict[str, Any]) -> IncompleteUpload:
    return IncompleteUpload(item["Key"], item["UploadId"], item["Initiated"])


def _listed_part(item: dict[str, Any]) -> ListedPart:
    told = next(iter(checksums_in(item).values()), None)
    return ListedPart(item["PartNumber"], item["Size"], item["ETag"], told)

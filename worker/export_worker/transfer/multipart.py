"""The S3 side: create-only writes, and multipart uploads that never stay open.

A key is written only when nothing stands there (`If-None-Match: *`). Where something does, its metadata says whose it
is: an equal object of the same export is adopted, a different one of the same export (an earlier attempt) is replaced,
another export's is never touched.

CRC64NVME goes with every write. A store that refuses it is written to without, which is found out once and kept in
the `S3Store`; the checksum that we report is then ours alone, and nothing but the transport guards the way (ETags are
not compared: they are no MD5 as soon as a store encrypts).
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from export_worker.errors import IntegrityError, StorageError
from export_worker.instrumentation import SILENT, Instrument
from export_worker.transfer.calls import (
    ABORT,
    CHECKSUM_FIELD,
    COMPLETE,
    CREATE,
    LIST,
    LIST_PARTS,
    PART,
    PUT,
    S3Calls,
    translated,
)
from export_worker.transfer.checksum import ALGORITHM, combined, crc_of, from_wire, wire_form
from export_worker.transfer.client import S3Client
from export_worker.transfer.failures import code_of, status_of
from export_worker.transfer.standing import Standing, Target, Written, delete_ours, look, told_checksum, unquoted
from export_worker.transfer.threads import finish, run_in_thread

RACE_PAUSES_S = (0.2, 0.5, 1.0)
"""Between looks at a key that another writer is busy with."""
_WHOLE = {"ChecksumType": "FULL_OBJECT"}


@dataclass(frozen=True, slots=True)
class SentPart:
    """One part that the store has; the ETag as the store wrote it."""

    number: int
    bytes: int
    etag: str
    crc: int


@dataclass(frozen=True, slots=True)
class StandingUpload:
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
    crc: int | None


class S3Store:
    """One S3 endpoint.

    Args:
        client: See `build_client`.
        executor: Bounded; every call of boto3 runs in it.
        instrument: Hears of each call.
    """

    def __init__(self, client: S3Client, executor: ThreadPoolExecutor, instrument: Instrument = SILENT) -> None:
        self.executor = executor
        self._calls = S3Calls(client, executor, instrument)

    async def put(self, target: Target, body: bytes | bytearray) -> Written:
        """Store a whole object by one call, create-only.

        Raises:
            ObjectExistsError: The key belongs to another export.
            IntegrityError: S3 stored something else; it has been removed.
            StorageError: S3 refused or did not answer.
        """
        crc = await run_in_thread(self.executor, partial(crc_of, body))
        plain = target.head | {"Body": body, "IfNoneMatch": "*"}
        checks = {CHECKSUM_FIELD: wire_form(crc)}
        return await _CreateOnce(self._calls, target, len(body), crc).write(PUT, plain, checks)

    async def begin(self, target: Target) -> "MultipartUpload":
        """Open a multipart upload, to be completed or aborted. Cancelled meanwhile, this leaves none open.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        upload, cancelled = await finish(self._begin(target))
        if cancelled:
            await upload.abort()
            raise asyncio.CancelledError
        return upload

    async def _begin(self, target: Target) -> "MultipartUpload":
        checks = _WHOLE | {"ChecksumAlgorithm": ALGORITHM}
        with translated(CREATE, target.bucket):
            answer = await self._calls.write(CREATE, target.head, checks)
        upload = MultipartUpload(self._calls, target, answer["UploadId"])
        if answer["ResponseMetadata"].get("RetryAttempts"):
            # A call whose answer was lost has opened another one.
            await self.abort_leftovers(target.bucket, target.key, target.export_id, upload.upload_id)
        return upload

    def upload(self, target: Target, upload_id: str) -> "MultipartUpload":
        """One that was begun before, here or elsewhere."""
        return MultipartUpload(self._calls, target, upload_id)

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
                    page["PartNumberMarker"] = answer["NextPartNumberMarker"]
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise
                return None

    async def look(self, target: Target) -> Standing | None:
        """See `standing.look`."""
        return await look(self._calls, target)

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

    async def uploads(self, bucket: str, prefix: str) -> list[StandingUpload]:
        """Every upload that is open under a prefix.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        found: list[StandingUpload] = []
        page = {"Bucket": bucket, "Prefix": prefix}
        with translated(LIST, bucket):
            while True:
                answer = await self._calls.call(LIST, page)
                found += map(_standing_upload, answer.get("Uploads", []))
                if not answer.get("IsTruncated"):
                    return found
                page["KeyMarker"] = answer["NextKeyMarker"]
                page["UploadIdMarker"] = answer["NextUploadIdMarker"]

    async def abort(self, bucket: str, upload: StandingUpload) -> None:
        """Drop an upload with its parts. Raises as `MultipartUpload.abort` does."""
        await MultipartUpload(self._calls, Target(bucket, upload.key, "", ""), upload.upload_id).abort()


class MultipartUpload:
    """One open upload."""

    def __init__(self, calls: S3Calls, target: Target, upload_id: str) -> None:
        self.upload_id = upload_id
        self._calls = calls
        self._target = target
        self._address = target.address | {"UploadId": upload_id}

    async def send(self, number: int, body: bytearray) -> SentPart:
        """Send one part; parts may go at the same time and in any order. Ends only when its thread has.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        crc = await run_in_thread(self._calls.executor, partial(crc_of, body))
        plain = self._address | {"PartNumber": number, "Body": body}
        with translated(PART, self._target.bucket):
            answer = await self._calls.write(PART, plain, {CHECKSUM_FIELD: wire_form(crc)})
        return SentPart(number, len(body), answer["ETag"], crc)

    async def complete(self, parts: Sequence[SentPart]) -> Written:
        """Make the parts, in this order, one object, create-only. Raises as `S3Store.put` does.

        When an equal object of ours stands there already, that one stays and the upload is aborted.
        """
        crc = whole_crc(parts)
        plain = self._address | {"IfNoneMatch": "*", "MultipartUpload": {"Parts": [_listed(part) for part in parts]}}
        checked_parts = [_listed(part) | {CHECKSUM_FIELD: wire_form(part.crc)} for part in parts]
        checks = _WHOLE | {CHECKSUM_FIELD: wire_form(crc), "MultipartUpload": {"Parts": checked_parts}}
        size_bytes = sum(part.bytes for part in parts)
        written = await _CreateOnce(self._calls, self._target, size_bytes, crc).write(COMPLETE, plain, checks)
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


class _CreateOnce:
    """Writes an object under a key that must be free, and decides when it is not."""

    def __init__(self, calls: S3Calls, target: Target, size_bytes: int, crc: int) -> None:
        self._calls = calls
        self._target = target
        self._size_bytes = size_bytes
        self._crc = crc

    async def write(self, name: str, plain: dict[str, Any], checks: dict[str, Any]) -> Written:
        for pause_s in RACE_PAUSES_S:
            with translated(name, self._target.bucket):
                answer = await self._try(name, plain, checks)
            if answer is not None:
                return await self._confirmed(answer)
            standing = await look(self._calls, self._target)
            if standing is None:
                await asyncio.sleep(pause_s)
            elif standing.equals(self._size_bytes, self._crc):
                return Written(standing.etag, self._size_bytes, self._crc, adopted=True)
            else:
                await delete_ours(self._calls, self._target)
        raise StorageError(f"{name} on bucket {self._target.bucket}: another writer is busy with {self._target.key}")

    async def _try(self, name: str, plain: dict[str, Any], checks: dict[str, Any]) -> dict[str, Any] | None:
        """None when the key is, or may be, taken."""
        try:
            return await self._calls.write(name, plain, checks)
        except ClientError as error:
            # An upload that is gone may have been completed by a call whose answer was lost.
            if status_of(error) in {409, 412} or (name == COMPLETE and code_of(error) == "NoSuchUpload"):
                return None
            raise

    async def _confirmed(self, answer: dict[str, Any]) -> Written:
        told = told_checksum(answer)
        if told not in {None, wire_form(self._crc)}:
            with suppress(StorageError):  # the next attempt replaces it; what matters is said below
                await delete_ours(self._calls, self._target)
            raise IntegrityError(
                f"s3://{self._target.bucket}/{self._target.key}: S3 stored {ALGORITHM} {told}, "
                f"we sent {wire_form(self._crc)}"
            )
        return Written(unquoted(answer["ETag"]), self._size_bytes, self._crc)


def _standing_upload(item: dict[str, Any]) -> StandingUpload:
    return StandingUpload(item["Key"], item["UploadId"], item["Initiated"])


def _listed_part(item: dict[str, Any]) -> ListedPart:
    told = item.get(CHECKSUM_FIELD)
    return ListedPart(item["PartNumber"], item["Size"], item["ETag"], None if told is None else from_wire(told))


def whole_crc(parts: Sequence[SentPart]) -> int:
    """The CRC64NVME of all parts in this order."""
    crc = 0
    for part in parts:
        crc = combined(crc, part.crc, part.bytes)
    return crc


def _listed(part: SentPart) -> dict[str, Any]:
    return {"PartNumber": part.number, "ETag": part.etag}

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
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import Any

from botocore.exceptions import ClientError

from export_worker.errors import IntegrityError, StorageError
from export_worker.instrumentation import SILENT, Instrument
from export_worker.transfer.calls import (
    ABORT,
    COMPLETE,
    CREATE,
    LIST,
    LIST_PARTS,
    PART,
    PUT,
    S3Calls,
    translated,
)
from export_worker.transfer.checksum import CRC64NVME, Algorithm, Checksum
from export_worker.transfer.client import S3Client
from export_worker.transfer.failures import code_of, status_of
from export_worker.transfer.guards import LADDER, Body, Content, Guard, Joined, beginning, told_checksums, whole
from export_worker.transfer.standing import Standing, Target, Written, delete_ours, look, unquoted
from export_worker.transfer.threads import finish, run_in_thread

RACE_PAUSES_S = (0.2, 0.5, 1.0)
"""Between looks at a key that another writer is busy with."""
Write = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class SentPart:
    """One part that the store has; the ETag as the store wrote it."""

    number: int
    bytes: int
    etag: str
    checksum: Checksum


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
    checksum: Checksum | None


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
            answer, guard = await self._calls.write(CREATE, target.head, beginning)
        is_whole = answer.get("ChecksumType") == "FULL_OBJECT"
        upload = MultipartUpload(self._calls, target, answer["UploadId"], guard, is_whole=is_whole)
        if answer["ResponseMetadata"].get("RetryAttempts"):
            # A call whose answer was lost has opened another one. What cannot be aborted now, the sweep will.
            with suppress(StorageError):
                await self.abort_leftovers(target.bucket, target.key, target.export_id, upload.upload_id)
        return upload

    def upload(self, target: Target, upload_id: str, algorithm: Algorithm = CRC64NVME) -> "MultipartUpload":
        """One that was begun before, here or elsewhere, with checksums of this algorithm."""
        return MultipartUpload(self._calls, target, upload_id, Guard(algorithm))

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
        """Remove an object of ours, if there is one. Raises as `standing.look` does."""
        if await look(self._calls, target) is not None:
            await delete_ours(self._calls, target)

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
                key, upload_id = answer.get("NextKeyMarker"), answer.get("NextUploadIdMarker") or ""
                page |= _following(page, KeyMarker=key, UploadIdMarker=upload_id)

    async def abort(self, bucket: str, upload: StandingUpload) -> None:
        """Drop an upload with its parts. Raises as `MultipartUpload.abort` does."""
        await MultipartUpload(self._calls, Target(bucket, upload.key, "", ""), upload.upload_id, LADDER[0]).abort()


class MultipartUpload:
    """One open upload.

    Args:
        guard: With which it was begun.
        is_whole: The store has said that it keeps the checksum of the whole object. One that has not may know one of
            the parts' checksums only, and take ours for wrong; those of the parts are named to it all the same.
    """

    def __init__(self, calls: S3Calls, target: Target, upload_id: str, guard: Guard, *, is_whole: bool = True) -> None:
        self.upload_id = upload_id
        self._guard = guard
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
            answer, self._guard = await self._calls.write(
                PART, plain, guarded.fields, begun=self._guard, sent_bytes=len(body)
            )
        return SentPart(number, len(body), answer["ETag"], guarded.checksum)

    async def complete(self, parts: Sequence[SentPart]) -> Written:
        """Make the parts, in this order, one object, create-only. Raises as `S3Store.put` does.

        When an equal object of ours stands there already, that one stays and the upload is aborted.
        """
        checksum, plain = whole_checksum(parts), self._address | {"IfNoneMatch": "*"}

        def fields(guard: Guard) -> dict[str, Any]:
            own = guard.named(checksum) | whole(guard) if self._is_whole else {}
            return own | {"MultipartUpload": {"Parts": [_listed(part, guard) for part in parts]}}

        async def write() -> dict[str, Any]:
            answer, self._guard = await self._calls.write(COMPLETE, plain, fields, begun=self._guard)
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


class _CreateOnce:
    """Writes an object under a key that must be free, and decides when it is not."""

    def __init__(self, calls: S3Calls, target: Target, size_bytes: int) -> None:
        self._calls = calls
        self._target = target
        self._size_bytes = size_bytes

    async def write(self, name: str, call: Write, content: Content) -> Written:
        """Make the call; its checksum is known at the latest when it has been made."""
        for pause_s in RACE_PAUSES_S:
            with translated(name, self._target.bucket):
                answer = await self._try(name, call)
            if answer is not None:
                return await self._confirmed(answer, content)
            standing = await look(self._calls, self._target)
            if standing is None:
                await asyncio.sleep(pause_s)
            elif await self._equals(standing, content):
                checksum = _own_or_first(standing.checksums, content) or content.checksum
                return Written(standing.etag, self._size_bytes, checksum, adopted=True)
            else:
                await delete_ours(self._calls, self._target)
        raise StorageError(f"{name} on bucket {self._target.bucket}: another writer is busy with {self._target.key}")

    async def _try(self, name: str, call: Write) -> dict[str, Any] | None:
        """None when the key is, or may be, taken."""
        try:
            return await call()
        except ClientError as error:
            # An upload that is gone may have been completed by a call whose answer was lost.
            if status_of(error) in {409, 412} or (name == COMPLETE and code_of(error) == "NoSuchUpload"):
                return None
            raise

    async def _equals(self, standing: Standing, content: Content) -> bool:
        """Same size, and proof: the same checksum, or where the store tells none, that it came by this very upload.

        A checksum by another algorithm than that of parts which are gone cannot be compared: it may be of other bytes.
        """
        if standing.bytes != self._size_bytes:
            return False
        if not standing.checksums:
            return standing.token is not None and standing.token == self._target.token
        return await self._agrees(standing.checksums, content) is True

    async def _confirmed(self, answer: dict[str, Any], content: Content) -> Written:
        told = told_checksums(answer)
        if await self._agrees(told, content) is False:
            with suppress(StorageError):  # the next attempt replaces it; what matters is said below
                await delete_ours(self._calls, self._target)
            stored, where = _own_or_first(told, content), f"s3://{self._target.bucket}/{self._target.key}"
            raise IntegrityError(f"{where}: S3 stored {stored}, we sent {content.checksum}")
        return Written(unquoted(answer["ETag"]), self._size_bytes, content.checksum)

    async def _agrees(self, told: dict[Algorithm, Checksum], content: Content) -> bool | None:
        """Whether the store tells what is true of these bytes; None where it tells nothing that can be compared."""
        checksum, ours = _own_or_first(told, content), content.checksum
        if checksum is None:
            return None
        if checksum.algorithm == ours.algorithm:
            return checksum == ours
        other = await run_in_thread(self._calls.executor, partial(content.by, checksum.algorithm))
        return None if other is None else checksum == other


def _own_or_first(told: dict[Algorithm, Checksum], content: Content) -> Checksum | None:
    return told.get(content.checksum.algorithm) or next(iter(told.values()), None)


def _following(page: dict[str, Any], **markers: Any) -> dict[str, Any]:
    """Where the next page begins. A store that says no other place than before would be asked for ever."""
    if all(page.get(name) == marker for name, marker in markers.items()) or None in markers.values():
        raise StorageError(f"bucket {page['Bucket']}: a listing goes on, and the store does not tell from where")
    return markers


def _standing_upload(item: dict[str, Any]) -> StandingUpload:
    return StandingUpload(item["Key"], item["UploadId"], item["Initiated"])


def _listed_part(item: dict[str, Any]) -> ListedPart:
    told = next(iter(told_checksums(item).values()), None)
    return ListedPart(item["PartNumber"], item["Size"], item["ETag"], told)


def whole_checksum(parts: Sequence[SentPart]) -> Checksum:
    """Of all parts in this order; they are of one algorithm."""
    whole = parts[0].checksum
    for part in parts[1:]:
        whole = whole.followed_by(part.checksum, part.bytes)
    return whole


def _listed(part: SentPart, guard: Guard) -> dict[str, Any]:
    return {"PartNumber": part.number, "ETag": part.etag} | guard.named(part.checksum)

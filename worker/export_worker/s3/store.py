"""The object store as a transfer uses it: create-only writes, multipart uploads, and the removal of leftovers.

A key is written only if it is free (`If-None-Match: *`). If it is not, the metadata of the object shows which export
wrote it. An equal object of the same export is adopted. A different object of the same export comes from an earlier
attempt and is replaced. An object of another export is never changed.

Every write carries a checksum of the whole object, and the worker compares it with the checksum in S3's response. The
algorithm is the best one that the store supports; see `checksum_modes`. The `S3Store` remembers the choice. ETags are
not compared with the bytes: on a store that encrypts, they are not MD5 sums. On a store without CRCs, TLS or
Content-MD5 protects each part, and the call that completes the upload names the ETags of the parts.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from secrets import token_hex
from typing import Any

from botocore.exceptions import ClientError

from export_worker.errors import StorageError, StorageRefusedError, StorageUnavailableError
from export_worker.s3.calls import CREATE, DELETE, HEAD, LIST, LIST_OBJECTS, LIST_PARTS, PUT, S3Calls, storage_errors
from export_worker.s3.checksum_modes import CHECKSUM_MODES, ChecksumMode, RequestBody, checksums_in
from export_worker.s3.checksums import CRC64NVME, Algorithm, Checksum
from export_worker.s3.client import S3Client
from export_worker.s3.copying import COPY_MAX_BYTES, StoredSource, content_type_of, copy_parts, copy_whole
from export_worker.s3.create_only import CreateOnlyWrite
from export_worker.s3.errors import code_of
from export_worker.s3.multipart import MultipartUpload
from export_worker.s3.objects import ObjectHead, Target, Written, delete_own_object, head_object
from export_worker.s3.settings import Integrity
from export_worker.s3.threads import finish
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument

REMOVALS_MAX = 3
"""How often an object is examined and deleted that another writer replaces in between. Only a worker that has lost its
lease does that, and only once."""


@dataclass(frozen=True, slots=True)
class IncompleteUpload:
    """An open upload of any export."""

    key: str
    upload_id: str
    begun_at: datetime


@dataclass(frozen=True, slots=True)
class ListedPart:
    """One part as the store lists it. Some stores list no checksums."""

    number: int
    bytes: int
    etag: str
    checksum: Checksum | None


class S3Store:
    """One S3 endpoint.

    Args:
        client: See `build_client`.
        executor: A bounded pool; all calls of boto3 run in it.
        instrument: Receives the duration and result of each call.
        part_bytes: The size of all parts of an upload; None if they may differ.
        integrity: Whether Content-MD5 is sent over TLS, too.
    """

    def __init__(
        self,
        client: S3Client,
        executor: ThreadPoolExecutor,
        instrument: Instrument = NULL_INSTRUMENT,
        *,
        part_bytes: int | None = None,
        integrity: Integrity = "auto",
    ) -> None:
        self.executor = executor
        self.part_bytes = part_bytes
        self._calls = S3Calls(client, executor, instrument, integrity=integrity)

    async def put(self, target: Target, body: bytes | bytearray) -> Written:
        """Writes a whole object with one call, if its key is free.

        Raises:
            ObjectExistsError: The key belongs to another export.
            IntegrityError: S3 stored other bytes. The object is deleted, or else the next attempt replaces it.
            StorageError: S3 refused a call or did not answer.
        """
        request_body = RequestBody(body)

        async def write(condition: dict[str, str]) -> dict[str, Any]:
            arguments = target.creation_arguments | condition
            response, _ = await self._calls.write(PUT, arguments, request_body.arguments, sent_bytes=len(body))
            return response

        return await CreateOnlyWrite(self._calls, target, len(body)).run(PUT, write, request_body)

    async def copy(self, target: Target, source: StoredSource) -> Written:
        """Copies a stored object, with its content type, if the key of the copy is free. See `copying`.

        Raises:
            ResultMissingError: The object does not exist, or is another one.
            ObjectExistsError: The key belongs to another export.
            IntegrityError: S3 stored other bytes. The object is deleted, or else the next attempt replaces it.
            StorageError: S3 refused a call or did not answer.
        """
        target = replace(target, content_type=await content_type_of(self._calls, source))
        if source.bytes == 0:
            return await self.put(target, b"")
        if source.bytes <= COPY_MAX_BYTES and target.export_id in target.key:
            return await copy_whole(self._calls, target, source)
        upload = await self.begin(target)
        try:
            return await upload.complete(await copy_parts(upload, source))
        except BaseException:
            with suppress(StorageError):  # the next attempt or the upload sweeper aborts it
                await upload.abort()
            raise

    async def begin(self, target: Target) -> MultipartUpload:
        """Creates a multipart upload. The caller must complete or abort it.

        If the caller is cancelled meanwhile, the upload is aborted. If this fails, it is aborted later.

        Raises:
            StorageError: S3 refused the call or did not answer.
        """
        # The token distinguishes an object of this upload from the object of an earlier attempt.
        upload, cancelled = await finish(self._begin(replace(target, token=target.token or token_hex(8))))
        if cancelled:
            with suppress(StorageError):  # the next attempt or the upload sweeper aborts it
                await upload.abort()
            raise asyncio.CancelledError
        return upload

    async def _begin(self, target: Target) -> MultipartUpload:
        with storage_errors(CREATE, target.bucket):
            mode_arguments = ChecksumMode.create_upload_arguments
            response, mode = await self._calls.write(CREATE, target.creation_arguments, mode_arguments)
        has_full_checksum = response.get("ChecksumType") == "FULL_OBJECT"
        upload = MultipartUpload(self._calls, target, response["UploadId"], mode, has_full_checksum=has_full_checksum)
        if response["ResponseMetadata"].get("RetryAttempts"):
            # A call whose response was lost may have created another upload. If that upload cannot be aborted now, the
            # upload sweeper aborts it later.
            with suppress(StorageError):
                await self.abort_leftovers(target.bucket, target.key, target.export_id, upload.upload_id)
        return upload

    def upload(
        self, target: Target, upload_id: str, algorithm: Algorithm = CRC64NVME, *, has_full_checksum: bool = True
    ) -> MultipartUpload:
        """Returns an upload that this or another worker created with checksums of this algorithm."""
        mode = ChecksumMode(algorithm)
        return MultipartUpload(self._calls, target, upload_id, mode, has_full_checksum=has_full_checksum)

    async def parts(self, target: Target, upload_id: str) -> list[ListedPart] | None:
        """Returns the parts of an open upload, or None if there is no such upload.

        Raises:
            StorageError: S3 refused the call or did not answer.
        """
        listed: list[ListedPart] = []
        page = target.address | {"UploadId": upload_id}
        with storage_errors(LIST_PARTS, target.bucket):
            try:
                while True:
                    response = await self._calls.call(LIST_PARTS, page)
                    listed += map(_listed_part, response.get("Parts", []))
                    if not response.get("IsTruncated"):
                        return listed
                    page |= _next_page(page, PartNumberMarker=response.get("NextPartNumberMarker"))
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise
                return None

    async def remove(self, target: Target, *, surely: bool = False) -> bool:
        """Deletes an object of the same export. Returns whether there was one. Raises what `head_object` raises.

        Args:
            surely: If there seems to be none, `confirm_absence` must agree.
        """
        for _ in range(REMOVALS_MAX):
            head = await head_object(self._calls, target)
            if head is None:
                if surely:
                    await self.confirm_absence(target)
                return False
            if await delete_own_object(self._calls, target, head.etag):
                return True
        raise StorageError(f"{DELETE} on bucket {target.bucket}: another writer keeps changing {target.key}")

    async def confirm_absence(self, target: Target) -> None:
        """Checks that a key is free after a HEAD has not found it.

        The answer to a HEAD has no body, so a bucket that is missing for a while looks like a missing object. A store
        that denies listings is believed.

        Raises:
            StorageError: S3 did not answer, its bucket is missing, or the object is there all the same.
        """
        page = {"Bucket": target.bucket, "Prefix": target.key, "MaxKeys": 1}
        try:
            with storage_errors(LIST_OBJECTS, target.bucket):
                response = await self._calls.call(LIST_OBJECTS, page)
        except StorageRefusedError:
            return
        if any(item["Key"] == target.key for item in response.get("Contents", [])):
            raise StorageUnavailableError(f"{HEAD} on bucket {target.bucket}: did not find {target.key}, which exists")

    async def head_object(self, target: Target) -> ObjectHead | None:
        """See `objects.head_object`."""
        return await head_object(self._calls, target)

    async def abort_leftovers(self, bucket: str, prefix: str, export_id: str, keep: str | None = None) -> int:
        """Aborts the uploads that a killed worker left open: those under a prefix whose key contains the export's id.

        No upload of this export may be running. Uploads whose keys do not contain the id are not aborted, since they
        may belong to other exports.

        Args:
            keep: Id of the upload that will be resumed.

        Returns:
            The number of aborted uploads.

        Raises:
            StorageError: S3 refused a call or did not answer.
        """
        aborted = 0
        for upload in await self.uploads(bucket, prefix):
            if export_id in upload.key and upload.upload_id != keep:
                await self.abort(bucket, upload)
                aborted += 1
        return aborted

    async def uploads(self, bucket: str, prefix: str) -> list[IncompleteUpload]:
        """Returns every open upload under a prefix.

        Raises:
            StorageError: S3 refused the call or did not answer.
        """
        found: list[IncompleteUpload] = []
        page = {"Bucket": bucket, "Prefix": prefix}
        with storage_errors(LIST, bucket):
            while True:
                response = await self._list_uploads(page)
                found += map(_incomplete_upload, response.get("Uploads", []))
                if not response.get("IsTruncated"):
                    return found
                key, upload_id = response.get("NextKeyMarker"), response.get("NextUploadIdMarker") or ""
                page |= _next_page(page, KeyMarker=key, UploadIdMarker=upload_id)

    async def _list_uploads(self, page: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._calls.call(LIST, page)
        except ClientError as error:
            if code_of(error) != "NoSuchUpload":
                raise
            return {}  # rclone answers so if the bucket has no open upload

    async def abort(self, bucket: str, upload: IncompleteUpload) -> None:
        """Deletes an upload and its parts. Raises what `MultipartUpload.abort` raises."""
        target = Target(bucket, upload.key, "", "")
        await MultipartUpload(self._calls, target, upload.upload_id, CHECKSUM_MODES[0]).abort()


def _next_page(page: dict[str, Any], **markers: Any) -> dict[str, Any]:
    """Returns the arguments of the next page.

    Raises:
        StorageError: The store repeated the last marker or gave none, so the listing would never end.
    """
    if all(page.get(name) == marker for name, marker in markers.items()) or None in markers.values():
        raise StorageError(f"bucket {page['Bucket']}: a listing is incomplete, and the store gave no new marker for it")
    return markers


def _incomplete_upload(item: dict[str, Any]) -> IncompleteUpload:
    return IncompleteUpload(item["Key"], item["UploadId"], item["Initiated"])


def _listed_part(item: dict[str, Any]) -> ListedPart:
    checksum = next(iter(checksums_in(item).values()), None)
    return ListedPart(item["PartNumber"], item["Size"], item["ETag"], checksum)

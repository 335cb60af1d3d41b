"""Writes an object only if its key is free. Adopts or replaces an object of the same export.

S3 checks with the write whether the key is free (`If-None-Match`). On a store that refuses this condition, the worker
asks for the object first. Between the two calls, another export could write it. So this is done only for a key that
contains the id of the export, and no other export writes it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from botocore.exceptions import ClientError

from export_worker.errors import IntegrityError, StorageError, StorageRefusedError
from export_worker.s3.calls import COMPLETE, S3Calls, storage_errors
from export_worker.s3.checksum_modes import ObjectContent, checksums_in
from export_worker.s3.checksums import Algorithm, Checksum
from export_worker.s3.errors import code_of, may_lack_support, status_of
from export_worker.s3.objects import ObjectHead, Target, Written, delete_own_object, head_object, unquoted
from export_worker.s3.threads import run_in_thread

RACE_PAUSES_S = (0.2, 0.5, 1.0)
"""Waits between attempts while another writer uses the same key."""

COPY = "copy_object"
IF_FREE = {"IfNoneMatch": "*"}
"""The condition that the key is free."""
UNCONDITIONAL: dict[str, str] = {}

Write = Callable[[dict[str, str]], Awaitable[dict[str, Any]]]
"""Makes the call that writes the object, with a condition; returns its response."""


class CreateOnlyWrite:
    """Writes one object under a key that must be free.

    If the key is taken, the result depends on the object under it. An equal object of the same export is adopted. A
    different object of the same export is deleted, and the call is repeated. An object of another export is an error.

    Args:
        target: Key and metadata of the object.
        size_bytes: Size of the object.
        conditionally: The call has the condition that the key is free, if the store supports it. Without it, the worker
            asks for the object first, which is safe only if the key contains the id of the export.
    """

    def __init__(self, calls: S3Calls, target: Target, size_bytes: int, *, conditionally: bool = True) -> None:
        self._conditionally = conditionally
        self._calls = calls
        self._target = target
        self._size_bytes = size_bytes

    async def run(self, operation: str, write: Write, content: ObjectContent) -> Written:
        """Makes the call until the object is written or adopted.

        Args:
            operation: Name of the call, for errors.
            write: Makes the call.
            content: The bytes; their checksum must be known when the call returns.

        Raises:
            ObjectExistsError: The key belongs to another export.
            IntegrityError: S3 stored other bytes. The object is deleted, or else the next attempt replaces it.
            StorageError: S3 refused a call or did not answer.
        """
        for pause_s in RACE_PAUSES_S:
            with storage_errors(operation, self._target.bucket):
                response = await self._response_if_free(operation, write)
            if response is not None:
                await self._verify_checksum(response, content)
                etag = unquoted(response.get("ETag", ""))
                if operation in {COMPLETE, COPY}:
                    etag = await self._verified_etag(etag, content)
                return Written(etag, self._size_bytes, content.checksum)
            head = await head_object(self._calls, self._target)
            if head is None:
                await asyncio.sleep(pause_s)
            elif self._target.keeps_existing or await self._is_equal(head, content):
                checksum = _comparable_checksum(head.checksums, content) or content.checksum
                return Written(head.etag, self._size_bytes, checksum, adopted=True)
            else:
                await delete_own_object(self._calls, self._target, head.etag)
        raise StorageError(
            f"{operation} on bucket {self._target.bucket}: another writer keeps changing {self._target.key}"
        )

    async def _response_if_free(self, operation: str, write: Write) -> dict[str, Any] | None:
        """Makes the call. Returns None if the key is taken, or may be."""
        is_own_key = self._target.export_id in self._target.key
        if is_own_key and not (self._conditionally and self._calls.creates_conditionally):
            return await self._response_if_absent(operation, write)
        try:
            return await write(IF_FREE)
        except ClientError as error:
            if _may_be_taken(operation, error):
                return None
            if not may_lack_support(error) or not is_own_key:
                raise
            refusal = error
        try:
            response = await self._response_if_absent(operation, write)
        except StorageRefusedError:
            raise refusal from None
        # The success proves that the condition was the reason of the refusal.
        self._calls.creates_conditionally = response is None
        return response

    async def _response_if_absent(self, operation: str, write: Write) -> dict[str, Any] | None:
        """Makes the call without a condition, if there is no object. Returns None if there is one, or may be."""
        if await head_object(self._calls, self._target) is not None:
            return None
        try:
            return await write(UNCONDITIONAL)
        except ClientError as error:
            if _may_be_taken(operation, error):
                return None
            raise

    async def _is_equal(self, head: ObjectHead, content: ObjectContent) -> bool:
        """Whether an existing object certainly has the same bytes.

        The size must be equal, and so must the checksum. If the store returns no checksum, the object must come from
        this very upload. The bytes of uploaded parts are no longer in memory. If the store's checksum is of another
        algorithm than the worker's, the two cannot be compared, and the object counts as different.
        """
        if head.bytes != self._size_bytes:
            return False
        if not head.checksums:
            return head.token is not None and head.token == self._target.token
        return await self._agrees(head.checksums, content) is True

    async def _verify_checksum(self, response: dict[str, Any], content: ObjectContent) -> None:
        stored = checksums_in(response)
        if await self._agrees(stored, content) is False:
            checksum = _comparable_checksum(stored, content)
            await self._discard(
                unquoted(response.get("ETag", "")), f"S3 stored {checksum}, but the worker sent {content.checksum}"
            )

    async def _verified_etag(self, etag: str, content: ObjectContent) -> str:
        """Asks the store for the object that it has made of the parts, and returns its ETag.

        Some stores lose parts, or make an empty object, and answer that all is well. Others return the ETag only here.

        Args:
            etag: As the store returned it for the upload; empty if it returned none.
        """
        head = await head_object(self._calls, self._target)
        if head is None:
            raise IntegrityError(f"{self._uri}: S3 completed the upload, but there is no object")
        if head.bytes != self._size_bytes:
            await self._discard(head.etag, f"S3 stored {head.bytes} bytes, but the worker sent {self._size_bytes}")
        if _differ(etag, head.etag):
            await self._discard(
                head.etag, f"S3 returned the ETag {etag} for the upload, and {head.etag} for the object"
            )
        if await self._agrees(head.checksums, content) is False:
            checksum = _comparable_checksum(head.checksums, content)
            await self._discard(head.etag, f"S3 stored {checksum}, but the worker sent {content.checksum}")
        return head.etag or etag

    async def _discard(self, etag: str, reason: str) -> NoReturn:
        with suppress(StorageError):  # the next attempt replaces the object; the error below matters more
            await delete_own_object(self._calls, self._target, etag)
        raise IntegrityError(f"{self._uri}: {reason}")

    @property
    def _uri(self) -> str:
        return f"s3://{self._target.bucket}/{self._target.key}"

    async def _agrees(self, stored: dict[Algorithm, Checksum], content: ObjectContent) -> bool | None:
        """Whether the store's checksum is that of the content. Returns None if there is none that can be compared."""
        checksum, own = _comparable_checksum(stored, content), content.checksum
        if checksum is None:
            return None
        if checksum.algorithm == own.algorithm:
            return checksum == own
        other = await run_in_thread(self._calls.executor, partial(content.checksum_by, checksum.algorithm))
        return None if other is None else checksum == other


def _may_be_taken(operation: str, error: ClientError) -> bool:
    # An upload that does not exist may have been completed by a call whose response was lost.
    return status_of(error) in {409, 412} or (operation == COMPLETE and code_of(error) == "NoSuchUpload")


def _comparable_checksum(stored: dict[Algorithm, Checksum], content: ObjectContent) -> Checksum | None:
    """Returns the store's checksum by the content's own algorithm, or else the first one, if there is any."""
    return stored.get(content.checksum.algorithm) or next(iter(stored.values()), None)


def _differ(uploaded: str, found: str) -> bool:
    """Whether two ETags are of different objects.

    Only ETags of one form can be compared. rclone returns a digest of the parts' digests, with their number behind a
    hyphen, for the upload, and a digest of the bytes for the object.
    """
    is_comparable = bool(uploaded and found) and ("-" in uploaded) == ("-" in found)
    return is_comparable and uploaded != found

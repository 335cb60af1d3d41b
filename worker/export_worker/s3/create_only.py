"""Writes an object only if its key is free."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from export_worker.errors import IntegrityError, StorageError
from export_worker.s3.calls import COMPLETE, S3Calls, translated
from export_worker.s3.checksum_modes import Content, checksums_in
from export_worker.s3.checksums import Algorithm, Checksum
from export_worker.s3.errors import code_of, status_of
from export_worker.s3.objects import ObjectHead, Target, Written, delete_ours, head_object, unquoted
from export_worker.s3.threads import run_in_thread

RACE_PAUSES_S = (0.2, 0.5, 1.0)
"""Between looks at a key that another writer is busy with."""


Write = Callable[[], Awaitable[dict[str, Any]]]


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
            head = await head_object(self._calls, self._target)
            if head is None:
                await asyncio.sleep(pause_s)
            elif await self._equals(head, content):
                checksum = _own_or_first(head.checksums, content) or content.checksum
                return Written(head.etag, self._size_bytes, checksum, adopted=True)
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

    async def _equals(self, head: ObjectHead, content: Content) -> bool:
        """Same size, and proof: the same checksum, or where the store tells none, that it came by this very upload.

        A checksum by another algorithm than that of parts which are gone cannot be compared: it may be of other bytes.
        """
        if head.bytes != self._size_bytes:
            return False
        if not head.checksums:
            return head.token is not None and head.token == self._target.token
        return await self._agrees(head.checksums, content) is True

    async def _confirmed(self, answer: dict[str, Any], content: Content) -> Written:
        told = checksums_in(answer)
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

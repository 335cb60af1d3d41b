"""Writes an object whose length is not known before its end, and which is complete when it appears under its key."""

from contextlib import suppress
from types import TracebackType
from typing import Self

from export_worker.errors import StorageError
from export_worker.s3.multipart import MultipartUpload, SentPart
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store

PART_BYTES = 8 * 2**20
"""One call for an hour of some ten thousand exports, and little memory for an hour of many more."""


class StreamedObject:
    """One object. It is written with one call if it is short, else as a multipart upload.

    If the block ends with an error, the upload is aborted.
    """

    def __init__(self, store: S3Store, target: Target) -> None:
        self._store = store
        self._target = target
        self._part_bytes = store.part_bytes or PART_BYTES
        self._left = bytearray()
        self._upload: MultipartUpload | None = None
        self._parts: list[SentPart] = []

    async def __aenter__(self) -> Self:
        return self

    async def write(self, data: bytes) -> None:
        """Adds bytes, and sends the parts that are complete. Raises what `S3Store.begin` raises."""
        self._left += data
        while len(self._left) > self._part_bytes:
            await self._send(bytearray(self._left[: self._part_bytes]))
            del self._left[: self._part_bytes]

    async def complete(self) -> None:
        """Writes the object, if its key is free. Raises what `S3Store.put` raises."""
        if self._upload is None:
            await self._store.put(self._target, self._left)
        else:
            await self._send(self._left)
            await self._upload.complete(self._parts)
        self._upload = None

    async def _send(self, body: bytearray) -> None:
        if self._upload is None:
            self._upload = await self._store.begin(self._target)
        self._parts.append(await self._upload.send(len(self._parts) + 1, body))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._upload is not None:
            with suppress(StorageError):  # a later run aborts it; the error of the block matters more
                await self._upload.abort()

"""The body of a call: a file, standard input, or an object in S3, read piece by piece and converted to UTF-8."""

import asyncio
import os
import re
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from export_worker.config import Config
from export_worker.contract.packed import packed_format
from export_worker.credentials import Redactor
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.platforms.arguments import BODY
from export_worker.s3.reading import StoredObject
from export_worker.transfer.transforms.base import Transcoder
from export_worker.wiring.storage import default_destination, open_check_client, per_connection_destinations

CHUNK_BYTES = 64 * 1024
"""Size of one read of a file."""
_BLANKS = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"
"""Bytes of blanks, line ends and byte order marks, in each charset."""
_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.{1,1024})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class BodyOptions:
    """What the user names.

    Args:
        name: A file, `-` for standard input, or the address of an object; None if the call has no body.
        charset: The charset of a CSV body, if it is converted to UTF-8.
    """

    name: str | None = None
    charset: str | None = None


class Source(Protocol):
    """Where the bytes come from."""

    total_bytes: int | None

    async def read(self, offset_bytes: int) -> bytes:
        """Returns the next bytes; none at the end. The offset is that of the first byte or the end of the last read."""

    async def rewind(self) -> bool:
        """Prepares for a read at offset 0. Returns False if the source cannot be read twice."""


class FileSource:
    """A file or a pipe. The length of a file is known, and a file can be read twice."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        about = os.fstat(file.fileno())
        self._start = file.seek(0, os.SEEK_CUR) if stat.S_ISREG(about.st_mode) else None
        self.total_bytes = None if self._start is None else max(0, about.st_size - self._start)

    def read_now(self, limit_bytes: int) -> bytes:
        """Returns the first bytes. Blocks the event loop, so that Ctrl-C can interrupt a read of the terminal."""
        return self._file.read(limit_bytes)

    async def read(self, offset_bytes: int) -> bytes:  # noqa: ARG002 - the file has its own position
        """See `Source`."""
        return await asyncio.to_thread(self._file.read, CHUNK_BYTES)

    async def rewind(self) -> bool:
        """See `Source`."""
        if self._start is None:
            return False
        self._file.seek(self._start)
        return True


class StoredSource:
    """An object in S3."""

    def __init__(self, stored: StoredObject) -> None:
        self._stored = stored
        self.total_bytes: int | None = stored.total_bytes

    async def read(self, offset_bytes: int) -> bytes:
        """See `Source`."""
        return await self._stored.read(offset_bytes)

    async def rewind(self) -> bool:
        """See `Source`."""
        return True


class CallBody:
    """The body of a call. Implements `platforms.base.Upload`.

    Args:
        source: Has the bytes.
        charset: The charset of the source, if it is converted to UTF-8. The length is not known then.

    Raises:
        TransformError: The charset is unknown.
    """

    def __init__(self, source: Source, charset: str | None = None) -> None:
        self._source = source
        self._charset = charset
        self._begin()

    def _begin(self) -> None:
        self._offset_bytes = 0
        self._transcoder = None if self._charset is None else Transcoder(self._charset, "UTF-8")
        self._peeked: bytes | None = None
        self._ended = False

    @property
    def total_bytes(self) -> int | None:
        """See `Upload`."""
        return self._source.total_bytes if self._charset is None else None

    async def is_empty(self) -> bool:
        """Returns whether the body has nothing but blanks, as far as its first chunk shows."""
        self._peeked = await self._read() if self._peeked is None else self._peeked
        return not self._peeked.strip(_BLANKS)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk, self._peeked = self._peeked, None
        chunk = await self._read() if chunk is None else chunk
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def rewind(self) -> bool:
        """See `Upload`."""
        if not await self._source.rewind():
            return False
        self._begin()
        return True

    async def _read(self) -> bytes:
        """Returns the next bytes; none at the end. A chunk that ends within a character may convert to nothing yet."""
        while not self._ended:
            data = await self._source.read(self._offset_bytes)
            if self._offset_bytes == 0:
                _refuse_packed(data)
            self._offset_bytes += len(data)
            self._ended = not data
            chunk = self._converted(data)
            if chunk:
                return chunk
        return b""

    def _converted(self, data: bytes) -> bytes:
        if self._transcoder is None:
            return data
        return self._transcoder.feed(data) if data else self._transcoder.finish()


def _refuse_packed(data: bytes) -> None:
    packed = packed_format(data)
    if packed is not None:
        raise _wrong(f"is {packed}, and no platform unpacks it; unpack it first")


def _wrong(message: str) -> InvalidRequestError:
    return InvalidRequestError([FieldProblem(BODY, message)])


@asynccontextmanager
async def open_source(config: Config, connection: str, redactor: Redactor, body: str) -> AsyncIterator[Source]:
    """Opens what `--body` names. Objects are read with the storage settings of the connection.

    Raises:
        InvalidRequestError: It does not exist, or cannot be read.
        StorageError: S3 refused the call, or did not answer.
    """
    if body.startswith("s3://"):
        bucket, key = _address(body)
        target = per_connection_destinations(config).get(connection) or default_destination(config)
        async with open_check_client(config, redactor, target.settings) as client:
            stored = await StoredObject.find(client, bucket, key)
            if stored is None:
                raise _wrong(f"there is no object {body}")
            yield StoredSource(stored)
    elif body == "-":
        if sys.stdin is None:
            raise _wrong("standard input is closed")
        yield FileSource(sys.stdin.buffer)
    else:
        with _opened(body) as file:
            yield FileSource(file)


def _address(body: str) -> tuple[str, str]:
    found = _OBJECT.fullmatch(body)
    if found is None:
        raise _wrong(f"must be like s3://bucket/key, not {body}")
    return found[1], found[2]


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise _wrong(f"cannot read {path} ({error.strerror})") from None

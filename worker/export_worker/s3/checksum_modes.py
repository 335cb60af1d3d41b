"""Which checksum a request carries, so that S3 rejects a body that was damaged on its way.

A store supports one or more modes. In order of preference: CRC64NVME, CRC32C and CRC32, each stored for the whole
object, and Content-MD5, which every store supports. MD5 costs more CPU time than all other work together, so it is the
last choice. In that mode the store keeps no checksum; the CRC that the worker reports is computed by the worker alone.

Over TLS, MD5 protects nothing that the connection does not protect. There, a request without a checksum is preferred to
one with Content-MD5, unless the setting `s3.integrity` is `always`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol

from export_worker.s3.checksums import ALGORITHMS, CRC64NVME, Algorithm, Checksum, content_md5


@dataclass(frozen=True, slots=True)
class ChecksumMode:
    """One way to protect a body.

    Args:
        algorithm: Algorithm of the checksum that the worker reports.
        by_md5: The request carries Content-MD5 in place of that checksum.
        is_plain: The request carries neither, since TLS protects it.
    """

    algorithm: Algorithm
    by_md5: bool = False
    is_plain: bool = False

    @property
    def has_crc(self) -> bool:
        """Whether the request carries the checksum."""
        return not self.by_md5 and not self.is_plain

    @property
    def md5_fallback(self) -> "ChecksumMode":
        """The mode for an open upload whose store refuses the checksums with which the upload was created."""
        return replace(self, by_md5=True, is_plain=False)

    @property
    def modes_of_upload(self) -> tuple["ChecksumMode", ...]:
        """The modes that later calls of an upload created in this mode may use: its parts accept no other CRC."""
        return tuple(dict.fromkeys((self, self.md5_fallback)))

    def checksum_argument(self, checksum: Checksum) -> dict[str, Any]:
        """Returns the argument that sends a checksum to the store; empty in a mode without a CRC."""
        return {self.algorithm.field: checksum.wire} if self.has_crc else {}

    @property
    def full_object_argument(self) -> dict[str, Any]:
        """The argument that asks for a checksum of the whole object in place of a checksum of the parts' checksums."""
        return {"ChecksumType": "FULL_OBJECT"} if self.has_crc else {}

    def create_upload_arguments(self) -> dict[str, Any]:
        """Returns the arguments with which a multipart upload is created."""
        return self.full_object_argument | {"ChecksumAlgorithm": self.algorithm.name} if self.has_crc else {}


CHECKSUM_MODES = (*map(ChecksumMode, ALGORITHMS), ChecksumMode(CRC64NVME, by_md5=True))
"""All modes, in order of preference."""


def modes_over_tls(modes: Iterable[ChecksumMode]) -> tuple[ChecksumMode, ...]:
    """Returns these modes with a mode without a checksum before each one with Content-MD5."""
    plain = ((replace(mode, by_md5=False, is_plain=True), mode) if mode.by_md5 else (mode,) for mode in modes)
    return tuple(dict.fromkeys(chain.from_iterable(plain)))


ModeArguments = Callable[[ChecksumMode], dict[str, Any]]
"""Returns the arguments that a checksum mode adds to a call."""


class ObjectContent(Protocol):
    """All bytes of one object that is written."""

    @property
    def checksum(self) -> Checksum:
        """The checksum that the worker reports."""

    def checksum_by(self, algorithm: Algorithm) -> Checksum | None:
        """Returns the checksum by another algorithm, or None if the bytes are no longer in memory.

        Uses CPU time, so it must not be called on the event loop.
        """


class RequestBody:
    """The bytes of one request, and their checksum in the mode of the last attempt.

    Both methods use CPU time, so they must not be called on the event loop.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        self._checksum: Checksum | None = None

    @property
    def checksum(self) -> Checksum:
        """See `ObjectContent`. Before the first attempt, it is computed here: a millisecond for 8 MiB."""
        self._checksum = self._checksum or Checksum.of(self.data)
        return self._checksum

    def arguments(self, mode: ChecksumMode) -> dict[str, Any]:
        """Returns the arguments of a call that sends these bytes in a checksum mode."""
        checksum = self._checksum = Checksum.of(self.data, mode.algorithm)
        md5 = {"ContentMD5": content_md5(self.data)} if mode.by_md5 else {}
        return {"Body": self.data} | md5 | mode.checksum_argument(checksum)

    def checksum_by(self, algorithm: Algorithm) -> Checksum:
        """See `ObjectContent`."""
        return Checksum.of(self.data, algorithm)


@dataclass(frozen=True, slots=True)
class UploadedParts:
    """The content of parts that have been uploaded; their bytes are no longer in memory."""

    checksum: Checksum

    def checksum_by(self, algorithm: Algorithm) -> Checksum | None:
        """See `ObjectContent`."""
        return self.checksum if self.checksum.algorithm == algorithm else None


def checksums_in(response: dict[str, Any]) -> dict[Algorithm, Checksum]:
    """Returns the checksums in a response about a whole object or a part. Composite checksums are ignored."""
    if response.get("ChecksumType") == "COMPOSITE":
        return {}
    found = (
        Checksum.parse(algorithm, response[algorithm.field])
        for algorithm in ALGORITHMS
        if response.get(algorithm.field)
    )
    return {checksum.algorithm: checksum for checksum in found if checksum is not None}

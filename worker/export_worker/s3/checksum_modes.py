"""What goes along with a body, so that the store refuses it when it came damaged.

A store takes the best of these: CRC64NVME, CRC32C, CRC32, each kept over the whole object, and Content-MD5, which every
store has always known. It costs more than everything else together, so it stands last; the checksum that we report is
then ours alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from export_worker.s3.checksums import ALGORITHMS, CRC64NVME, Algorithm, Checksum, content_md5


@dataclass(frozen=True, slots=True)
class ChecksumMode:
    """One way.

    Args:
        algorithm: Of the checksum that we report.
        by_md5: It is not sent; Content-MD5 is.
    """

    algorithm: Algorithm
    by_md5: bool = False

    @property
    def weakest(self) -> "ChecksumMode":
        """What is left to an upload when the store does not take the checksums with which it was begun."""
        return replace(self, by_md5=True)

    def named(self, checksum: Checksum) -> dict[str, Any]:
        """The field that tells a checksum to the store; none where MD5 stands in its place."""
        return {} if self.by_md5 else {self.algorithm.field: checksum.wire}

    @property
    def of_upload(self) -> tuple["ChecksumMode", ...]:
        """What calls of an upload may have that was begun with this one: no other CRC fits its parts."""
        return tuple(dict.fromkeys((self, self.weakest)))


CHECKSUM_MODES = (*map(ChecksumMode, ALGORITHMS), ChecksumMode(CRC64NVME, by_md5=True))
Fields = Callable[[ChecksumMode], dict[str, Any]]


class Content(Protocol):
    """All bytes of one object that is written."""

    @property
    def checksum(self) -> Checksum:
        """The one that we report."""

    def by(self, algorithm: Algorithm) -> Checksum | None:
        """Another one; None where the bytes are not at hand any more. Computes: not for the event loop."""


class Body:
    """The bytes of one call, with the checksum that was asked of them last. Computes: not for the event loop."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        self.checksum = Checksum(CRC64NVME)

    def fields(self, mode: ChecksumMode) -> dict[str, Any]:
        """The fields of a call that sends them."""
        self.checksum = Checksum.of(self.data, mode.algorithm)
        md5 = {"ContentMD5": content_md5(self.data)} if mode.by_md5 else {}
        return {"Body": self.data} | md5 | mode.named(self.checksum)

    def by(self, algorithm: Algorithm) -> Checksum:
        """See `Content`."""
        return Checksum.of(self.data, algorithm)


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts that have been sent."""

    checksum: Checksum

    def by(self, algorithm: Algorithm) -> Checksum | None:
        """See `Content`."""
        return self.checksum if self.checksum.algorithm == algorithm else None


def whole(mode: ChecksumMode) -> dict[str, Any]:
    """The fields that make a checksum one of the whole object, not one of the parts' checksums."""
    return {} if mode.by_md5 else {"ChecksumType": "FULL_OBJECT"}


def beginning(mode: ChecksumMode) -> dict[str, Any]:
    """The fields with which an upload is begun."""
    return {} if mode.by_md5 else whole(mode) | {"ChecksumAlgorithm": mode.algorithm.name}


def checksums_in(answer: dict[str, Any]) -> dict[Algorithm, Checksum]:
    """What an answer tells of the whole object, or of a part."""
    if answer.get("ChecksumType") == "COMPOSITE":
        return {}
    found = (
        Checksum.parse(algorithm, answer[algorithm.field]) for algorithm in ALGORITHMS if answer.get(algorithm.field)
    )
    return {checksum.algorithm: checksum for checksum in found if checksum is not None}

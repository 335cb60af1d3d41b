"""The checksums that S3 can store for a whole object, even one that was uploaded in parts. Hardware computes them."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5
from typing import Self

from awscrt import checksums

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A CRC whose values for consecutive pieces can be combined.

    Args:
        name: The name that S3 uses.
        size_bytes: Size of one checksum value.
        crc: Returns the CRC of some bytes, given the CRC of the bytes before them (0 at the start).
        combine: Returns the CRC of two pieces from the CRC of each and the length of the second.
    """

    name: str
    size_bytes: int
    crc: Callable[[Bytes, int], int]
    combine: Callable[[int, int, int], int]

    @property
    def field(self) -> str:
        """The name of the checksum's argument in boto3's calls and responses."""
        return f"Checksum{self.name}"


CRC64NVME = Algorithm("CRC64NVME", 8, checksums.crc64nvme, checksums.combine_crc64nvme)
CRC32C = Algorithm("CRC32C", 4, checksums.crc32c, checksums.combine_crc32c)
CRC32 = Algorithm("CRC32", 4, checksums.crc32, checksums.combine_crc32)
ALGORITHMS = (CRC64NVME, CRC32C, CRC32)
"""In order of preference: AWS computes the first one by default; stores have supported the last one for longest."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """The value of one algorithm for some bytes."""

    algorithm: Algorithm
    value: int = 0

    @classmethod
    def of(cls, data: Bytes, algorithm: Algorithm = CRC64NVME) -> Self:
        """Computes the checksum of some bytes; 8 MiB take a millisecond."""
        return cls(algorithm, algorithm.crc(data, 0))

    @classmethod
    def parse(cls, algorithm: Algorithm, wire: str) -> Self | None:
        """Reads a checksum from S3's text form; None for any other text, such as a checksum of checksums (`…-3`)."""
        try:
            raw = b64decode(wire, validate=True)
        except Base64Error:
            return None
        return cls(algorithm, int.from_bytes(raw, "big")) if len(raw) == algorithm.size_bytes else None

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Reads the form in manifests and status documents; None for any other text."""
        name, _, wire = text.partition(":")
        algorithm = next((algorithm for algorithm in ALGORITHMS if algorithm.name == name), None)
        return None if algorithm is None else cls.parse(algorithm, wire)

    def over(self, data: Bytes) -> Self:
        """Returns the checksum of all bytes so far, followed by these."""
        return type(self)(self.algorithm, self.algorithm.crc(data, self.value))

    def followed_by(self, second: "Checksum", second_bytes: int) -> Self:
        """Returns the checksum of two consecutive pieces from the checksum of each; no byte is read again."""
        return type(self)(self.algorithm, self.algorithm.combine(self.value, second.value, second_bytes))

    @property
    def wire(self) -> str:
        """S3's text form, as in headers: big-endian, in base64."""
        return b64encode(self.value.to_bytes(self.algorithm.size_bytes, "big")).decode("ascii")

    def __str__(self) -> str:
        """The form in manifests and status documents, such as `CRC64NVME:` followed by S3's text form."""
        return f"{self.algorithm.name}:{self.wire}"


def content_md5(data: Bytes) -> str:
    """Returns the value of `Content-MD5`, by which S3 rejects a damaged body. MD5 takes two CPU seconds a GiB."""
    return b64encode(md5(data, usedforsecurity=False).digest()).decode("ascii")

"""The checksums that S3 can keep of a whole object, also of one that came in parts; each in hardware (awscrt)."""

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
    """A CRC of which pieces can be combined.

    Args:
        name: As S3 writes it.
        size_bytes: Of a value.
        crc: Of some bytes, going on from the CRC of those before (0 at the start).
        combine: The CRC of two pieces from the CRC of each and the length of the second.
    """

    name: str
    size_bytes: int
    crc: Callable[[Bytes, int], int]
    combine: Callable[[int, int, int], int]

    @property
    def field(self) -> str:
        """Of boto3's calls and answers."""
        return f"Checksum{self.name}"


CRC64NVME = Algorithm("CRC64NVME", 8, checksums.crc64nvme, checksums.combine_crc64nvme)
CRC32C = Algorithm("CRC32C", 4, checksums.crc32c, checksums.combine_crc32c)
CRC32 = Algorithm("CRC32", 4, checksums.crc32, checksums.combine_crc32)
ALGORITHMS = (CRC64NVME, CRC32C, CRC32)
"""The best first: the first one is what AWS keeps by itself, the last one what is known longest."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What an algorithm says of some bytes."""

    algorithm: Algorithm
    value: int = 0

    @classmethod
    def of(cls, data: Bytes, algorithm: Algorithm = CRC64NVME) -> Self:
        """Computed; 8 MiB take a millisecond."""
        return cls(algorithm, algorithm.crc(data, 0))

    @classmethod
    def parse(cls, algorithm: Algorithm, wire: str) -> Self | None:
        """From its wire form; None when it is none, as that of a checksum of checksums (`…-3`)."""
        try:
            raw = b64decode(wire, validate=True)
        except Base64Error:
            return None
        return cls(algorithm, int.from_bytes(raw, "big")) if len(raw) == algorithm.size_bytes else None

    def over(self, data: Bytes) -> Self:
        """Of all bytes so far and these behind them."""
        return type(self)(self.algorithm, self.algorithm.crc(data, self.value))

    def followed_by(self, second: "Checksum", second_bytes: int) -> Self:
        """Of two pieces one after the other, from the checksum of each: nothing is read again."""
        return type(self)(self.algorithm, self.algorithm.combine(self.value, second.value, second_bytes))

    @property
    def wire(self) -> str:
        """As S3 writes it in headers: big-endian, in base64."""
        return b64encode(self.value.to_bytes(self.algorithm.size_bytes, "big")).decode("ascii")

    def __str__(self) -> str:
        """As our documents write it, such as `CRC64NVME:` and the wire form."""
        return f"{self.algorithm.name}:{self.wire}"


def content_md5(data: Bytes) -> str:
    """The header `Content-MD5`: a store refuses a body that does not fit. Two processor seconds a GiB."""
    return b64encode(md5(data, usedforsecurity=False).digest()).decode("ascii")

"""CRC64NVME, the checksum that S3 can keep of a whole object, also of one that came in parts."""

from base64 import b64decode, b64encode

from awscrt import checksums

ALGORITHM = "CRC64NVME"

Bytes = bytes | bytearray | memoryview


def crc_of(data: Bytes, before: int = 0) -> int:
    """The CRC64NVME of `data`, or of all bytes up to its end when the CRC of those before is given."""
    crc: int = checksums.crc64nvme(data, before)
    return crc


def combined(first: int, second: int, second_bytes: int) -> int:
    """The CRC of two pieces one after the other, from the CRC of each: nothing is read again."""
    crc: int = checksums.combine_crc64nvme(first, second, second_bytes)
    return crc


def wire_form(crc: int) -> str:
    """As S3 writes it in headers: eight bytes, big-endian, in base64."""
    return b64encode(crc.to_bytes(8, "big")).decode("ascii")


def from_wire(text: str) -> int:
    """The number of a wire form."""
    return int.from_bytes(b64decode(text), "big")


def named_form(crc: int) -> str:
    """As our documents write it: `CRC64NVME:` and the wire form."""
    return f"{ALGORITHM}:{wire_form(crc)}"

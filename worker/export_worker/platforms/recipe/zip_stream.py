"""Reads a zip archive from its beginning, piece by piece: nothing is held but the head of the current member. Pure.

The directory at the end of an archive is not needed: each member has a head of its own (APPNOTE.TXT, 4.3.7). A member
whose length is stated only behind it must be deflated, because deflated data shows its own end.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from export_worker.platforms.http.codings import CodingError, inflated

MEMBERS_MAX = 10_000
"""An archive with more members is no result of an export."""
_HEAD = struct.Struct("<4s5H3I2H")
_MEMBER, _DIRECTORY_MARKS = b"PK\x03\x04", (b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06")
_TRAILER_MARK = b"PK\x07\x08"
_ENCRYPTED, _LENGTH_FOLLOWS = 0x0001, 0x0008
_STORED, _DEFLATED = 0, 8
_IN_EXTRA = 0xFFFFFFFF
_ZIP64 = 1
_RAW_WBITS = -15
_PIECE_BYTES = 256 * 1024
_SLICE_BYTES = 16 * 1024


@dataclass(slots=True)
class Member:
    """One file of the archive. `size` is None if it is stated behind the data."""

    name: str
    method: int
    packed_size: int | None
    crc: int
    length_follows: bool
    done_packed: int = 0
    done: int = 0
    found_crc: int = 0
    stream: "zlib._Decompress" = field(default_factory=lambda: zlib.decompressobj(_RAW_WBITS))

    @property
    def is_file(self) -> bool:
        """Whether it is a file of the export, and no folder and no note of a program."""
        return not self.name.endswith("/") and not self.name.startswith("__MACOSX/")


class ZipStream:
    """Unpacks the members of an archive one after the other."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._member: Member | None = None
        self._members = 0
        self._has_ended = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yields the content of files in bounded pieces, and None at the end of each file.

        Raises:
            CodingError: The archive is not valid, or has something that is not supported.
        """
        if self._has_ended:
            return
        self._buffer += data
        while not self._has_ended:
            if self._member is None:
                self._member = self._next_member()
                if self._member is None:
                    return
            yield from self._content(self._member)
            if not self._is_whole(self._member) or not self._checked(self._member):
                return
            if self._member.is_file:
                yield None
            self._member = None

    def finish(self) -> None:
        """Checks that the archive was whole. Raises CodingError if it was not."""
        if not self._has_ended:
            raise CodingError("its zip archive is cut")

    def _next_member(self) -> Member | None:
        """Returns the next member; None if its head has not arrived yet, or if there is none."""
        mark = bytes(self._buffer[:4])
        if mark in _DIRECTORY_MARKS:
            self._has_ended = True
            self._buffer.clear()
            return None
        if len(self._buffer) < _HEAD.size:
            return None
        _, _, flags, method, _, _, crc, packed, size, name_size, extra_size = _HEAD.unpack_from(self._buffer)
        end = _HEAD.size + name_size + extra_size
        if mark != _MEMBER:
            raise CodingError("its zip archive is not valid")
        if len(self._buffer) < end:
            return None
        name = bytes(self._buffer[_HEAD.size : _HEAD.size + name_size]).decode("utf-8", "replace")
        extra = bytes(self._buffer[_HEAD.size + name_size : end])
        del self._buffer[:end]
        follows = bool(flags & _LENGTH_FOLLOWS)
        self._count(flags, method)
        if _IN_EXTRA in (packed, size):
            packed = _packed_size_in(extra, packed, size)
        if follows and method == _STORED and not name.endswith("/"):
            raise CodingError("its zip archive has a member that is neither deflated nor of stated length")
        return Member(name, method, None if follows else packed, crc, follows)

    def _count(self, flags: int, method: int) -> None:
        self._members += 1
        if self._members > MEMBERS_MAX:
            raise CodingError(f"its zip archive has more than {MEMBERS_MAX} members")
        if flags & _ENCRYPTED:
            raise CodingError("its zip archive is encrypted")
        if method not in {_STORED, _DEFLATED}:
            raise CodingError(f"its zip archive is packed with method {method}; only deflate is supported")

    def _content(self, member: Member) -> Iterator[bytes]:
        pieces = self._stored(member) if member.method == _STORED else self._deflated(member)
        for piece in pieces:
            member.done += len(piece)
            member.found_crc = zlib.crc32(piece, member.found_crc)
            if member.is_file:
                yield piece

    def _stored(self, member: Member) -> Iterator[bytes]:
        left = (member.packed_size or 0) - member.done_packed
        taken = bytes(self._buffer[:left])
        del self._buffer[: len(taken)]
        member.done_packed += len(taken)
        for start in range(0, len(taken), _PIECE_BYTES):
            yield taken[start : start + _PIECE_BYTES]

    def _deflated(self, member: Member) -> Iterator[bytes]:
        while self._buffer and not member.stream.eof:
            # Small slices: each member copies its slice, and an archive can have thousands in one piece.
            packed = bytes(self._buffer[:_SLICE_BYTES])
            yield from inflated(member.stream, packed)
            used_bytes = len(packed) - len(member.stream.unused_data)
            del self._buffer[:used_bytes]
            member.done_packed += used_bytes

    def _is_whole(self, member: Member) -> bool:
        if member.method == _DEFLATED:
            return member.stream.eof
        return member.done_packed == (member.packed_size or 0)

    def _checked(self, member: Member) -> bool:
        """Checks a member whose data has ended. Returns False if what follows the data has not arrived yet."""
        if member.length_follows and not self._read_trailer(member):
            return False
        if member.crc != member.found_crc:
            raise CodingError("its zip archive has a member with a wrong checksum")
        if member.packed_size not in {None, member.done_packed}:
            raise CodingError("its zip archive has a member of another length than stated")
        return True

    def _read_trailer(self, member: Member) -> bool:
        """Reads the checksum and the lengths behind a member. They have 4 or 8 bytes each, and may have a mark."""
        start = 4 if self._buffer[:4] == _TRAILER_MARK else 0
        # A checksum may equal the mark; it is then followed by lengths that do not fit.
        if len(self._buffer) < start + 20 and not self._ends_short(start):
            return False
        member.crc = int.from_bytes(self._buffer[start : start + 4], "little")
        for width in (4, 8):
            lengths = self._buffer[start + 4 : start + 4 + 2 * width]
            packed, size = (int.from_bytes(lengths[i : i + width], "little") for i in (0, width))
            if (packed, size) == (member.done_packed, member.done):
                del self._buffer[: start + 4 + 2 * width]
                return True
        raise CodingError("its zip archive has a member of another length than stated")

    def _ends_short(self, start: int) -> bool:
        """Whether a trailer of the short form and the next mark have arrived, which is all that must follow it."""
        return bytes(self._buffer[start + 12 : start + 16]) in {_MEMBER, *_DIRECTORY_MARKS}


def _packed_size_in(extra: bytes, packed: int, size: int) -> int:
    """Returns the packed size of a large member, which is in the extra field (APPNOTE.TXT, 4.5.3)."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == _ZIP64:
            start = position + 4 + (8 if size == _IN_EXTRA else 0)
            return int.from_bytes(extra[start : start + 8], "little") if packed == _IN_EXTRA else packed
        position += 4 + length
    return packed

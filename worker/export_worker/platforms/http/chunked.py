"""Separates the bytes of a chunked body from its framing (RFC 9112, 7.1). Pure: no I/O.

aiohttp's parser makes an object of each piece and copies it. Here the body is moved within the buffer into which it was
received, so most bytes of large chunks stay where they are.
"""

import re

LINE_MAX_BYTES = 4096
"""Longest line of the framing. A chunk's size has few digits; extensions without a meaning here may follow."""
TRAILER_MAX_BYTES = 16 * 1024
"""All fields behind the body together."""
_NEXT_CHUNK = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})\r\n")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n")
_BREAK = b"\r\n"


class FramingError(ValueError):
    """The bytes are no chunked body. The message never quotes them."""


class ChunkedFraming:
    """The position in one chunked body.

    Attributes:
        left_bytes: Bytes of the current chunk that have not been received. A server may announce any number.
        is_complete: The last chunk and the fields behind it were received. All further bytes are ignored.
    """

    def __init__(self) -> None:
        self.left_bytes = 0
        self.is_complete = False
        self._is_after_chunk = False
        self._is_in_trailer = False
        self._trailer_bytes = 0
        self._line = b""

    def strip(self, data: memoryview) -> int:
        """Moves the bytes of the body to the start of the data. Returns their number.

        Args:
            data: The bytes that follow those of the last call.

        Raises:
            FramingError: They are no chunked body.
        """
        kept, at, end = 0, 0, len(data)
        while at < end and not self.is_complete:
            count = min(self.left_bytes, end - at)
            if not count:
                at = self._skip_framing(data, at)
                continue
            if kept != at:
                data[kept : kept + count] = data[at : at + count]
            kept, at = kept + count, at + count
            self.left_bytes -= count
            self._is_after_chunk = not self.left_bytes
        return kept

    def _skip_framing(self, data: memoryview, at: int) -> int:
        """Reads what stands between two chunks, or a line of it. Returns the position behind it."""
        if self._is_after_chunk and not self._line and (found := _NEXT_CHUNK.match(data, at)):
            self._begin_chunk(found[1])
            return found.end()
        piece = bytes(data[at : at + LINE_MAX_BYTES])
        length = piece.find(b"\n") + 1
        self._line += piece[:length] if length else piece
        if len(self._line) > LINE_MAX_BYTES:
            raise FramingError("a line of its chunked framing is too long")
        if length:
            line, self._line = self._line, b""
            self._read_line(line)
        return at + (length or len(piece))

    def _read_line(self, line: bytes) -> None:
        if self._is_in_trailer:
            self._read_field(line)
        elif self._is_after_chunk:
            self._is_after_chunk = False
            if line != _BREAK:
                raise FramingError("a chunk is longer than its size")
        elif size := _SIZE.fullmatch(line):
            self._begin_chunk(size[1])
        else:
            raise FramingError("the size of a chunk is invalid")

    def _begin_chunk(self, size: bytes) -> None:
        self._is_after_chunk = False
        self.left_bytes = int(size, 16)
        self._is_in_trailer = not self.left_bytes

    def _read_field(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        self.is_complete = line == _BREAK
        if not self.is_complete and (self._trailer_bytes > TRAILER_MAX_BYTES or not _FIELD.fullmatch(line)):
            raise FramingError("the fields behind its last chunk are invalid or too long")

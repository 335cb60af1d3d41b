"""Joins texts that are files of their own into one: each ends with a line end, and has its header once. Pure."""

from codecs import BOM_UTF8

HEADER_MAX_BYTES = 256 * 1024
"""Longest header that is recognized. A thousand columns with long names need less."""


def first_record(text: bytes) -> bytes:
    """Returns the first record of CSV with its line end. A line end within quotes does not end it."""
    position = quotes = 0
    while True:
        end = text.find(b"\n", position)
        if end < 0:
            return text
        quotes += text.count(b'"', position, end)
        if quotes % 2 == 0:
            return text[: end + 1]
        position = end + 1


def count_records(text: bytes) -> int:
    """Returns how many records of CSV end in a text. Line ends within quotes do not end one."""
    return sum(part.count(b"\n") for part in text.split(b'"')[::2])


class Joiner:
    """Receives the pieces of one text after the other, and returns what becomes part of the joined text.

    Args:
        has_header: Each text begins with a header, which is CSV's. An equal header of a later text is left out.
    """

    def __init__(self, *, has_header: bool) -> None:
        self._has_header = has_header
        self._header: bytes | None = None
        self._beginning: bytearray | None = bytearray() if has_header else None
        self._ends_line = True

    def feed(self, piece: bytes) -> bytes:
        """Returns the next bytes of the joined text."""
        if self._beginning is None:
            return self._passed(piece)
        self._beginning += piece
        found = first_record(bytes(self._beginning))
        if not found.endswith(b"\n") and len(self._beginning) <= HEADER_MAX_BYTES:
            return b""
        return self._passed(self._without_header(found))

    def end_text(self) -> bytes:
        """Ends the current text. Returns the rest of it, with a line end if it has none."""
        rest = b""
        if self._beginning:
            rest = self._passed(self._without_header(bytes(self._beginning)))
        if self._has_header:
            self._beginning = bytearray()
        if self._ends_line:
            return rest
        self._ends_line = True
        return rest + b"\n"

    def _without_header(self, first: bytes) -> bytes:
        """Returns the beginning of a text, without its header if an earlier text has had the same."""
        beginning, self._beginning = bytes(self._beginning or b""), None
        header = first.removeprefix(BOM_UTF8).strip()
        if self._header is None:
            self._header = header
            return beginning
        return beginning[len(first) :] if header == self._header else beginning

    def _passed(self, piece: bytes) -> bytes:
        if piece:
            self._ends_line = piece.endswith(b"\n")
        return piece

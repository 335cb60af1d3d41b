"""Counts the rows of a table while it streams past, by searches over whole pieces: no loop over characters or rows.

A row is a record: a CSV line that is not empty, with what its quoted fields hold, line ends included; or a line of
NDJSON that is not blank. The header line of a CSV is one of them: nothing in a file tells whether there is one. A row
counts when it begins, so the last one needs no line end.
"""

import codecs
import re
from pathlib import PurePosixPath
from typing import Protocol

from export_worker.contract.charsets import charset_codec
from export_worker.errors import TransformError
from export_worker.transfer.transforms.base import Pipeline, Transcoder, Transform

_QUOTED_FIELDS = re.compile(rb'(?<![^,\r\n])"(?:[^"]++|"")*+(?:"|\Z)')
"""As Python's csv has them: a quote opens a field only at its beginning, and two of them are one inside."""
_EMPTY_LINES = re.compile(rb"\n{2,}")
_BLANK_LINES = re.compile(rb"\n[ \t\r\n]++")

_BYTE_CHARSETS = frozenset(
    ("ascii", "big5", "cp932", "cp949", "cp950", "euc_jp", "euc_kr", "gb18030", "gb2312", "gbk", "shift_jis", "utf-8")
)
_BYTE_CHARSET_FAMILIES = ("iso8859-", "cp125", "koi8-")
"""In all of these a byte that looks like a comma, a quote or a line end is one, never a piece of a character."""


class Rows(Protocol):
    """The rows of one table so far."""

    count: int

    def feed(self, data: bytes) -> None:
        """Take the next bytes, of a charset in which a line end is its ASCII byte."""


class CsvRows:
    """Comma-separated, quoted with `"`; a line ends with LF, CR or both.

    What goes before the next piece is stood in for by a few bytes: an open quoted field by `,"`, one that may just have
    been closed (a quote that follows would make the two one) by `,""`. So a search needs no state of its own.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before = b"\n"

    def feed(self, data: bytes) -> None:
        """See `Rows`."""
        if not data:
            return
        text = self._before + data
        plain, quotes = _without_quoted(text)
        self._before = _standing_in(text, plain, quotes)
        plain = _with_one_line_end(plain)
        self.count += _begun(_EMPTY_LINES.sub(b"\n", plain) if b"\n\n" in plain else plain)


class JsonRows:
    """One JSON value a line; a line end within a string is escaped there, so every one ends a row."""

    def __init__(self) -> None:
        self.count = 0
        self._before = b"\n"

    def feed(self, data: bytes) -> None:
        """See `Rows`."""
        plain = _BLANK_LINES.sub(b"\n", self._before + data)
        self.count += _begun(plain)
        self._before = b"\n" if plain.endswith(b"\n") else b"x"


def _without_quoted(text: bytes) -> tuple[bytes, int]:
    """The text with `x` for each quoted field, and how many quotes those had."""
    quotes = text.count(b'"')
    if not quotes:
        return text, 0
    plain = _without_clean_quoted(text)
    if plain is not None:
        return plain, quotes
    plain = _QUOTED_FIELDS.sub(b"x", text)
    return plain, quotes - plain.count(b'"')


def _without_clean_quoted(text: bytes) -> bytes | None:
    """The same, many times faster, where every quote opens a field, closes one, or is one of two; None elsewhere.

    Two that stand together leave every quote behind them as it was, opening or closing, so they go first. Then every
    second piece between quotes is outside of fields, and each must end where a field can begin.
    """
    if text.endswith(b'""'):
        return None
    pieces = text.replace(b'""', b"x").split(b'"')
    plain = b'"'.join(pieces[::2])
    if len(pieces) % 2 == 0:
        plain += b'"'
    openings = plain.count(b',"') + plain.count(b'\n"') + plain.count(b'\r"')
    return plain.replace(b'"', b"x") if openings == plain.count(b'"') else None


def _with_one_line_end(plain: bytes) -> bytes:
    """LF for whatever ends a line; a CR LF that is cut in two becomes an empty line."""
    returns = plain.count(b"\r")
    if returns == plain.count(b"\r\n"):
        return plain.translate(None, b"\r") if returns else plain
    return plain.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _standing_in(text: bytes, plain: bytes, quotes: int) -> bytes:
    """What the next piece needs to know of this one: `plain` has no quoted fields any more, which had `quotes`."""
    if quotes % 2:
        return b',"'
    if text.endswith(b'"') and not plain.endswith(b'"'):
        return b',""'
    last = plain[-1:]
    if last in b"\r\n":
        return b"\n"
    return b"," if last == b"," else b"x"


def _begun(plain: bytes) -> int:
    """Rows that begin: line ends that something follows, where no line is empty."""
    return plain.count(b"\n") - plain.endswith(b"\n")


def last_record_end(text: bytes) -> int:
    """Where the last whole record ends of a CSV that begins with one; 0 when none does."""
    plain = _QUOTED_FIELDS.sub(lambda field: b"x" * len(field[0]), text)
    return max(plain.rfind(b"\n"), plain.rfind(b"\r")) + 1


def is_csv(file_name: str) -> bool:
    """Whether a file of this name is one."""
    return _extension(file_name) == ".csv"


def rows_of(file_name: str) -> Rows | None:
    """A fresh counter for a file of this name; None when it is no table that can be counted."""
    if _extension(file_name) in {".json", ".jsonl", ".ndjson"}:
        return JsonRows()
    return CsvRows() if is_csv(file_name) else None


def _extension(file_name: str) -> str:
    return PurePosixPath(file_name.lower()).suffix


class Counting:
    """A transform that changes nothing and counts rows.

    Args:
        rows: Takes the count.
        charset: Of the bytes that pass. A byte order mark belongs to no row.

    Raises:
        TransformError: The charset is unknown or cannot be streamed.
    """

    def __init__(self, rows: Rows, charset: str) -> None:
        self._rows = rows
        name = _codec_name(charset)
        is_direct = name in _BYTE_CHARSETS or name.startswith(_BYTE_CHARSET_FAMILIES)
        self._decoding = None if is_direct else Transcoder(charset, "UTF-8")
        self._mark = _mark(name) if is_direct else b""
        self._head: bytes | None = b""

    def feed(self, data: bytes) -> bytes:
        """See `Transform`."""
        self._count(data if self._decoding is None else self._decoding.feed(data))
        return data

    def finish(self) -> bytes:
        """See `Transform`."""
        if self._decoding is not None:
            self._count(self._decoding.finish())
        if self._head:
            self._rows.feed(self._head)
        return b""

    def _count(self, data: bytes) -> None:
        if self._head is not None:
            data = self._head + data
            if len(data) < len(self._mark) and self._mark.startswith(data):
                self._head = data
                return
            self._head = None
            data = data.removeprefix(self._mark)
        self._rows.feed(data)


def counted(transform: Transform | None, rows: Rows, charset: str) -> Transform:
    """Count the rows of what a transform is fed, which is of this charset; None stores it as it comes.

    Raises:
        TransformError: The charset is unknown or cannot be streamed.
    """
    counting = Counting(rows, charset)
    return counting if transform is None else Pipeline([counting, transform])


def _codec_name(charset: str) -> str:
    try:
        name = charset_codec(charset).name
    except ValueError as error:
        raise TransformError(f"cannot count rows in {charset}: {error}") from None
    return "utf-8" if name == "utf-8-sig" else name


def _mark(codec_name: str) -> bytes:
    """The byte order mark as this charset writes it; nothing where it cannot."""
    return codecs.encode("\ufeff", codec_name, "ignore")

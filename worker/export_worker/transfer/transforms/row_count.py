"""Counts the rows of a table while it streams. Searches run over whole pieces, without a loop over characters or rows.

In CSV a row is a record that is not an empty line; its quoted fields may contain line ends. In NDJSON a row is a line
that is not blank. The header line of a CSV counts as a row, since nothing in a file shows whether there is a header. A
row is counted when it begins, so the last row needs no line end.
"""

import re
from collections.abc import Callable
from typing import Protocol

from export_worker.contract.file_names import JSON_EXTENSIONS, extension_of
from export_worker.contract.packed import packed_format
from export_worker.errors import TransformError
from export_worker.transfer.transforms.base import Pipeline, Transform
from export_worker.transfer.transforms.source_text import BLOCK_BYTES, SourceText, charset_of_file, without_marks

_QUOTED_FIELDS = re.compile(rb'(?<![^,\r\n])"(?:[^"]++|"")*+(?:"|\Z)')
"""The rules of Python's csv: a quote opens a quoted field only at the field's beginning, and two quotes within it mean
one."""
_EMPTY_LINES = re.compile(rb"\n{2,}")
_CLOSING = {b"{": b"}", b"[": b"]"}

_BYTE_CHARSETS = frozenset(
    (
        "ascii", "big5", "big5hkscs", "cp874", "cp932", "cp949", "cp950", "euc_jp", "euc_kr", "gb18030", "gb2312",
        "gbk", "shift_jis", "utf-8",
    )
)  # fmt: skip
_BYTE_CHARSET_FAMILIES = ("iso8859-", "cp125", "koi8-")
"""In these charsets, the byte of a comma, quote or line end is never a part of another character."""


class RowCounter(Protocol):
    """Counts the rows of one table."""

    @property
    def count(self) -> int | None:
        """Returns the number of rows so far; None if it cannot be known."""

    def give_up(self) -> None:
        """Makes the count unknown, whatever follows."""

    def feed(self, data: bytes) -> None:
        """Accepts the next bytes. Their charset must encode line ends, commas and quotes as in ASCII."""


class _Count:
    """A number of rows that may be unknown."""

    def __init__(self) -> None:
        self._rows = 0
        self._is_known = True

    @property
    def count(self) -> int | None:
        """See `RowCounter`."""
        return self._rows if self._is_known else None

    def give_up(self) -> None:
        """See `RowCounter`."""
        self._is_known = False


class CsvRowCounter(_Count):
    """Counts the rows of CSV: fields separated by commas, quoted with `"`; lines end with LF, CR or both.

    A few bytes represent everything before the next piece, so that a search needs no other state. They are `,"` for an
    open quoted field. They are `,""` for a field that may just have been closed: if the next byte is a quote, the two
    quotes mean one, and the field is still open.
    """

    def __init__(self) -> None:
        super().__init__()
        self._context = b"\n"

    def feed(self, data: bytes) -> None:
        """See `RowCounter`."""
        if not data:
            return
        text = self._context + data
        plain, quotes = _without_quoted(text)
        self._context = _next_context(text, plain, quotes)
        plain = _with_lf(plain)
        self._rows += _rows_begun(_EMPTY_LINES.sub(b"\n", plain) if b"\n\n" in plain else plain)


class JsonRowCounter(_Count):
    """Counts the rows of NDJSON: one JSON object or array a line. JSON escapes line ends within strings.

    A file with other lines is no NDJSON but one JSON document, such as an array over many lines. Its rows are unknown.
    The same is true of a single line that is an array: its items may be the rows. Every line must end with the bracket
    that closes it, and all lines must be of one kind: an array with an object on each line has lines that end with a
    comma, and its first line is an array.
    """

    def __init__(self) -> None:
        super().__init__()
        self._context = b"\n"
        self._begun = dict.fromkeys(_CLOSING, 0)
        self._closed = dict.fromkeys(_CLOSING, 0)

    @property
    def count(self) -> int | None:
        """See `RowCounter`."""
        is_known = self._are_all(b"{") or (self._rows > 1 and self._are_all(b"["))
        return super().count if is_known else None

    def _are_all(self, opening: bytes) -> bool:
        """Whether each line begins with a bracket and ends with its counterpart; the last needs no line end."""
        closed = self._closed[opening] + (self._context == _CLOSING[opening])
        return self._rows == self._begun[opening] == closed

    def feed(self, data: bytes) -> None:
        """See `RowCounter`."""
        # Blanks around lines are to be ignored, and those within lines change nothing.
        plain = self._context + data.translate(None, b" \t\r")
        if b"\n\n" in plain:
            plain = _EMPTY_LINES.sub(b"\n", plain)
        self._rows += _rows_begun(plain)
        for opening, closing in _CLOSING.items():
            self._begun[opening] += plain.count(b"\n" + opening)
            self._closed[opening] += plain.count(closing + b"\n")
        self._context = plain[-1:]


def _without_quoted(text: bytes) -> tuple[bytes, int]:
    """Returns the text with each quoted field replaced by `x`, and the number of quotes in those fields."""
    quotes = text.count(b'"')
    if not quotes:
        return text, 0
    plain = _without_regular_quoted(text)
    if plain is not None:
        return plain, quotes
    plain = _QUOTED_FIELDS.sub(b"x", text)
    return plain, quotes - plain.count(b'"')


def _without_regular_quoted(text: bytes) -> bytes | None:
    """Returns the text of `_without_quoted` many times faster, or None if a quote is not where CSV requires it.

    Every quote must open a field, close a field, or be one of a pair within a field. A pair does not change whether a
    later quote opens or closes a field, so the pairs are removed first. Then every second piece between quotes is
    outside of fields, and each of these pieces must end where a field can begin.
    """
    if text.endswith(b'""'):
        return None
    pieces = text.replace(b'""', b"x").split(b'"')
    plain = b'"'.join(pieces[::2])
    if len(pieces) % 2 == 0:
        plain += b'"'
    openings = plain.count(b',"') + plain.count(b'\n"') + plain.count(b'\r"')
    return plain.replace(b'"', b"x") if openings == plain.count(b'"') else None


def _with_lf(plain: bytes) -> bytes:
    """Returns the text with LF for every line end. A CR LF that is split between two pieces becomes an empty line."""
    returns = plain.count(b"\r")
    if returns == plain.count(b"\r\n"):
        return plain.translate(None, b"\r") if returns else plain
    return plain.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _next_context(text: bytes, plain: bytes, quotes: int) -> bytes:
    """Returns the bytes that represent this piece and all before it for the next piece; see `CsvRowCounter`.

    Args:
        text: This piece after its own context.
        plain: The same with each quoted field replaced by `x`.
        quotes: Number of quotes in the replaced fields.
    """
    if quotes % 2:
        return b',"'
    if text.endswith(b'"') and not plain.endswith(b'"'):
        return b',""'
    last = plain[-1:]
    if last in b"\r\n":
        return b"\n"
    return b"," if last == b"," else b"x"


def _rows_begun(plain: bytes) -> int:
    """Returns how many rows begin: the number of line ends that another byte follows. No line may be empty."""
    return plain.count(b"\n") - plain.endswith(b"\n")


def last_record_end(text: bytes) -> int:
    """Returns the offset after the last complete record of a CSV that begins with a record; 0 if there is none."""
    plain = _QUOTED_FIELDS.sub(lambda field: b"x" * len(field[0]), text)
    return max(plain.rfind(b"\n"), plain.rfind(b"\r")) + 1


def is_csv(file_name: str) -> bool:
    """Whether the extension of a file's name is that of CSV."""
    return extension_of(file_name) == ".csv"


def row_counter_for(file_name: str) -> RowCounter | None:
    """Returns a new counter for a file of this name, or None if its rows cannot be counted."""
    if extension_of(file_name) in JSON_EXTENSIONS:
        return JsonRowCounter()
    return CsvRowCounter() if is_csv(file_name) else None


class RowCountingTransform:
    """A transform that returns the bytes unchanged and counts their rows.

    It never fails: rows are a note for the manifest, and the bytes are stored as they are. If the file is not in its
    charset, the count is unknown.

    Args:
        rows: The counter.
        label: Charset that the platform was asked for; None if it was not asked. A byte order mark is no row.
    """

    def __init__(self, rows: RowCounter, label: str | None) -> None:
        self._rows = rows
        self._label = label
        self._block: bytes | None = b""
        self._text: SourceText | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Transform`."""
        if self._block is None:
            self._count(data)
        else:
            self._block += data
            if len(self._block) >= BLOCK_BYTES:
                self._begin()
        return data

    def finish(self) -> bytes:
        """See `Transform`."""
        if self._block is not None:
            self._begin()
        self._count_text(SourceText.finish)
        return b""

    def _begin(self) -> None:
        """Finds out by the first block whether rows can be counted by bytes, and counts those of the block."""
        block, self._block = self._block or b"", None
        if packed_format(block) is not None:  # such bytes have no lines
            self._rows.give_up()
            return
        try:
            name, found = charset_of_file(self._label, block)
            if found.name not in _BYTE_CHARSETS and not found.name.startswith(_BYTE_CHARSET_FAMILIES):
                self._text = SourceText(name)
        except (TransformError, ValueError):
            self._rows.give_up()
            return
        self._count(block if self._text is not None else without_marks(block, found))

    def _count(self, data: bytes) -> None:
        if self._text is None:
            self._rows.feed(data)
        else:
            self._count_text(lambda text: text.feed(data))

    def _count_text(self, read: Callable[[SourceText], str]) -> None:
        if self._text is None:
            return
        try:
            self._rows.feed(read(self._text).encode())
        except TransformError:
            self._rows.give_up()
            self._text = None


def with_row_count(transform: Transform | None, rows: RowCounter, label: str | None) -> Transform:
    """Returns a transform that counts rows before the bytes enter another transform.

    Args:
        transform: The other transform; None stores the bytes unchanged.
        rows: The counter.
        label: See `RowCountingTransform`.
    """
    counting = RowCountingTransform(rows, label)
    return counting if transform is None else Pipeline([counting, transform])

"""Parses CSV from pieces of any size into Arrow tables of text, block by block. Memory does not grow with the file.

The dialect is that of `row_count`: commas, double quotes, lines that end with LF, CR or both; empty lines are ignored.
Arrow's parser needs a whole block, so a block must end where a record ends. This module guesses the end by counting
quotes, and Arrow verifies the guess: a marker row is appended to each block, and Arrow returns it unchanged only if no
quoted field is open before it. If the guess is wrong (a plain field contains quotes), `row_count` finds the end
exactly, at many times the cost.

Measured for a table of eight columns, from CSV to Parquet, in CPU s/GiB without quotes / with every field quoted:
Python's csv 52 / 39, `pyarrow.csv.open_csv` in a thread 5.0 / 4.8, blocks whose quotes are examined one by one
4.9 / 18, and this module 5.0 / 5.0. `open_csv` pulls its bytes, so it needs a thread that must be stopped when a
transfer is aborted, but a `Transform` is not notified of an abort. Callers pass bytes to this module, so it needs no
thread.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import SEEK_CUR, StringIO

import pyarrow as pa
from pyarrow import csv as arrow_csv

from export_worker.errors import TransformError
from export_worker.transfer.transforms.row_count import last_record_end

BLOCK_BYTES = 2**20
"""Large enough for one call of the parser, and small in memory. The header must fit into one block."""
RECORD_MAX_BYTES = 16 * 2**20
"""A longer record means that a quote was never closed."""
COLUMNS_MAX = 10_000
"""Each column takes some hundred bytes of every block and of the footer, even if it is empty."""
_MARKER = "x"
"""The last field of the marker row after a block. If a quoted field is open, the marker row becomes part of it, so
the last field that Arrow returns is longer."""


@dataclass(frozen=True, slots=True)
class TablePart:
    """Some consecutive rows of the file.

    Args:
        table: One column of text for each name in the header, in the same order. The names of its columns are numbers.
        first_row: Number of the first row in the file; the header is row 1.
        has_quotes: There is a quote in the text of the rows.
    """

    table: pa.Table
    first_row: int
    has_quotes: bool


class CsvTables:
    """Parses one CSV file in UTF-8 whose first row is the header. The division into tables depends only on the file.

    Args:
        names_if_empty: The names of the columns of a file without a header, which has no rows either. With None, such a
            file is refused.
        with_nulls: An empty value without quotes is null.
    """

    def __init__(self, names_if_empty: Iterable[str] | None = None, *, with_nulls: bool = False) -> None:
        self.names: list[str] = []
        self.line_end = "\n"
        self._names_if_empty = None if names_if_empty is None else list(names_if_empty)
        self._nulls = [""] if with_nulls else []
        self._buffer = bytearray()
        self._wanted_bytes = BLOCK_BYTES
        self._rows = 0

    def feed(self, data: bytes) -> Iterator[TablePart]:
        """Accepts the next bytes and yields the tables that are ready.

        Raises:
            TransformError: There is no header, or a row has too many or too few fields.
        """
        self._buffer += data
        while len(self._buffer) >= self._wanted_bytes:
            yield from self._next_block()

    def finish(self) -> Iterator[TablePart]:
        """Yields the rest after the end of the file. Raises what `feed` raises, also if a quoted field is open."""
        text = bytes(self._buffer)
        self._buffer.clear()
        if not self.names and self._names_if_empty is not None and not text.strip(b"\r\n"):
            self.names = self._names_if_empty
            return
        if not self.names:
            self._read_header(text, is_whole=True)
        block = self._parse(memoryview(text))
        if not block.is_closed:
            raise TransformError(f"the file ends within a quoted field of row {self._rows + block.rows}")
        yield from self._parts(block)

    def _next_block(self) -> Iterator[TablePart]:
        with memoryview(self._buffer) as buffer:
            text = bytes(buffer[: self._wanted_bytes])
        if not self.names:
            self._read_header(text, is_whole=False)
        for end in _record_ends(text):
            block = self._parse(memoryview(text)[:end])
            if block.is_closed:
                del self._buffer[:end]
                self._wanted_bytes = BLOCK_BYTES
                yield from self._parts(block)
                return
        self._wanted_bytes += BLOCK_BYTES
        if self._wanted_bytes > RECORD_MAX_BYTES:
            raise TransformError(
                f"row {self._rows + 1} has more than {RECORD_MAX_BYTES} bytes; check for a quote that is not closed"
            )

    def _read_header(self, text: bytes, *, is_whole: bool) -> None:
        self.names, self.line_end = _header(text, is_whole=is_whole)

    def _parse(self, text: memoryview) -> "_Block":
        return _parse(text, len(self.names), self._nulls)

    def _parts(self, block: "_Block") -> Iterator[TablePart]:
        """Counts the rows of a parsed block, and yields them without the header. Raises what `feed` raises."""
        if block.ragged is not None:
            number, fields = block.ragged
            expected = f"the header (row 1) has {len(self.names)}"
            raise TransformError(f"row {self._rows + number} has {fields} fields where {expected}")
        table, first_row = block.table, self._rows + 1
        self._rows += block.rows
        if first_row == 1:
            table, first_row = table.slice(1), 2
        if len(table):
            yield TablePart(table, first_row, block.has_quotes)


def _header(text: bytes, *, is_whole: bool) -> tuple[list[str], str]:
    """Returns the names of the columns, and the line end behind them.

    Python's csv reads them: Arrow needs the number of columns before it can parse a row.
    """
    decoded = text.decode("utf-8", "ignore")  # the last character may be incomplete
    lines = StringIO(decoded, newline="")
    try:
        names = next((row for row in csv.reader(lines) if row), None)
    except csv.Error as error:
        raise TransformError(f"the header of the file cannot be read ({error})") from None
    if names is None:
        raise TransformError("the file is empty, so nothing names Parquet's columns; set output.schema")
    end = lines.seek(0, SEEK_CUR)
    if len(names) > COLUMNS_MAX or not (is_whole or end < len(decoded)):
        raise TransformError(f"the header has more than {COLUMNS_MAX} names or {BLOCK_BYTES} bytes")
    line_end = next((each for each in ("\r\n", "\r") if decoded.endswith(each, 0, end)), "\n")
    return names, line_end


def _record_ends(text: bytes) -> Iterator[int]:
    """Yields offsets at which a record may end: first a fast guess, then the exact one."""
    guess = _guessed_end(text)
    if guess:
        yield guess
    exact = last_record_end(text)
    if exact not in {0, guess}:
        yield exact


def _guessed_end(text: bytes) -> int:
    """Returns the offset after the last line end that has an even number of quotes before it; 0 if there is none."""
    end = _line_end(text, len(text))
    is_open = text.count(b'"', 0, end) % 2 == 1
    while is_open:
        quote = text.rfind(b'"', 0, end)
        end = _line_end(text, quote)
        is_open = text.count(b'"', end, quote) % 2 == 1
    return end


def _line_end(text: bytes, before: int) -> int:
    """Returns the offset after the last line end before an offset; 0 if there is none."""
    end = text.rfind(b"\n", 0, before) + 1
    # CR is searched only after the last LF: in a text without CR, each longer search would read the whole text.
    return max(end, text.rfind(b"\r", end, before) + 1)


@dataclass(frozen=True, slots=True)
class _Block:
    """A block as Arrow has parsed it.

    Args:
        table: The rows with the right number of fields.
        ragged: Number of the first row with too few or too many fields, from 1, and how many fields it has.
        rows: Number of all rows, including ragged ones.
        is_closed: The block ends outside of a quoted field.
        has_quotes: There is a quote in the text.
    """

    table: pa.Table
    ragged: tuple[int, int] | None
    rows: int
    is_closed: bool
    has_quotes: bool


def _parse(text: memoryview, columns: int, nulls: list[str]) -> _Block:
    ragged: list[tuple[int, int]] = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        ragged.append((row.number, row.actual_columns))
        return "skip"

    names = [str(number) for number in range(columns)]
    # Without the empty line in front, Arrow would drop a byte order mark at the start of a later block.
    marked = b"".join((b"\n", text, b"\n", b"," * (columns - 1), _MARKER.encode()))
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(marked),
            read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(marked) + 1),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            convert_options=arrow_csv.ConvertOptions(
                check_utf8=False,
                null_values=nulls,
                strings_can_be_null=bool(nulls),
                quoted_strings_can_be_null=False,
                column_types=dict.fromkeys(names, pa.string()),
            ),
        )
    except pa.ArrowInvalid:
        # Arrow's messages quote rows.
        raise TransformError(f"a block of {len(text)} bytes cannot be parsed as CSV of {columns} columns") from None
    rows = len(table) + len(ragged)
    ends_well = not ragged or ragged[-1][0] < rows
    if ends_well and table.column(columns - 1)[-1].as_py() == _MARKER:
        first = ragged[0] if ragged else None
        return _Block(table.slice(0, len(table) - 1), first, rows - 1, is_closed=True, has_quotes=b'"' in marked)
    return _Block(table, None, rows, is_closed=False, has_quotes=True)

"""Reads CSV that comes in pieces of any size into Arrow tables of text, block by block: memory does not grow with it.

The dialect is that of `rows`: comma, `"`, lines that end with LF, CR or both; empty lines are none. Arrow's parser
reads a block at once, so a block must end where a record does. That is guessed by counting quotes, and Arrow is the
judge: a row of ours stands behind each block, which comes out as it went in only if no quoted field is open before it.
Where the guess is wrong (quotes within plain fields) `rows` finds the end exactly, at many times the cost.

Measured for a table of eight columns, from CSV to Parquet, as CPU s/GiB without quotes / with every field quoted:
Python's csv 52 / 39, `pyarrow.csv.open_csv` in a thread 5.0 / 4.8, blocks whose quotes are looked at one by one
4.9 / 18, and as it is here 5.0 / 5.0. `open_csv` pulls its bytes, so it needs a thread that somebody must end when a
transfer is given up, which a `Transform` is not told; a block is pushed.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

import pyarrow as pa
from pyarrow import csv as arrow_csv

from export_worker.errors import TransformError
from export_worker.transfer.transforms.row_count import last_record_end

BLOCK_BYTES = 2**20
"""Worth a call of the parser, and little to hold. The header must fit in."""
RECORD_MAX_BYTES = 16 * 2**20
"""A longer one is a quote that nobody has closed."""
COLUMNS_MAX = 10_000
"""Each takes some hundred bytes of every block and of the footer, however little is in it."""
SHOWN_CHARACTERS = 80
_MARK = "x"
"""The last field of our row behind a block; within an open field, a line end would stand before it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of the file.

    Args:
        table: A column of text for each of the header's names.
        first_row: Number of its first row in the file, whose header is row 1.
    """

    table: pa.Table
    first_row: int


class CsvTables:
    """The tables of one CSV file in UTF-8, whose first row is the header. Their borders depend on the file alone."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._held = bytearray()
        self._wanted_bytes = BLOCK_BYTES
        self._rows = 0

    def feed(self, data: bytes) -> Iterator[Part]:
        """Take the next bytes; give the tables that are ready.

        Raises:
            TransformError: There is no header, or it names a column twice; a row has too many or too few fields.
        """
        self._held += data
        while len(self._held) >= self._wanted_bytes:
            yield from self._next_block()

    def finish(self) -> Iterator[Part]:
        """The file has ended: give the rest. Raises as `feed` does, and where a quoted field is still open."""
        text = bytes(self._held)
        self._held.clear()
        if not self.names:
            self.names = _header(text, is_whole=True)
        block = _parsed(memoryview(text), self.names)
        if not block.is_closed:
            raise TransformError(f"the file ends within a quoted field of row {self._rows + block.rows}")
        yield from self._taken(block)

    def _next_block(self) -> Iterator[Part]:
        with memoryview(self._held) as held:
            text = bytes(held[: self._wanted_bytes])
        if not self.names:
            self.names = _header(text, is_whole=False)
        for end in _ends(text):
            block = _parsed(memoryview(text)[:end], self.names)
            if block.is_closed:
                del self._held[:end]
                self._wanted_bytes = BLOCK_BYTES
                yield from self._taken(block)
                return
        self._wanted_bytes += BLOCK_BYTES
        if self._wanted_bytes > RECORD_MAX_BYTES:
            raise TransformError(f"row {self._rows + 1} has more than {RECORD_MAX_BYTES} bytes; is a quote left open?")

    def _taken(self, block: "_Block") -> Iterator[Part]:
        if block.ragged is not None:
            number, fields = block.ragged
            expected = f"the header (row 1) has {len(self.names)}"
            raise TransformError(f"row {self._rows + number} has {fields} fields where {expected}")
        table, first_row = block.table, self._rows + 1
        self._rows += block.rows
        if first_row == 1:
            table, first_row = table.slice(1), 2
        if len(table):
            yield Part(table, first_row)


def shown(name: str) -> str:
    """A column's name as an error tells it: a header may hold anything."""
    return repr(name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…")


def _header(text: bytes, *, is_whole: bool) -> list[str]:
    """The names of the columns, by Python's csv: a first row cannot be asked from Arrow before they are known."""
    lines = StringIO(text.decode("utf-8", "ignore"), newline="")  # the last character may be cut
    try:
        names = next((row for row in csv.reader(lines) if row), None)
    except csv.Error as error:
        raise TransformError(f"the file has no header that can be read ({error})") from None
    if names is None:
        raise TransformError("the file has no header, so there are no names for Parquet's columns")
    if len(names) > COLUMNS_MAX or not (is_whole or lines.read(1)):
        raise TransformError(f"the header has more than {COLUMNS_MAX} names or {BLOCK_BYTES} bytes")
    seen = set[str]()
    for name in names:
        if name in seen:
            raise TransformError(f"the header names the column {shown(name)} twice, and Parquet's columns need names")
        seen.add(name)
    return names


def _ends(text: bytes) -> Iterator[int]:
    """Where a record may end, the best guess first."""
    guess = _guessed_end(text)
    if guess:
        yield guess
    exact = last_record_end(text)
    if exact not in {0, guess}:
        yield exact


def _guessed_end(text: bytes) -> int:
    """Behind the last line end with as many quotes before it that open fields as close them; 0 when there is none."""
    end = _line_end(text, len(text))
    is_open = text.count(b'"', 0, end) % 2 == 1
    while is_open:
        quote = text.rfind(b'"', 0, end)
        end = _line_end(text, quote)
        is_open = text.count(b'"', end, quote) % 2 == 1
    return end


def _line_end(text: bytes, before: int) -> int:
    end = text.rfind(b"\n", 0, before) + 1
    # Not before it: where there is no CR, each search would go through all of the text.
    return max(end, text.rfind(b"\r", end, before) + 1)


@dataclass(frozen=True, slots=True)
class _Block:
    """What Arrow has read.

    Args:
        ragged: The number of the first row that has too few or too many fields, from 1, and how many those are.
        rows: Ragged ones among them.
        is_closed: It ended outside of quotes.
    """

    table: pa.Table
    ragged: tuple[int, int] | None
    rows: int
    is_closed: bool


def _parsed(text: memoryview, names: list[str]) -> _Block:
    ragged: list[tuple[int, int]] = []

    def note(row: arrow_csv.InvalidRow) -> str:
        ragged.append((row.number, row.actual_columns))
        return "skip"

    # The empty line in front keeps Arrow from dropping what looks like a byte order mark in the middle of a file.
    marked = b"".join((b"\n", text, b"\n", b"," * (len(names) - 1), _MARK.encode()))
    table = arrow_csv.read_csv(
        pa.BufferReader(marked),
        read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(marked) + 1),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        convert_options=arrow_csv.ConvertOptions(
            check_utf8=False, null_values=[], column_types=dict.fromkeys(names, pa.string())
        ),
    )
    rows = len(table) + len(ragged)
    ends_well = not ragged or ragged[-1][0] < rows
    if ends_well and table.column(len(names) - 1)[-1].as_py() == _MARK:
        return _Block(table.slice(0, len(table) - 1), ragged[0] if ragged else None, rows - 1, is_closed=True)
    return _Block(table, None, rows, is_closed=False)

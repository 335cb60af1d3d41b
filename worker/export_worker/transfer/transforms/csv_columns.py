"""Drops, hashes and masks columns of CSV while it streams. Needs the extra `parquet`, whose Arrow parses the file.

The rows are written again: with the line end that follows the header, quotes only where a value needs them, and without
empty lines. A value that was empty and had quotes keeps them, because databases take an empty value without quotes for
null.
"""

from collections.abc import Sequence

import pyarrow as pa
from pyarrow import compute

from export_worker.errors import TransformError
from export_worker.transfer.transforms.column_rules import ColumnActions
from export_worker.transfer.transforms.column_values import changed
from export_worker.transfer.transforms.csv_tables import CsvTables, TablePart

_SPECIAL = (b'"', b",", b"\n", b"\r")
_SPECIAL_PATTERN = '[",\r\n]'


class CsvColumns:
    """Changes the columns of one CSV file in UTF-8 without a byte order mark. Equal files give equal bytes.

    Args:
        actions: What is done to each column.
    """

    def __init__(self, actions: ColumnActions) -> None:
        self._actions = actions
        self._csv = CsvTables(names_if_empty=(), with_nulls=True)
        self._kept: list[tuple[int, str]] | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Transform`.

        Raises:
            TransformError: The file is not a table (see `CsvTables.feed`), or the rules refuse its columns.
        """
        return b"".join([self._begin() + self._rows(part) for part in self._csv.feed(data)])

    def finish(self) -> bytes:
        """See `Transform`. Raises what `feed` raises."""
        rows = [self._begin() + self._rows(part) for part in self._csv.finish()]
        return b"".join(rows) or self._begin()

    def _begin(self) -> bytes:
        """Returns the header if it is not written yet, and decides about the columns."""
        if self._kept is not None or not self._csv.names:
            return b""
        self._kept = kept_columns(self._csv.names, self._actions)
        names = [self._csv.names[index] for index, _ in self._kept]
        return _lines([pa.array([name or None], pa.string()) for name in names], self._csv.line_end, has_quotes=True)

    def _rows(self, part: TablePart) -> bytes:
        hashing = self._actions.rules.hashing
        columns = [
            changed(part.table.column(index).combine_chunks(), action, hashing) for index, action in self._kept or ()
        ]
        return _lines(columns, self._csv.line_end, has_quotes=part.has_quotes)


def kept_columns(names: Sequence[str], actions: ColumnActions) -> list[tuple[int, str]]:
    """Returns the index of each column that is not dropped, and what is done to it.

    Raises:
        TransformError: The rules refuse a column, miss one, or drop all of them.
    """
    decided = [actions.of(name, number) for number, name in enumerate(names, 1)]
    actions.check_found()
    kept = [(index, action) for index, action in enumerate(decided) if action != "drop"]
    if not kept:
        raise TransformError("output.columns and column_policy of the connection drop every column of the file")
    return kept


def _lines(columns: Sequence[pa.Array], line_end: str, *, has_quotes: bool) -> bytes:
    """Returns the rows as CSV.

    Args:
        has_quotes: The source has quotes in these rows. Without any, no value needs quotes.
    """
    if has_quotes:
        columns = [_quoted(column) for column in columns]
    if len(columns) == 1:
        # Without quotes, a row of one empty value would be an empty line, which is no row.
        columns = [compute.if_else(compute.equal(compute.fill_null(columns[0], ""), ""), '""', columns[0])]
    lines = compute.binary_join_element_wise(*columns, ",", null_handling="replace", null_replacement="")
    return _text_of(compute.binary_join_element_wise(lines, "", line_end))


def _quoted(values: pa.Array) -> pa.Array:
    """Returns the values with quotes around those that need them. Nulls stay."""
    is_empty = compute.equal(compute.binary_length(values), 0)
    text = _text_of(values)
    if any(character in text for character in _SPECIAL):
        quoted = compute.binary_join_element_wise('"', compute.replace_substring(values, '"', '""'), '"', "")
        values = compute.if_else(compute.match_substring_regex(values, _SPECIAL_PATTERN), quoted, values)
    return compute.if_else(is_empty, '""', values)


def _text_of(values: pa.Array) -> bytes:
    """Returns all values, one after the other."""
    if not len(values):
        return b""
    _, offsets, data = values.buffers()
    borders = memoryview(offsets).cast("i")
    start, end = borders[values.offset], borders[values.offset + len(values)]
    return b"" if data is None else data.slice(start, end - start).to_pybytes()

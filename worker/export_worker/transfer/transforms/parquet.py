"""Converts CSV to Parquet while it streams. Needs the extra `parquet`, so it is imported only when it is used.

Rows are collected into row groups of 8 MiB, and each group is returned when it is written. So the memory for rows is a
few times that size (measured with values that hardly repeat: 77 MiB for one file, 218 MiB for four at once, for files
of 100 MiB and of 400 MiB). Parquet also needs a footer at the end: about 120 bytes for each column of each row group,
3 MB for 10 GiB of 20 columns. For CPU time see `csv_tables`.

A column without a type in `output.schema` is text: its values are unchanged, and an empty value stays empty. In a
column with a type, including `string`, an empty value and each of `output.null_values` is null, and Arrow parses the
others:

    int64       decimal digits, optionally after a minus
    float64     such as 1, -1.5, 1e-3, nan, inf
    bool        true, false, 1, 0, in any case
    date        2026-11-22
    timestamp   2026-11-22 03:00:00 or with a T between, with up to six decimal places of the seconds; without a time
                zone, as platforms write it. Microseconds

A file without a header and rows becomes a Parquet file without rows, with the columns of `output.schema`.

The compression of the request, `gzip` or `zstd`, is applied to the columns. A file that is compressed as a whole could
not be read in part, and that is the purpose of Parquet.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO

import pyarrow as pa
from pyarrow import compute
from pyarrow import parquet as arrow_parquet

from export_worker.contract.output import ColumnType, Compression
from export_worker.credentials import Redactor
from export_worker.errors import TransformError
from export_worker.transfer.transforms.column_rules import KEEP, ColumnActions
from export_worker.transfer.transforms.column_values import changed
from export_worker.transfer.transforms.csv_columns import kept_columns
from export_worker.transfer.transforms.csv_tables import CsvTables, TablePart

ROW_GROUP_BYTES = 8 * 2**20
"""Size in Arrow's memory; the written group is smaller. Readers prefer larger groups, but a worker transfers four files
at once."""
ROW_GROUP_COLUMN_BYTES = 64 * 1024
"""Minimum for each column: with smaller ones, the footer of a wide table would grow faster than its rows, and the
footer is kept in memory until the end."""
_ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}
_SHOWN_CHARACTERS = 80
_WHOLE_NUMBER = "^-?[0-9]+$"
"""Arrow also accepts hexadecimal numbers, which this pattern refuses."""


class CsvToParquet:
    """Converts one CSV file in UTF-8 without a byte order mark. Equal files give equal bytes, in pieces of any size.

    Args:
        column_types: Types of the columns that are not text. Each column must be in the header.
        compression: Compression of the columns.
        null_values: Values that are null in a column with a type, beside the empty one.
        redactor: Masks secrets in the names of columns, which messages contain; None if no secret is known.
        actions: What is done to each column; None keeps all. A column that is hashed or masked is text.
    """

    def __init__(
        self,
        column_types: Mapping[str, ColumnType],
        compression: Compression = "none",
        null_values: Sequence[str] = (),
        *,
        redactor: Redactor | None = None,
        actions: ColumnActions | None = None,
    ) -> None:
        self._redactor = redactor or Redactor()
        self._types = column_types
        self._compression = compression
        self._nulls = pa.array(["", *null_values], pa.string())
        self._csv = CsvTables(names_if_empty=column_types or None)
        self._output = ParquetOutput()
        self._actions = actions
        self._kept: list[tuple[int, str]] = []
        self._writer: arrow_parquet.ParquetWriter | None = None
        self._tables: list[pa.Table] = []
        self._tables_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """See `Transform`.

        Raises:
            TransformError: The file is not a table (see `CsvTables.feed`), or a value does not fit its column's type.
        """
        for part in self._csv.feed(data):
            self._add(part)
        return self._output.take()

    def finish(self) -> bytes:
        """See `Transform`. Raises what `feed` raises."""
        for part in self._csv.finish():
            self._add(part)
        if self._tables:
            self._write_row_group()
        self._opened_writer().close()
        return self._output.take()

    def _add(self, part: TablePart) -> None:
        schema = self._opened_writer().schema
        columns = [
            self._column(part, index, field, action) for (index, action), field in zip(self._kept, schema, strict=True)
        ]
        table = pa.table(columns, schema=schema)
        self._tables.append(table)
        self._tables_bytes += table.nbytes
        if self._tables_bytes >= max(ROW_GROUP_BYTES, ROW_GROUP_COLUMN_BYTES * len(schema)):
            self._write_row_group()

    def _write_row_group(self) -> None:
        table = pa.concat_tables(self._tables)
        self._tables, self._tables_bytes = [], 0
        self._opened_writer().write_table(table, row_group_size=len(table))
        # Arrow keeps freed memory for each thread: without this call, a fifth more at the peak and three times as much
        # afterwards.
        pa.default_memory_pool().release_unused()

    def _opened_writer(self) -> arrow_parquet.ParquetWriter:
        """Returns the writer, which the first call opens. The header must be known."""
        if self._writer is None:
            schema = self._schema()
            file = pa.PythonFile(self._output, mode="w")
            self._writer = arrow_parquet.ParquetWriter(file, schema, compression=self._compression)
        return self._writer

    def _schema(self) -> pa.Schema:
        """Decides about the columns, and returns those of the Parquet file. Raises what `feed` raises."""
        names = self._csv.names
        if unknown := sorted(self._types.keys() - set(names)):
            name = self._shown(unknown[0])
            raise TransformError(f"output.schema names the column {name}, which the header does not have")
        twice = _second_of_a_name(names)
        if twice is not None and self._actions is not None:
            raise TransformError(f"column {twice + 1} has the name of an earlier column; Parquet needs distinct names")
        if twice is not None:
            raise TransformError(
                f"the header names the column {self._shown(names[twice])} twice; Parquet needs distinct names"
            )
        unchanged = [(index, KEEP) for index in range(len(names))]
        self._kept = unchanged if self._actions is None else kept_columns(names, self._actions)
        self._check_types_of_changed(dict(self._kept))
        fields = [(names[index], _ARROW_TYPES[self._types.get(names[index], "string")]) for index, _ in self._kept]
        return pa.schema(fields)

    def _check_types_of_changed(self, actions: Mapping[int, str]) -> None:
        for index, name in enumerate(self._csv.names):
            action = actions.get(index, "drop")
            if name in self._types and (action == "drop" or (action != KEEP and self._types[name] != "string")):
                raise TransformError(
                    f"output.schema names the column {self._shown(name)}, but its rule in output.columns or in "
                    f"column_policy of the connection is {action}; remove it from output.schema"
                )

    def _shown(self, name: str) -> str:
        """Returns a column's name for an error message, masked, quoted and shortened: a header may contain anything."""
        name = self._redactor.excerpt(name, len(name))
        return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…")

    def _column(self, part: TablePart, index: int, field: pa.Field, action: str) -> pa.Array:
        texts = part.table.column(index).combine_chunks()
        hashing = None if self._actions is None else self._actions.rules.hashing
        if field.name not in self._types:
            return changed(texts, action, hashing)
        values = compute.if_else(compute.is_in(texts, value_set=self._nulls), pa.scalar(None, pa.string()), texts)
        try:
            return _cast(changed(values, action, hashing), field.type)
        except pa.ArrowInvalid:
            row = part.first_row + _first_invalid(values, field.type)
            kind = self._types[field.name]
            message = (
                f"row {row} (the header is row 1), column {self._shown(field.name)}: the value is not a valid {kind}"
            )
            raise TransformError(message) from None


def _second_of_a_name(names: Sequence[str]) -> int | None:
    """Returns the index of the first name that is there before; None if all differ."""
    seen = set[str]()
    for index, name in enumerate(names):
        if name in seen:
            return index
        seen.add(name)
    return None


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Returns the values in a type. Raises `pa.ArrowInvalid` if a value does not fit it."""
    if kind == pa.int64() and compute.any(compute.invert(compute.match_substring_regex(values, _WHOLE_NUMBER))).as_py():
        raise pa.ArrowInvalid("not a whole number")
    return values.cast(kind)


def _first_invalid(values: pa.Array, kind: pa.DataType) -> int:
    """Returns the index of the first value that does not fit a type; there must be one.

    Arrow does not report the index, so it is found by bisection.
    """
    start, length = 0, len(values)
    while length > 1:
        half = length // 2
        try:
            _cast(values.slice(start, half), kind)
        except pa.ArrowInvalid:
            length = half
        else:
            start, length = start + half, length - half
    return start


class ParquetOutput:
    """A file in memory that Arrow writes to, and from which the written bytes are taken."""

    closed = False

    def __init__(self) -> None:
        self._buffer = BytesIO()

    def write(self, data: bytes) -> int:
        """Adds bytes. Returns their number."""
        return self._buffer.write(data)

    def flush(self) -> None:
        """Does nothing: every write is in the buffer at once."""

    def close(self) -> None:
        """Notes that nothing more is written."""
        self.closed = True

    def take(self) -> bytes:
        """Returns the bytes that were written since the last call."""
        buffer, self._buffer = self._buffer, BytesIO()
        return buffer.getvalue()  # returns the buffer itself, without a copy

"""Makes Parquet out of CSV while it streams past. Needs the extra `parquet`, so it is imported when it is asked for.

Rows are gathered to row groups of 8 MiB, each of which is given out when it is written. So memory is a few times that
(measured with values that hardly repeat: 77 MiB for one file, 218 MiB for four at once, of 100 MiB and of 400 MiB
alike), and the footer, which Parquet cannot do without: some 120 bytes for each column of each row group, 3 MB for
10 GiB of 20 columns. Processor time: see `tables`.

A column is text unless it is given a type. Text stays as it stands, an empty value an empty one. In a column with a
type, `string` among them, an empty value is null, and the others are read as Arrow does:

    int64       decimal digits, with a minus before them or not
    float64     such as 1, -1.5, 1e-3, nan, inf
    bool        true, false, 1, 0, in any case
    date        2026-11-22
    timestamp   2026-11-22 03:00:00 or with a T between, with up to six places behind the seconds; without a zone, as
                platforms write it. Microseconds

The codec of the columns is that of the request: `gzip`, `zstd`, or none. A whole file that is compressed could not be
read in part, which is what Parquet is for.
"""

from collections.abc import Mapping
from io import BytesIO

import pyarrow as pa
from pyarrow import compute
from pyarrow import parquet as arrow_parquet

from export_worker.contract.output import ColumnType, Compression
from export_worker.errors import TransformError
from export_worker.transfer.transforms.csv_tables import CsvTables, Part, shown

ROW_GROUP_BYTES = 8 * 2**20
ROW_GROUP_COLUMN_BYTES = 64 * 1024
"""Of each column at least: the footer of a wide table would grow faster than its rows, and is kept until the end."""
"""As Arrow holds them; what is written is smaller. Readers would like more, but a worker moves four files at once."""
_ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}
_WHOLE_NUMBER = "^-?[0-9]+$"
"""Arrow takes hexadecimal numbers, too."""


class CsvToParquet:
    """A transform of one CSV file in UTF-8, without a byte order mark. Equal files give equal bytes, however cut.

    Args:
        column_types: Of the columns that are to be more than text; each must be in the header.
        compression: Of the columns.
    """

    def __init__(self, column_types: Mapping[str, ColumnType], compression: Compression = "none") -> None:
        self._types = column_types
        self._compression = compression
        self._csv = CsvTables()
        self._sink = _Sink()
        self._writer: arrow_parquet.ParquetWriter | None = None
        self._gathered: list[pa.Table] = []
        self._gathered_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """See `Transform`.

        Raises:
            TransformError: It is no table (see `CsvTables.feed`), or a value does not fit its column's type.
        """
        for part in self._csv.feed(data):
            self._gather(part)
        return self._sink.taken()

    def finish(self) -> bytes:
        """See `Transform`. Raises as `feed` does."""
        for part in self._csv.finish():
            self._gather(part)
        if self._gathered:
            self._write_group()
        self._open().close()
        return self._sink.taken()

    def _gather(self, part: Part) -> None:
        schema = self._open().schema
        columns = [self._column(part, field) for field in schema]
        table = pa.table(columns, schema=schema)
        self._gathered.append(table)
        self._gathered_bytes += table.nbytes
        if self._gathered_bytes >= max(ROW_GROUP_BYTES, ROW_GROUP_COLUMN_BYTES * len(schema)):
            self._write_group()

    def _write_group(self) -> None:
        table = pa.concat_tables(self._gathered)
        self._gathered, self._gathered_bytes = [], 0
        self._open().write_table(table, row_group_size=len(table))
        # Arrow keeps what it has freed, for each thread anew: a fifth more at the peak, three times as much afterwards.
        pa.default_memory_pool().release_unused()

    def _open(self) -> arrow_parquet.ParquetWriter:
        """The writer, as soon as the header is known."""
        if self._writer is None:
            names = self._csv.names
            if unknown := sorted(self._types.keys() - set(names)):
                raise TransformError(
                    f"output.schema names the column {shown(unknown[0])}, which the header does not have"
                )
            schema = pa.schema([(name, _ARROW_TYPES[self._types.get(name, "string")]) for name in names])
            sink = pa.PythonFile(self._sink, mode="w")
            self._writer = arrow_parquet.ParquetWriter(sink, schema, compression=self._compression)
        return self._writer

    def _column(self, part: Part, field: pa.Field) -> pa.ChunkedArray:
        texts = part.table.column(field.name)
        if field.name not in self._types:
            return texts
        values = compute.if_else(compute.equal(texts, ""), pa.scalar(None, pa.string()), texts)
        try:
            return _cast(values, field.type)
        except pa.ArrowInvalid:
            row = part.first_row + _first_misfit(values, field.type)
            kind = self._types[field.name]
            raise TransformError(f"row {row} (the header is row 1), column {shown(field.name)}: no {kind}") from None


def _cast(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Raises `pa.ArrowInvalid` where a value does not fit."""
    if kind == pa.int64() and compute.any(compute.invert(compute.match_substring_regex(values, _WHOLE_NUMBER))).as_py():
        raise pa.ArrowInvalid("no whole number")
    return values.cast(kind)


def _first_misfit(values: pa.ChunkedArray, kind: pa.DataType) -> int:
    """The place of the first value that does not fit, where there is one; by halves, since Arrow does not say."""
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


class _Sink:
    """Holds what has been written until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._held = BytesIO()

    def write(self, data: bytes) -> int:
        return self._held.write(data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> bytes:
        held, self._held = self._held, BytesIO()
        return held.getvalue()  # hands its own buffer over, no copy

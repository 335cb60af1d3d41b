"""Writes rows as Parquet. Needs the extra `parquet`, so it is imported only by the worker that archives, when it does.

Rows are collected into row groups of at most `GROUP_ROWS` rows, and of fewer if rows are long, and each group is
returned when it is written. So the memory does not grow with the number of exports of an hour.
"""

from collections.abc import Sequence

import pyarrow as pa
from pyarrow import parquet as arrow_parquet

from export_worker.archive.rows import Row
from export_worker.transfer.transforms.parquet import ParquetOutput

GROUP_ROWS = 10_000
"""Rows of one group, about 10 MiB in memory: readers skip groups by their statistics."""
GROUP_BYTES = 8 * 2**20
"""Of Arrow's memory for the rows of one group. Exports with thousands of files reach it earlier."""

_MOMENT = pa.timestamp("ms", "UTC")
_OBJECT = pa.struct(
    [
        ("uri", pa.string()),
        ("file_name", pa.string()),
        ("bytes", pa.int64()),
        ("rows", pa.int64()),
        ("etag", pa.string()),
        ("checksum", pa.string()),
    ]
)
_TIMELINE = pa.struct([("at", _MOMENT), ("phase", pa.string()), ("step", pa.int64()), ("note", pa.string())])
SCHEMA = pa.schema(
    [
        pa.field("export_id", pa.string(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("phase", pa.string()),
        pa.field("connection", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("requested_by", pa.string()),
        pa.field("created_at", _MOMENT),
        pa.field("finished_at", _MOMENT, nullable=False),
        pa.field("duration_s", pa.float64()),
        pa.field("queued_s", pa.float64()),
        pa.field("running_s", pa.float64()),
        pa.field("transferring_s", pa.float64()),
        pa.field("files", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("source_bytes", pa.int64()),
        pa.field("rows", pa.int64()),
        pa.field("submits", pa.int64()),
        pa.field("polls", pa.int64()),
        pa.field("retries", pa.int64()),
        pa.field("error_code", pa.string()),
        pa.field("error_step", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("error_retryable", pa.bool_()),
        pa.field("platform_stage", pa.string()),
        pa.field("operation_id", pa.string()),
        pa.field("trace_id", pa.string()),
        pa.field("manifest", pa.string()),
        pa.field("objects", pa.list_(_OBJECT)),
        pa.field("metadata", pa.map_(pa.string(), pa.string())),
        pa.field("request", pa.string()),
        pa.field("timeline", pa.list_(_TIMELINE)),
    ]
)
"""The columns of the archive. Columns may be added; none is changed or removed."""


_ALWAYS_KNOWN = ("export_id", "generation", "finished_at")


def _tables(rows: Sequence[Row]) -> list[pa.Table]:
    """Returns rows as tables. A row with a value that Parquet cannot have must not keep an hour from the archive."""
    try:
        return [pa.Table.from_pylist(list(rows), schema=SCHEMA)]
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        if len(rows) > 1:
            return [table for row in rows for table in _tables([row])]
        if rows[0].keys() <= set(_ALWAYS_KNOWN):
            raise
        return _tables([{name: rows[0][name] for name in _ALWAYS_KNOWN}])


class ExportTable:
    """The bytes of one file of the archive, as rows are added to it."""

    def __init__(self) -> None:
        self._output = ParquetOutput()
        self._writer = arrow_parquet.ParquetWriter(pa.PythonFile(self._output, mode="w"), SCHEMA, compression="zstd")
        self._tables: list[pa.Table] = []

    def add(self, rows: Sequence[Row]) -> bytes:
        """Adds rows. Returns the bytes that are complete now."""
        self._tables += _tables(rows)
        if sum(map(len, self._tables)) >= GROUP_ROWS or sum(table.nbytes for table in self._tables) >= GROUP_BYTES:
            self._write_group()
        return self._output.take()

    def finish(self) -> bytes:
        """Returns the last bytes of the file."""
        self._write_group()
        self._writer.close()
        return self._output.take()

    def _write_group(self) -> None:
        if self._tables:
            table = pa.concat_tables(self._tables)
            self._tables = []
            self._writer.write_table(table, row_group_size=len(table))
            pa.default_memory_pool().release_unused()

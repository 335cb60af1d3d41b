"""CSV to Parquet: the rows that Python's csv reads, types, errors with their row, and bounded memory."""

import csv
import datetime as dt
import io
import tracemalloc
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from export_worker.contract.output import ColumnType, Compression
from export_worker.credentials import Redactor
from export_worker.errors import TransformError
from export_worker.transfer.transforms import csv_tables
from export_worker.transfer.transforms import parquet as parquet_transform
from export_worker.transfer.transforms.base import Pipeline, Transcoder, Transform
from export_worker.transfer.transforms.parquet import CsvToParquet
from export_worker.transfer.transforms.row_count import last_record_end

CUTS = st.lists(st.integers(0, 200), max_size=12)
HEADER = "a,b\r\n"
BLOCKS = st.integers(len(HEADER) + 4, 60)
"""Block sizes in bytes: small, so that block borders fall on every kind of character."""


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def run(transform: Transform, pieces: list[bytes]) -> bytes:
    return b"".join([transform.feed(piece) for piece in pieces] + [transform.finish()])


def read(stored: bytes) -> pa.Table:
    return parquet.read_table(pa.BufferReader(stored), use_threads=False)


def table_of(text: str, types: dict[str, ColumnType] | None = None) -> pa.Table:
    return read(run(CsvToParquet(types or {}), [text.encode()]))


def rows_of(table: pa.Table) -> list[list[Any]]:
    return [list(row.values()) for row in table.to_pylist()]


def as_csv_reads(text: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


UNQUOTED_FIELD = st.builds(
    str.__add__, st.sampled_from(["", "a", " ", "用", "\ufeff"]), st.text(st.sampled_from('" a用'), max_size=4)
)
PLAIN_FIELD = UNQUOTED_FIELD.filter(lambda text: not text.startswith('"'))
QUOTED = st.text(st.sampled_from('",\r\n a用'), max_size=8).map(lambda text: '"' + text.replace('"', '""') + '"')
FIELD = PLAIN_FIELD | QUOTED | st.builds(str.__add__, QUOTED, PLAIN_FIELD.filter(bool))
"""Valid fields, and invalid ones that writers produce: quotes within a plain field, text after a quoted one."""
ROW = st.builds("{},{}{}".format, FIELD, FIELD, st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\r\n\r\n"]))
BODY = st.lists(ROW, max_size=8).map("".join)


def in_blocks(block_bytes: int) -> pytest.MonkeyPatch:
    patch = pytest.MonkeyPatch()
    patch.setattr(csv_tables, "BLOCK_BYTES", block_bytes)
    patch.setattr(parquet_transform, "ROW_GROUP_BYTES", 40)
    return patch


@given(BODY, CUTS, BLOCKS, st.sampled_from(["UTF-16LE", "UTF-8", "GB18030"]))
@example('"x\ny",1\n2,3\n', [7, 8], 9, "UTF-8")
@example('5" pipe,"a\nb"\n1,2\n', [], 24, "UTF-8")
@example('a,""\n"","""\n"\n', [3], 12, "UTF-8")
@example("a,b\n\ufeffc,d\n", [], 9, "UTF-8")
def test_rows_are_those_that_pythons_csv_reads_for_all_pieces_and_blocks(
    body: str, cuts: list[int], block_bytes: int, charset: str
) -> None:
    text = HEADER + body
    transform = Pipeline([Transcoder(charset, "UTF-8"), CsvToParquet({})])
    patch = in_blocks(block_bytes)
    try:
        stored = run(transform, split(text.encode(charset), cuts))
    finally:
        patch.undo()
    table = read(stored)
    assert [table.column_names, *rows_of(table)] == as_csv_reads(text)


@given(st.text(st.sampled_from('",\r\n a用'), max_size=40), CUTS, BLOCKS)
@example('1,2\n"', [], 9)
@example("1,2\n3\n", [], 9)
def test_csv_that_is_not_a_table_is_refused_with_its_row(body: str, cuts: list[int], block_bytes: int) -> None:
    text = HEADER + body
    expected = as_csv_reads(text)
    is_open = as_csv_reads(f"{text}\nend")[-1] != ["end"]
    ragged = next((number for number, row in enumerate(expected, 1) if len(row) != 2), None)
    patch = in_blocks(block_bytes)
    try:
        stored = run(CsvToParquet({}), split(text.encode(), cuts))
    except TransformError as error:
        assert is_open or ragged
        message = str(error)
        assert (ragged and f"row {ragged} has {len(expected[ragged - 1])} fields" in message) or (
            is_open and message == f"the file ends within a quoted field of row {len(expected)}"
        ), message
    else:
        assert not is_open
        assert [["a", "b"], *rows_of(read(stored))] == expected
    finally:
        patch.undo()


@given(BODY, CUTS)
def test_parquet_output_does_not_depend_on_the_pieces(body: str, cuts: list[int]) -> None:
    data = (HEADER + body * 3).encode()
    patch = in_blocks(30)
    try:
        assert run(CsvToParquet({}), split(data, cuts)) == run(CsvToParquet({}), [data])
    finally:
        patch.undo()


@given(st.lists(st.builds("{},{}\n".format, QUOTED, QUOTED), min_size=1).map("".join))
@example('"\n","""\n"\n"\n","\n"\n')
def test_guessed_record_end_is_exact_if_quotes_are_valid(text: str) -> None:
    for data in (text.encode(), text.encode()[:-2]):
        assert csv_tables._guessed_end(data) == last_record_end(data)


def test_quote_within_a_plain_field_does_not_join_the_following_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_tables, "BLOCK_BYTES", 100)
    monkeypatch.setattr(csv_tables, "RECORD_MAX_BYTES", 400)
    assert rows_of(table_of('a,b\n1,5" pipe\n' + "2,3\n" * 500)) == [["1", '5" pipe'], *[["2", "3"]] * 500]


def test_column_without_a_type_keeps_its_text() -> None:
    table = table_of('id,note\n007,\nNULL," x "\n,NaN\n')
    assert [str(kind) for kind in table.schema.types] == ["string", "string"]
    assert rows_of(table) == [["007", ""], ["NULL", " x "], ["", "NaN"]]


def test_column_with_a_type_has_values_and_nulls_of_that_type() -> None:
    types: dict[str, ColumnType] = {
        "s": "string",
        "i": "int64",
        "f": "float64",
        "b": "bool",
        "d": "date",
        "t": "timestamp",
    }
    text = 'plain,s,i,f,b,d,t\n,,,,,,\nx,"a,b",-12,1e3,TRUE,2026-11-22,2026-11-22 03:04:05.5\n'
    table = table_of(text, types)
    assert [str(kind) for kind in table.schema.types] == [
        "string",
        "string",
        "int64",
        "double",
        "bool",
        "date32[day]",
        "timestamp[us]",
    ]
    when = dt.datetime(2026, 11, 22, 3, 4, 5, 500_000)  # noqa: DTZ001 - platforms write it without a time zone
    assert rows_of(table) == [["", *[None] * 6], ["x", "a,b", -12, 1000.0, True, dt.date(2026, 11, 22), when]]


TYPED = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.text(st.sampled_from('",\r\n a用'), min_size=1, max_size=8),
    st.none() | st.floats(allow_nan=False),
)


@given(st.lists(TYPED, max_size=20), CUTS, st.integers(20, 200))
@example([(None, None, None), (-12, "a", None), (7, None, 0.5)], [], 99)
def test_typed_values_of_all_blocks_are_those_that_were_written(
    rows: list[tuple[Any, ...]], cuts: list[int], block_bytes: int
) -> None:
    written = io.StringIO(newline="")
    csv.writer(written).writerows([["i", "s", "f"], *rows])
    patch = in_blocks(block_bytes)
    try:
        types: dict[str, ColumnType] = {"i": "int64", "s": "string", "f": "float64"}
        stored = run(CsvToParquet(types), split(written.getvalue().encode(), cuts))
    finally:
        patch.undo()
    assert rows_of(read(stored)) == [list(row) for row in rows]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int64", "1.0"),
        ("int64", " 1"),
        ("int64", "0x10"),
        ("int64", "+1"),
        ("int64", "9223372036854775808"),
        ("float64", "1,5"),
        ("float64", "x"),
        ("bool", "yes"),
        ("date", "2026-02-30"),
        ("date", "22.11.2026"),
        ("timestamp", "2026-11-22T03:00:00Z"),
        ("timestamp", "soon"),
    ],
)
@pytest.mark.parametrize("position", [1, 2, 700, 999, 1000])
def test_value_that_does_not_fit_its_type_is_reported_with_row_and_column(
    kind: ColumnType, value: str, position: int
) -> None:
    good = {"int64": "1", "float64": "1.5", "bool": "true", "date": "2026-11-22", "timestamp": "2026-11-22 03:00:00"}
    values = [good[kind]] * 1000
    values[position - 1] = value
    text = "".join(f'"{cell}"\r\n' for cell in ["城市", *values])
    patch = in_blocks(900)
    try:
        with pytest.raises(TransformError) as caught:
            table_of(text, {"城市": kind})
    finally:
        patch.undo()
    assert (
        str(caught.value) == f"row {position + 1} (the header is row 1), column '城市': the value is not a valid {kind}"
    )


@pytest.mark.parametrize(
    ("text", "types", "expected"),
    [
        ("", {}, "the file is empty, so nothing names Parquet's columns; set output.schema"),
        ("\r\n\n", {}, "the file is empty, so nothing names Parquet's columns; set output.schema"),
        ("a,b,a\n", {}, "the header names the column 'a' twice"),
        (f"{'x' * 81},{'x' * 81}", {}, f"the header names the column '{'x' * 80}…' twice"),
        ("a,,\n", {}, "the header names the column '' twice"),
        (
            "a,b\n1,2\n",
            {"c": "int64", "d": "bool"},
            "output.schema names the column 'c', which the header does not have",
        ),
        ("a\n", {"A": "string"}, "output.schema names the column 'A'"),
        ("x" * 200_000 + "\n", {}, "the header of the file cannot be read"),
        ("," * 10_000, {}, "the header has more than 10000 names"),
        (
            'a,b\n1,2\n1,"2\n' + "3\n" * 9_000_000,
            {},
            "row 3 has more than 16777216 bytes; check for a quote that is not closed",
        ),
    ],
    ids=["empty", "blank", "twice", "long twice", "no names", "unknown", "case", "long", "wide", "open"],
)
def test_table_that_cannot_be_converted_is_refused_with_the_reason(
    text: str, types: dict[str, ColumnType], expected: str
) -> None:
    with pytest.raises(TransformError, match=expected):
        table_of(text, types)


def test_header_longer_than_a_block_is_refused() -> None:
    with pytest.raises(TransformError, match="the header has more than 10000 names or 1048576 bytes"):
        table_of(",".join(f"{number:0200}" for number in range(9000)) + "\n")


def test_header_alone_becomes_a_table_without_rows() -> None:
    table = table_of('id,"a ""b"""', {"id": "int64"})
    assert (table.column_names, len(table), str(table.schema.types[0])) == (["id", 'a "b"'], 0, "int64")


@pytest.mark.parametrize("text", ["", "\r\n\n"])
def test_empty_file_with_a_schema_becomes_a_table_without_rows(text: str) -> None:
    table = table_of(text, {"id": "int64", "城市": "string"})
    assert (table.column_names, len(table)) == (["id", "城市"], 0)
    assert [str(kind) for kind in table.schema.types] == ["int64", "string"]


def test_null_values_are_null_in_columns_with_a_type_and_text_in_others() -> None:
    text = "i,s,plain\nNULL,\\N,NULL\n7,x,\\N\n-,NULL,\n"
    nulls = ["NULL", "\\N", "-"]
    stored = run(CsvToParquet({"i": "int64", "s": "string"}, null_values=nulls), [text.encode()])
    assert rows_of(read(stored)) == [[None, None, "NULL"], [7, "x", "\\N"], [None, None, ""]]


@pytest.mark.parametrize(("compression", "codec"), [("none", "UNCOMPRESSED"), ("gzip", "GZIP"), ("zstd", "ZSTD")])
def test_compression_is_applied_to_the_columns(compression: Compression, codec: str) -> None:
    stored = run(CsvToParquet({}, compression), [b"a\n" + b"x\n" * 1000])
    column = parquet.ParquetFile(pa.BufferReader(stored)).metadata.row_group(0).column(0)
    assert column.compression == codec


PIECE = "".join(f'{number},北京,"note {number}, ""said"" he\nand went"\r\n' for number in range(5000)).encode()
HEAD = "id,城市,note\r\n".encode()


def test_memory_is_bounded_and_output_is_returned_before_the_end() -> None:
    transform, before = CsvToParquet({"id": "int64"}, "zstd"), pa.total_allocated_bytes()
    arrow_peak = returned = 0
    tracemalloc.start()
    try:
        for piece in (HEAD, *[PIECE] * 400):
            returned += len(transform.feed(piece))
            arrow_peak = max(arrow_peak, pa.total_allocated_bytes() - before)
        rest = len(transform.finish())
        _, python_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 400 * len(PIECE) > 5 * parquet_transform.ROW_GROUP_BYTES
    assert returned > rest, "output is kept back until the end"
    assert arrow_peak < 2 * parquet_transform.ROW_GROUP_BYTES
    assert python_peak < parquet_transform.ROW_GROUP_BYTES


def test_row_groups_have_a_bounded_size() -> None:
    stored = run(CsvToParquet({}), [HEAD, *[PIECE] * 300])
    metadata = parquet.ParquetFile(pa.BufferReader(stored)).metadata
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert len(sizes) > 3
    assert min(sizes[:-1]) > 100_000
    assert max(sizes[:-1]) < 200_000
    assert sum(sizes) == 300 * 5000


@pytest.mark.parametrize("before", range(60, 90, 3))
def test_secret_in_the_name_of_a_column_is_masked_before_the_name_is_cut(before: int) -> None:
    redactor = Redactor()
    redactor.add("T0kenWxyZ987")
    name = "x" * before + "T0kenWxyZ987" + "y" * 99
    transform = CsvToParquet({}, redactor=redactor)
    with pytest.raises(TransformError) as caught:
        run(transform, [f"{name},{name}\n".encode()])
    assert "T0k" not in str(caught.value)

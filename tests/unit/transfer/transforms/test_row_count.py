import csv
import io
import json
import sys
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from export_worker.errors import TransformError
from export_worker.transfer.transforms.base import Transform, build_transform
from export_worker.transfer.transforms.row_count import (
    _BYTE_CHARSETS,
    Counting,
    CsvRows,
    JsonRows,
    Rows,
    counted,
    rows_of,
)

CUTS = st.lists(st.integers(0, 60), max_size=12)
MARKS = st.text(st.sampled_from('",\r\n a用'), max_size=40)
"""Everything that means something to CSV, dense enough to meet in every order."""
CELLS = st.lists(st.lists(MARKS, min_size=1, max_size=4), max_size=6)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def passed(transform: Transform, pieces: list[bytes]) -> bytes:
    return b"".join([transform.feed(piece) for piece in pieces] + [transform.finish()])


def count(rows: Rows, text: str, charset: str, cuts: list[int]) -> int:
    data = text.encode(charset)
    assert passed(Counting(rows, charset), split(data, cuts)) == data
    return rows.count


def as_csv_reads(text: str) -> int:
    """Rows that Python's csv finds, but for empty lines."""
    return sum(1 for row in csv.reader(io.StringIO(text, newline="")) if row)


@given(MARKS, CUTS)
@example('a,"b\n', [6])
@example('"a""', [4])
@example('"a"\n"b"', [3])
@example('x"\n"', [2])
@example('"a"b"\n"\n"', [])
@example("\r\n\r\na\r", [1, 3])
def test_csv_of_any_kind_has_the_rows_that_pythons_csv_reads(text: str, cuts: list[int]) -> None:
    assert count(CsvRows(), text, "UTF-8", cuts) == as_csv_reads(text)


@given(CELLS, st.sampled_from(["\n", "\r\n", "\r"]), CUTS)
def test_what_csv_quotes_has_as_many_rows(cells: list[list[str]], end: str, cuts: list[int]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(cells)
    assert count(CsvRows(), written.getvalue(), "UTF-8", cuts) == len(cells)


@given(MARKS, st.sampled_from(["UTF-16LE", "UTF-16", "UTF-32BE", "GB18030", "UTF-8-SIG", "ISO2022_JP_2", "Big5"]), CUTS)
def test_any_charset_is_counted_as_text(text: str, charset: str, cuts: list[int]) -> None:
    assert count(CsvRows(), text, charset, cuts) == as_csv_reads(text)


@pytest.mark.parametrize("charset", ["UTF-8", "UTF-16LE", "UTF-16BE", "GB18030", "UTF-32LE"])
def test_a_byte_order_mark_is_no_part_of_a_row(charset: str) -> None:
    every_byte = list(range(60))
    assert count(CsvRows(), '\ufeff"a\nb"\n', charset, every_byte) == 1
    assert count(CsvRows(), "\ufeff\n", charset, every_byte) == 0


def test_the_half_of_a_byte_order_mark_is_text() -> None:
    rows = CsvRows()
    passed(Counting(rows, "UTF-8"), [b"\xef\xbb"])
    assert rows.count == 1


@given(st.lists(st.dictionaries(MARKS, MARKS, max_size=3), max_size=6), st.sampled_from(["\n", "\r\n"]), CUTS)
def test_ndjson_has_a_row_a_value(values: list[dict[str, str]], end: str, cuts: list[int]) -> None:
    text = end.join(json.dumps(value, ensure_ascii=False) for value in values)
    assert count(JsonRows(), text, "UTF-8", cuts) == len(values)
    assert count(JsonRows(), f"{text}{end}", "UTF-8", cuts) == len(values)


@given(st.text(st.sampled_from("\n\r\t {}1"), max_size=40), CUTS)
def test_blank_lines_of_ndjson_are_no_rows(text: str, cuts: list[int]) -> None:
    assert count(JsonRows(), text, "UTF-8", cuts) == sum(1 for line in text.split("\n") if line.strip())


@pytest.mark.parametrize("charset", sorted(_BYTE_CHARSETS))
def test_a_charset_that_is_read_by_bytes_has_no_mark_within_a_character(charset: str) -> None:
    everything = "".join(map(chr, range(0x80, sys.maxunicode + 1)))
    assert not set(everything.encode(charset, "ignore")) & set(b'",\r\n')


@pytest.mark.parametrize(
    ("file_name", "kind"),
    [("下载.CSV", CsvRows), ("a.json", JsonRows), ("a.ndjson", JsonRows), ("a.jsonl", JsonRows)],
)
def test_the_name_tells_the_format(file_name: str, kind: type[Rows]) -> None:
    assert type(rows_of(file_name)) is kind


@pytest.mark.parametrize("file_name", ["a.zip", "a.csv.gz", "csv", "a.parquet"])
def test_what_is_no_table_is_not_counted(file_name: str) -> None:
    assert rows_of(file_name) is None


def test_rows_are_counted_before_the_bytes_are_changed() -> None:
    rows, text = CsvRows(), 'a,b\r\n1,"2\n3"\r\n'
    transform = counted(build_transform("UTF-16LE", "GB18030"), rows, "UTF-16LE")
    assert passed(transform, split(text.encode("UTF-16LE"), [3, 7])) == text.encode("GB18030")
    assert rows.count == 2


def test_an_unknown_charset_is_told() -> None:
    with pytest.raises(TransformError, match="cannot count rows in klingon: must be a charset"):
        Counting(CsvRows(), "klingon")


def test_bytes_that_do_not_fit_the_charset_are_told() -> None:
    with pytest.raises(TransformError, match="the file is not UTF-16LE"):
        passed(Counting(CsvRows(), "UTF-16LE"), [b"a"])

"""Row counts of CSV and NDJSON streams, compared with Python's csv and json."""

import csv
import io
import json
import sys
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from export_worker.transfer.transforms.base import Transform, build_transform
from export_worker.transfer.transforms.row_count import (
    _BYTE_CHARSETS,
    CsvRowCounter,
    JsonRowCounter,
    RowCounter,
    RowCountingTransform,
    row_counter_for,
    with_row_count,
)

CUTS = st.lists(st.integers(0, 60), max_size=12)
CSV_TEXT = st.text(st.sampled_from('",\r\n a用'), max_size=40)
"""Texts of the characters that have a meaning in CSV, in every order."""
CELLS = st.lists(st.lists(CSV_TEXT, min_size=1, max_size=4), max_size=6)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def run(transform: Transform, pieces: list[bytes]) -> bytes:
    return b"".join([transform.feed(piece) for piece in pieces] + [transform.finish()])


def count(rows: RowCounter, text: str, charset: str, cuts: list[int]) -> int | None:
    data = text.encode(charset)
    assert run(RowCountingTransform(rows, charset), split(data, cuts)) == data
    return rows.count


def as_csv_reads(text: str) -> int:
    """Returns how many rows Python's csv finds; empty lines do not count."""
    return sum(1 for row in csv.reader(io.StringIO(text, newline="")) if row)


@given(CSV_TEXT, CUTS)
@example('a,"b\n', [6])
@example('"a""', [4])
@example('"a"\n"b"', [3])
@example('x"\n"', [2])
@example('"a"b"\n"\n"', [])
@example("\r\n\r\na\r", [1, 3])
def test_rows_of_any_csv_text_are_those_that_pythons_csv_reads(text: str, cuts: list[int]) -> None:
    assert count(CsvRowCounter(), text, "UTF-8", cuts) == as_csv_reads(text)


@given(CELLS, st.sampled_from(["\n", "\r\n", "\r"]), CUTS)
def test_rows_of_quoted_csv_are_those_that_were_written(cells: list[list[str]], end: str, cuts: list[int]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(cells)
    assert count(CsvRowCounter(), written.getvalue(), "UTF-8", cuts) == len(cells)


@given(
    CSV_TEXT, st.sampled_from(["UTF-16LE", "UTF-16", "UTF-32BE", "GB18030", "UTF-8-SIG", "ISO2022_JP_2", "Big5"]), CUTS
)
def test_rows_are_counted_in_any_charset(text: str, charset: str, cuts: list[int]) -> None:
    assert count(CsvRowCounter(), text, charset, cuts) == as_csv_reads(text)


@pytest.mark.parametrize("charset", ["UTF-8", "UTF-16LE", "UTF-16BE", "GB18030", "UTF-32LE"])
def test_byte_order_mark_is_not_counted_as_a_row(charset: str) -> None:
    every_byte = list(range(60))
    assert count(CsvRowCounter(), '\ufeff"a\nb"\n', charset, every_byte) == 1
    assert count(CsvRowCounter(), "\ufeff\n", charset, every_byte) == 0


def test_incomplete_byte_order_mark_is_counted_as_text() -> None:
    rows = CsvRowCounter()
    run(RowCountingTransform(rows, "UTF-8"), [b"\xef\xbb"])
    assert rows.count == 1


@given(st.lists(st.dictionaries(CSV_TEXT, CSV_TEXT, max_size=3), max_size=6), st.sampled_from(["\n", "\r\n"]), CUTS)
def test_rows_of_ndjson_are_its_values(values: list[dict[str, str]], end: str, cuts: list[int]) -> None:
    text = end.join(json.dumps(value, ensure_ascii=False) for value in values)
    assert count(JsonRowCounter(), text, "UTF-8", cuts) == len(values)
    assert count(JsonRowCounter(), f"{text}{end}", "UTF-8", cuts) == len(values)


@given(st.text(st.sampled_from("\n\r\t {}1"), max_size=40), CUTS)
def test_blank_lines_of_ndjson_are_not_counted_and_other_lines_make_the_count_unknown(
    text: str, cuts: list[int]
) -> None:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    expected = len(lines) if all(line[0] == "{" and line[-1] == "}" for line in lines) else None
    assert count(JsonRowCounter(), text, "UTF-8", cuts) == expected


@pytest.mark.parametrize("charset", sorted(_BYTE_CHARSETS))
def test_charset_that_is_counted_by_bytes_has_no_csv_byte_within_a_character(charset: str) -> None:
    everything = "".join(map(chr, range(0x80, sys.maxunicode + 1)))
    assert not set(everything.encode(charset, "ignore")) & set(b'",\r\n')


@pytest.mark.parametrize(
    ("file_name", "kind"),
    [
        ("下载.CSV", CsvRowCounter),
        ("a.json", JsonRowCounter),
        ("a.ndjson", JsonRowCounter),
        ("a.jsonl", JsonRowCounter),
    ],
)
def test_row_counter_is_chosen_by_the_file_extension(file_name: str, kind: type[RowCounter]) -> None:
    assert type(row_counter_for(file_name)) is kind


@pytest.mark.parametrize("file_name", ["a.zip", "a.csv.gz", "csv", "a.parquet"])
def test_file_without_rows_has_no_row_counter(file_name: str) -> None:
    assert row_counter_for(file_name) is None


def test_with_row_count_counts_the_rows_of_the_source() -> None:
    rows, text = CsvRowCounter(), 'a,b\r\n1,"2\n3"\r\n'
    transform = with_row_count(build_transform("UTF-16LE", "GB18030"), rows, "UTF-16LE")
    assert run(transform, split(text.encode("UTF-16LE"), [3, 7])) == text.encode("GB18030")
    assert rows.count == 2


@pytest.mark.parametrize(
    ("label", "data"),
    [
        ("klingon", b"a\nb\n"),
        ("UTF-16LE", b"a"),
        ("UTF-16LE", "a\nb\n".encode("UTF-16BE")),
        ("UTF-8", "\ufeffa\nb\n".encode("UTF-16LE")),
        (None, "a\nb\n".encode("UTF-16LE")),
    ],
)
def test_row_count_of_bytes_in_another_charset_is_unknown_and_the_bytes_are_unchanged(
    label: str | None, data: bytes
) -> None:
    rows = CsvRowCounter()
    assert run(RowCountingTransform(rows, label), [data]) == data
    assert rows.count is None


def test_byte_order_mark_shows_the_charset_if_the_platform_was_asked_for_none() -> None:
    rows = CsvRowCounter()
    run(RowCountingTransform(rows, None), ["\ufeffa\n用\n".encode("UTF-16LE")])
    assert rows.count == 2


@pytest.mark.parametrize("text", ["[1]\n[2]\n", "[1] \r\n\n [2]\t"])
def test_arrays_are_rows_of_ndjson(text: str) -> None:
    assert count(JsonRowCounter(), text, "UTF-8", list(range(60))) == 2


@pytest.mark.parametrize(
    "text",
    [
        '[\n{"a":1},\n{"a":2}]',
        '[\n{"a":1}, \r\n{"a":2}\n]\n',
        '[{"a":1},\n{"a":2}]',
        '{"a":1},\n{"a":2}\n',
        '{"a":1},\n{"a":2},',
        "[[1],\n[2]]",
        '[1]\n{"a":2}\n',
        '{"a":[\n{"b":1}]}',
    ],
)
@pytest.mark.parametrize("cuts", [[], list(range(60))])
def test_rows_of_an_array_with_an_object_on_each_line_are_unknown(text: str, cuts: list[int]) -> None:
    assert count(JsonRowCounter(), text, "UTF-8", cuts) is None


@pytest.mark.parametrize("text", ['[\n  {"a": 1},\n  {"a": 2}\n]\n', '[{"a": 1}, {"a": 2}]', '{\n  "a": 1\n}\n'])
def test_rows_of_one_json_document_are_unknown(text: str) -> None:
    rows = JsonRowCounter()
    run(RowCountingTransform(rows, None), split(text.encode(), list(range(60))))
    assert rows.count is None

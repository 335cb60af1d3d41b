"""Tables from pages: the rows and their number do not depend on where the chunks of a page end."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export_worker.errors import DownloadInvalidError
from export_worker.platforms.thinkingdata.operation_ids import Query, Refresh, parse_operation_id
from export_worker.platforms.thinkingdata.rows import LINE_MAX_BYTES, CsvTable, JsonTable, PageReader, Table
from export_worker.platforms.thinkingdata.sql import identifier, literal
from export_worker.simulator.thinkingdata.sql import read_statement

COLUMNS = ("a", "b")
TEXTS = st.text(st.sampled_from("ab\",{}\r\n'“” 中"), max_size=6)
ROWS = st.lists(st.tuples(TEXTS, TEXTS), max_size=6)
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=50)


def is_envelope(value: Any) -> bool:
    return isinstance(value, dict) and value.get("return_code") == 0


def converted(table: Table, pages: list[bytes], cuts: list[int]) -> bytes:
    parts = []
    for page in pages:
        reader = PageReader(is_envelope)
        position = 0
        for size in cuts:
            parts.append(table.add(reader.feed(page[position : position + size])))
            position += size
        parts += [table.add(reader.feed(page[position:])), table.add(reader.finish())]
        table.end_page()
    return b"".join(parts)


def written(rows: list[tuple[str, str]], end: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


def test_chunk_without_line_end_adds_nothing_to_quoted_value() -> None:
    page = b'"%s","a\nbcdef"' % (b"x" * 80)
    assert converted(CsvTable(COLUMNS), [page], [88, 1, 1]) == page + b"\n"


@settings(deadline=None)
@given(pages=st.lists(ROWS, max_size=3), cuts=CUTS, end=st.sampled_from(["\n", "\r\n"]), final=st.booleans())
def test_csv_pages_in_any_chunks_give_same_rows(
    pages: list[list[tuple[str, str]]], cuts: list[int], end: str, final: bool
) -> None:
    sent = [written(rows, end) for rows in pages]
    table = CsvTable(COLUMNS)
    content = converted(table, sent if final else [page.removesuffix(end.encode()) for page in sent], cuts)
    rows = [row for page in pages for row in page]
    assert table.rows == len(rows)
    assert content == written(rows, "\n")


@settings(deadline=None)
@given(pages=st.lists(ROWS, max_size=3), cuts=CUTS)
def test_json_pages_in_any_chunks_give_same_rows(pages: list[list[tuple[str, str]]], cuts: list[int]) -> None:
    sent = ["\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode() for rows in pages]
    table = JsonTable(COLUMNS)
    lines = converted(table, sent, cuts).decode().split("\n")[:-1]
    rows = [row for page in pages for row in page]
    assert [tuple(json.loads(line).values()) for line in lines] == rows
    assert table.rows == len(rows)


@pytest.mark.parametrize(
    ("page", "rows", "content"),
    [
        (b"", 0, b""),
        (b"\n\r\n", 0, b""),
        (b"1,2\n\n3,4\r\n\r\n", 2, b"1,2\n3,4\n"),
        ('1,“a"\n2,b"c\n'.encode(), 2, '1,“a"\n2,b"c\n'.encode()),
        (b'1,"never closed\n2,x\n3,y', 3, b'1,"never closed\n2,x\n3,y\n'),
        (b'1,"a"b\n"2,x\n3,"y"\n', 3, b'1,"a"b\n"2,x\n3,"y"\n'),
        (b'1,"a\r\nb"\r\n', 1, b'1,"a\r\nb"\n'),
        (b"\xef\xbb\xbf1,2\n", 1, b"1,2\n"),
        (b'{"return_code":0}\n1,2', 1, b"1,2\n"),
        (b'{\n"return_code":\n0\n}', 0, b""),
        (b"{a,b}\n{c,d}", 2, b"{a,b}\n{c,d}\n"),
        (b'"{",2\n', 1, b'"{",2\n'),
    ],
)
@pytest.mark.parametrize("cuts", [[1] * 60, [1000]])
def test_unusual_page_is_read(page: bytes, rows: int, content: bytes, cuts: list[int]) -> None:
    table = CsvTable(COLUMNS)
    assert converted(table, [page], cuts) == content
    assert table.rows == rows


def test_page_with_unbalanced_quotes_does_not_affect_next_page() -> None:
    table = CsvTable(COLUMNS)
    converted(table, [b'1,"x\n2,y\n', b'3,"two\nlines"\n'], [1000])
    assert table.rows == 3


@pytest.mark.parametrize("line", [b"[1]\n", b"[1,2,3]\n", b'{"a":1}\n', b"[1,2\n", b"17\n", b"[1,\xff]\n", b"[" * 9999])
def test_json_line_that_is_no_row_raises_invalid(line: bytes) -> None:
    with pytest.raises(DownloadInvalidError):
        JsonTable(COLUMNS).add(line)


def test_line_without_end_raises_invalid() -> None:
    reader = PageReader(is_envelope)
    assert reader.feed(b"x" * LINE_MAX_BYTES) == b""
    with pytest.raises(DownloadInvalidError, match="a line of the result"):
        reader.feed(b"x")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", [b',"x', b'"', b"\\", b',"\\"', b'","'])
def test_long_line_with_unbalanced_quotes_is_checked_in_linear_time(piece: bytes) -> None:
    table = CsvTable(["a"] * 100)
    table.add(b'"a"b,"' + piece * (2**22 // len(piece)) + b"\n")
    with pytest.raises(DownloadInvalidError):
        table.end_page()


@settings(deadline=None)
@given(st.text())
def test_quoted_names_and_literals_are_read_by_other_parser(text: str) -> None:
    sql = (
        f"SELECT u.{identifier(text)} FROM ta.user_result_cluster_7 c LEFT JOIN ta.v_user_7 u "
        f'ON c."#user_id" = u."#user_id" WHERE c.cluster_name = {literal(text)}'
    )
    selection = read_statement(sql)
    assert (selection.project, selection.cluster, selection.columns) == ("7", text, (text,))


@settings(deadline=None)
@given(cluster=st.text(min_size=1), time=st.text(), progress=st.none() | st.integers(-1, 100), started=st.booleans())
def test_operation_id_of_refresh_survives_formatting_and_parsing(
    cluster: str, time: str, progress: int | None, started: bool
) -> None:
    refresh = Refresh(cluster, time, progress, started=started)
    assert parse_operation_id(str(refresh)) == refresh


@settings(deadline=None)
@given(task=st.text(min_size=1), cluster=st.text(min_size=1), restarts=st.integers(0, 9))
def test_operation_id_of_query_survives_formatting_and_parsing(task: str, cluster: str, restarts: int) -> None:
    query = Query(task, cluster, restarts)
    assert parse_operation_id(str(query)) == query


@pytest.mark.parametrize(
    ("page", "row", "values"),
    [
        (b"nothing\n", 1, 1),
        (b"1,2\nService Unavailable\n", 2, 1),
        (b"1,2,3\n", 1, 3),
        (b"1,2\n3\n4,5,6\n", 2, 1),
        (b'1,"a,b"\n"x","y","z"\n', 2, 3),
        (b'1,"two\nlines, and a comma"\n2,"two\nlines",3\n', 2, 3),
        (b'1,2\n\n"alice@example.cn"\n', 2, 1),
    ],
)
@pytest.mark.parametrize("cuts", [[1] * 90, [4], [1000]])
def test_row_with_another_number_of_values_is_refused_by_its_number_and_not_quoted(
    page: bytes, row: int, values: int, cuts: list[int]
) -> None:
    with pytest.raises(DownloadInvalidError) as caught:
        converted(CsvTable(COLUMNS), [page], cuts)
    assert str(caught.value) == f"row {row} of the result has {values} values for 2 columns"

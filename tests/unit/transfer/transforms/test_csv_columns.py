"""Columns of CSV that are dropped, hashed and masked: the rows that Python's csv reads, for all pieces and blocks."""

import csv
import hashlib
import hmac
import io
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from export_worker.errors import TransformError
from export_worker.transfer.transforms import csv_tables
from export_worker.transfer.transforms.base import Transform
from export_worker.transfer.transforms.column_rules import ColumnActions, ColumnPolicy, ColumnRules
from export_worker.transfer.transforms.csv_columns import CsvColumns
from export_worker.transfer.transforms.keyed_hash import KeyedHash

KEY = b"0123456789abcdef"
RULES = {"gone": "drop", "id": "hash", "tel": "mask:2", "note": "mask", "kept": "keep"}
HEADER = ["id", "gone", "tel", "note", "kept", "other"]
WIDE = "\uff30\uff48\uff4f\uff4e\uff45"
"""`Phone` in wide letters."""
CUTS = st.lists(st.integers(0, 400), max_size=12)


def columns(rules: dict[str, str]) -> CsvColumns:
    return CsvColumns(ColumnActions(ColumnRules(rules, ColumnPolicy(hashing=KeyedHash(KEY)))))


def run(transform: Transform, pieces: list[bytes]) -> bytes:
    return b"".join([transform.feed(piece) for piece in pieces] + [transform.finish()])


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def hashed(value: str) -> str:
    return hmac.new(KEY, value.encode(), hashlib.sha256).hexdigest()


def masked(value: str, kept: int = 0) -> str:
    shown = value[-kept:] if kept and len(value) > kept else ""
    return "*" * (len(value) - len(shown)) + shown


def as_a_naive_writer_writes(text: str, line_end: str) -> bytes:
    """Changes the rows of `HEADER` by `RULES`, with Python's csv."""
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    written = []
    for number, (user, _, tel, note, kept, other) in enumerate(rows):
        header = number == 0
        values = [user, tel, note] if header else [user and hashed(user), masked(tel, 2), masked(note)]
        written.append(",".join(map(quoted, [*values, kept, other])) + line_end)
    return "".join(written).encode()


def quoted(value: str) -> str:
    """Unlike Python's csv before 3.13, quotes a value with a CR under every line end."""
    return '"' + value.replace('"', '""') + '"' if set(value) & set('",\r\n') else value


PLAIN = st.text(st.sampled_from('" a用\U0001f600'), max_size=4).filter(lambda text: not text.startswith('"'))
QUOTED = st.text(st.sampled_from('",\r\n a用\0'), min_size=1, max_size=6).map(
    lambda text: '"' + text.replace('"', '""') + '"'
)
FIELD = PLAIN | QUOTED | st.builds(str.__add__, QUOTED, PLAIN.filter(bool))
ROW = st.builds(",".join, st.lists(FIELD, min_size=6, max_size=6)).filter(lambda row: row != ",,,,,")


@given(st.lists(ROW, max_size=6), CUTS, st.integers(40, 90), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
@example(['a,b,"13\n800",n,k,"x,y"'], list(range(100)), 40, "\r\n", False)
@example(["\ufeff,b,1,2,3,4"], [], 40, "\n", True)
def test_bytes_are_those_of_a_naive_writer_for_all_pieces_and_blocks(
    rows: list[str], cuts: list[int], block_bytes: int, line_end: str, is_ended: bool
) -> None:
    text = line_end.join([",".join(HEADER), *rows]) + line_end * is_ended
    patch = pytest.MonkeyPatch()
    patch.setattr(csv_tables, "BLOCK_BYTES", block_bytes)
    try:
        written = run(columns(RULES), split(text.encode(), cuts))
    finally:
        patch.undo()
    assert written == as_a_naive_writer_writes(text, line_end if is_ended or rows else "\n")


def test_piece_of_each_byte_gives_the_same_bytes() -> None:
    data = 'id,gone,tel,note,kept,other\r\n1,x,"13""800",用户,,""\r\n\r\n2,"\r\n",ab,,"a,b",\r\n'.encode()
    written = run(columns(RULES), [data[index : index + 1] for index in range(len(data))])
    assert written == run(columns(RULES), [data])
    expected = f'id,tel,note,kept,other\r\n{hashed("1")},****00,**,,""\r\n{hashed("2")},**,,"a,b",\r\n'
    assert written == expected.encode()


@pytest.mark.parametrize(
    ("text", "rules", "written"),
    [
        ('a,b\n1,\n2,""\n', {"a": "drop"}, 'b\n""\n""\n'),
        ("a,a,b\n1,2,3\n", {"a": "drop"}, "b\n3\n"),
        ("a,a,b\n12,34,5\n", {"a": "mask:1"}, "a,a,b\n*2,*4,5\n"),
        (f"{WIDE} ,b\n12,5\n", {"phone": "mask"}, f"{WIDE} ,b\n**,5\n"),
        ("a,,b\n1,2,3\n", {"*": "keep", "a": "drop"}, ",b\n2,3\n"),
        ("a,b", {"a": "drop"}, "b\n"),
        ("", {"a": "drop"}, ""),
        ("\r\n\n", {"a": "drop"}, ""),
    ],
)
def test_unusual_file_is_written_as_csv(text: str, rules: dict[str, str], written: str) -> None:
    assert run(columns(rules), [text.encode()]) == written.encode()


@pytest.mark.parametrize(
    ("text", "rules", "message"),
    [
        ("a,b\nsecret,1\n", {"c": "drop"}, "output.columns names 'c', but the file has no such column"),
        ("a,b\nsecret,1\n", {"*": "drop"}, "drop every column"),
        ("a,b\nsecret,1,2\n", {"a": "drop"}, "row 2 has 3 fields where the header (row 1) has 2"),
        ('a,b\n1,"secret\n', {"a": "drop"}, "the file ends within a quoted field of row 2"),
    ],
)
def test_file_that_does_not_fit_is_refused_without_its_values(text: str, rules: dict[str, str], message: str) -> None:
    with pytest.raises(TransformError) as caught:
        run(columns(rules), [text.encode()])
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_record_of_nearly_16_mib_and_ten_thousand_columns_are_changed() -> None:
    long = "x" * (2**24 - 2**21)
    assert run(columns({"a": "mask"}), [f"a,b\n{long},1\n".encode()]) == f"a,b\n{'*' * len(long)},1\n".encode()
    names = [f"c{number}" for number in range(10_000)]
    written = run(columns({"*": "drop", "c7": "keep"}), [f"{','.join(names)}\n{','.join(names)}\n".encode()])
    assert written == b"c7\nc7\n"


def test_memory_does_not_grow_with_the_file() -> None:
    rows = b"".join(b"%d,x,13800000000,note,kept,other\n" % number for number in range(8_000))
    transform = columns(RULES)
    transform.feed(",".join(HEADER).encode() + b"\n")
    peaks = []
    for _ in range(2):
        tracemalloc.start()
        for _ in range(12):
            transform.feed(rows)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2

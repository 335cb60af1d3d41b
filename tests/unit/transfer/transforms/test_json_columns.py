"""Columns of NDJSON that are dropped, hashed and masked."""

import hashlib
import hmac
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.errors import TransformError
from export_worker.transfer.transforms import json_columns
from export_worker.transfer.transforms.column_rules import ColumnActions, ColumnPolicy, ColumnRules
from export_worker.transfer.transforms.json_columns import JsonColumns
from export_worker.transfer.transforms.keyed_hash import KeyedHash

Writing = dict[str, Any]
KEY = b"0123456789abcdef"
RULES = {"gone*": "drop", "id*": "hash", "*tel": "mask:2"}


def run(pieces: list[bytes], rules: dict[str, str]) -> bytes:
    transform = JsonColumns(ColumnActions(ColumnRules(rules, ColumnPolicy(hashing=KeyedHash(KEY)))))
    return b"".join([transform.feed(piece) for piece in pieces] + [transform.finish()])


def hashed(text: str) -> str:
    return hmac.new(KEY, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def plain(value: Any, writing: Writing) -> str:
    return value if isinstance(value, str) else json.dumps(value, **writing)


def changed(document: dict[str, Any], writing: Writing) -> dict[str, Any]:
    """Changes an object by `RULES`."""
    document = {key: value for key, value in document.items() if key != "gone"}
    if document.get("id") is not None and document["id"] != "":
        document["id"] = hashed(plain(document["id"], writing))
    if "tel" in document and document["tel"] is not None:
        text = plain(document["tel"], writing)
        document["tel"] = "*" * len(text) if len(text) < 3 else "*" * (len(text) - 2) + text[-2:]
    return document


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
ROW = st.dictionaries(st.sampled_from(["id", "gone", "tel", "x", "用户", 'a"\\']), VALUE, max_size=5)


@given(st.lists(ROW, min_size=1, max_size=5), st.lists(st.integers(0, 300), max_size=8), st.booleans(), st.booleans())
def test_objects_are_changed_for_all_pieces(
    rows: list[dict[str, Any]], cuts: list[int], is_ascii: bool, is_compact: bool
) -> None:
    writing: Writing = {"ensure_ascii": is_ascii, "separators": (",", ":") if is_compact else (", ", " : ")}
    lines = [json.dumps(row, **writing) for row in rows]
    data = "\r\n".join([*lines, '{"id":"","gone":1}']).encode("utf-8", "replace")
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    stored = run([data[start:end] for start, end in pairwise(borders)], RULES)
    expected = [changed(json.loads(line), writing) for line in data.decode().split("\r\n")]
    assert [json.loads(line) for line in stored.decode().split("\r\n")] == expected


TEXT = st.text(st.sampled_from('a"\\\n\t用\x01\ud800 ,:{}'), max_size=4)
EQUAL_ROW = st.fixed_dictionaries(
    {"id": TEXT | st.integers() | st.none(), "gone": VALUE, "x": VALUE, "tel": TEXT | st.floats(allow_nan=False)}
)


@given(st.lists(EQUAL_ROW | ROW, min_size=1, max_size=6), st.booleans(), st.sampled_from(["\n", "\r\n", " \n"]))
def test_lines_of_one_shape_have_the_bytes_of_lines_that_are_parsed_one_by_one(
    rows: list[dict[str, Any]], is_compact: bool, line_end: str
) -> None:
    separators = (",", ":") if is_compact else (", ", ": ")
    lines = [json.dumps(row, ensure_ascii=False, separators=separators) + line_end for row in rows]
    data = "".join(lines).encode("utf-8", "replace")
    patch = pytest.MonkeyPatch()
    patch.setattr(json_columns, "MEMBERS_MAX", -1)
    try:
        one_by_one = run([data], RULES)
    finally:
        patch.undo()
    assert run([data], RULES) == one_by_one
    assert run([data[index : index + 1] for index in range(len(data))], RULES) == one_by_one


def test_what_is_kept_has_its_own_text() -> None:
    data = b'{"n": 1.50 ,"gone":{"id":"x"},"big":1e999}\n\n'
    assert run([data], {"gone": "drop"}) == b'{"n": 1.50,"big":1e999}\n'
    assert run([b' {"n" : 1 }\r\n{}'], {"*x": "drop"}) == b' {"n" : 1 }\r\n{}'
    assert run([b'{"a":1,"a":2,"b":3}\n'], {"a": "drop"}) == b'{"b":3}\n'


@pytest.mark.parametrize("line", ["[1]", '"secret"', '{"a":"secret"', '{"a" 1}', '{"a":1,}', '{"a":1}x', "[" * 10**5])
def test_line_that_is_no_object_is_refused_without_its_values(line: str) -> None:
    with pytest.raises(TransformError) as caught:
        run([b'{"a":1}\n', line.encode()], {"a": "mask"})
    assert str(caught.value) == "line 2 is not a JSON object; output.columns needs one on each line"


def test_column_that_no_line_has_fails_the_file_unless_it_has_no_lines() -> None:
    with pytest.raises(TransformError, match="names 'phone', but the file has no such column"):
        run([b'{"a":1}\n'], {"phone": "drop"})
    assert run([b"\n"], {"phone": "drop"}) == b""


def test_long_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_columns, "LINE_MAX_BYTES", 30)
    with pytest.raises(TransformError, match="line 2 has more than 30 bytes"):
        run([b'{"a":1}\n', b'{"a":"', b"x" * 30], {"a": "drop"})

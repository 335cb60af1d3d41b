"""The cause of a failure: the message without what is different in each export."""

import re
from time import process_time
from typing import Any

import pytest

from export_producers.reads.causes import MESSAGE_MAX_CHARS, cause_of


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("HTTP 503", "HTTP 503"),
        ("HTTP 503 after 12 attempts in 40.5 s", "HTTP 503 after … attempts in … s"),
        ("no tag t_paying in project WlGk4Daj", "no tag … in project …"),
        ("segment '分群4' (qgQMXnD3) is of another owner", "segment '…' (…) is of another owner"),
        ("operation op-a has stopped at 2026-11-22T03:00:00Z", "operation … has stopped at …"),
        ("job 0b7d1d43-6d1c-4f8e-9d54-3f1e2a6b7c8d: exit 1", "job …: exit …"),
        ("4 of 9 files, 1,024 bytes", "… of … files, … bytes"),
        ("s3 has no object a/b.csv", "s3 has no object a/b.csv"),
        ("SHA256 and utf8 stay", "SHA256 and utf8 stay"),
        ("connect to 10.1.2.3:8080 failed", "connect to … failed"),
        ("line\nend\x1b", "line end\ufffd"),
        ("", ""),
    ],
)
def test_cause_has_no_ids_numbers_and_names_of_the_export(message: str, cause: str) -> None:
    export: dict[str, Any] = {"kind": "k", "tag_key": "t_paying", "names": ["分群4"], "nested": {"a": ["x"], "b": 4}}
    assert cause_of(message, {"connection": "gio", "export": export}, ["op-a", None]) == cause


def test_name_within_a_word_is_no_name() -> None:
    assert cause_of("paying failed to pay", {"export": {"tag_key": "pay"}}, []) == "paying failed to …"


@pytest.mark.parametrize("name", ["ab", "a.b", "分群", "aba", "-a", "a b"])
def test_name_is_left_out_where_it_is_a_word(name: str) -> None:
    text = f"{name} {name}{name} x{name} {name}_ 分{name}群 ababa aba-a.b {name}"
    expected = re.sub(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", "…", text)
    assert cause_of(text, None, [name]) == cause_of(expected, None, [])


def test_long_messages_are_cut_and_take_no_time() -> None:
    for text in ("x1-" * 40_000, "1" * 100_000, "… " * 50_000, "HTTP " * 20_000, "a" * 100_000 + "1"):
        began = process_time()
        assert len(cause_of(text, {"export": {"tag_key": "a" * 500}}, ["op"])) <= MESSAGE_MAX_CHARS
        assert process_time() - began < 2

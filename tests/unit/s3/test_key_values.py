"""Values of metadata in object keys: one safe segment each, distinct, and decoded by readers of partitions."""

import re
import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from export_worker.s3.key_values import NO_VALUE, NULL_PARTITION, VALUE_MAX_BYTES, key_value

SAFE = re.compile(r"(?:[A-Za-z0-9_.-]|%[0-9A-F]{2}|[^\x00-\x7f])+")
VALUES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ads-2026_v1.0", "ads-2026_v1.0"),
        ("广告 部", "广告%20部"),
        ("a/b\\c", "a%2Fb%5Cc"),
        ("..", "%2E."),
        (".", "%2E"),
        ("_hidden", "%5Fhidden"),
        ("a=b%2F&c?#", "a%3Db%252F%26c%3F%23"),
        ("{export_id}", "%7Bexport_id%7D"),
        ("a\u202eb\u200fc\ufeff", "a%E2%80%AEb%E2%80%8Fc%EF%BB%BF"),
        ("UTF8\n", "UTF8%0A"),
        ("\ud800", "%ED%A0%80"),
        (NULL_PARTITION, f"%5F{NULL_PARTITION[1:]}"),
    ],
)
def test_value_is_percent_encoded(value: str, expected: str) -> None:
    assert key_value(value, "x=") == expected


@pytest.mark.parametrize("value", [None, ""])
def test_missing_value_is_a_null_partition_or_a_plain_name(value: str | None) -> None:
    assert key_value(value, "team=") == NULL_PARTITION
    assert key_value(value, "landing/") == NO_VALUE
    assert key_value(value, "") == NO_VALUE


@given(VALUES)
@example("😀" * 200)
@example("/" * 200)
@example("文/" * 200)
def test_any_value_is_one_safe_segment_of_bounded_length(value: str) -> None:
    segment = key_value(value, "")
    assert SAFE.fullmatch(segment)
    assert len(segment.encode()) <= VALUE_MAX_BYTES
    assert segment[0] not in "._"
    assert not {unicodedata.category(character) for character in segment} & {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}
    if len(segment.encode()) < VALUE_MAX_BYTES - 13:
        assert unquote(segment) == value


@given(VALUES, VALUES)
@example("a/b", "a%2Fb")
@example("x" * 200, "x" * 199)
def test_different_values_are_different_segments(first: str, second: str) -> None:
    assert (key_value(first, "") == key_value(second, "")) == (first == second)

"""Keys of objects: safe and distinct file names, and the key template."""

import datetime as dt
import unicodedata
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from export_worker.s3.key_values import NULL_PARTITION
from export_worker.s3.object_keys import (
    KEY_MAX_BYTES,
    NAME_MAX_BYTES,
    RESERVED_NAMES,
    KeyFields,
    key_pattern,
    key_prefix,
    render_key,
    safe_name,
    unique_names,
    validate_key_template,
)

TEMPLATE = "{kind}/dt={date}/{export_id}/{file_name}"
ANY_TEXT = st.text(st.characters(), max_size=300)
BIDI_CONTROLS = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Unicode's property Bidi_Control (PropList.txt)."""


FIELDS = KeyFields(kind="growingio.tag_users", connection="gio", date=dt.date(2026, 11, 22), export_id="e1")


def rendered(template: str = TEMPLATE, prefix: str = "", file_name: str = "a.csv") -> str:
    return render_key(prefix, template, FIELDS, file_name)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("下载用户列表.csv", "下载用户列表.csv"),
        ("a & b#c+d%41?e f.csv", "a & b#c+d%41?e f.csv"),
        ("../../etc/passwd", "....etcpasswd"),
        ("a\\b.csv", "ab.csv"),
        ("a\x00\n\x7f\x85\u2028b.csv", "ab.csv"),
        ("a\ud800b.csv", "ab.csv"),
        ("a\uffffb.csv", "ab.csv"),
        ("users\u202evsc.exe", "usersvsc.exe"),
        *((f"a{chr(control)}b.csv", "ab.csv") for control in BIDI_CONTROLS),
        ("नि\u200cम 👨\u200d👩.csv", "नि\u200cम 👨\u200d👩.csv"),
        ("", "download"),
        (".", "download"),
        ("..", "download"),
        (" .. ", "download"),
        ("   ", "download"),
        ("/", "download"),
        (".hidden", ".hidden"),
        (" leading and trailing ", " leading and trailing "),
    ],
)
def test_safe_name_removes_only_what_keys_and_disks_cannot_hold(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(ANY_TEXT)
def test_safe_name_of_any_text_is_valid_and_unchanged_by_a_second_call(name: str) -> None:
    safe = safe_name(name)
    assert 1 <= len(safe.encode()) <= NAME_MAX_BYTES
    assert safe not in {".", ".."}
    assert not set(safe) & {"/", "\\", "\uffff", *map(chr, BIDI_CONTROLS)}
    assert not {unicodedata.category(character) for character in safe} & {"Cc", "Cs"}
    assert safe_name(safe) == safe


@pytest.mark.parametrize(
    ("stem", "extension"),
    [("x", ".csv"), ("文", ".csv"), ("x", ".csv.gz"), ("x", ""), ("😀", ".json"), ("x", ".0123456789012345678")],
)
@pytest.mark.parametrize("bytes_over", [-1, 0, 1, 5000])
def test_safe_name_shortens_the_stem_and_keeps_the_extension(stem: str, extension: str, bytes_over: int) -> None:
    fitting = NAME_MAX_BYTES - len(extension)
    long_stem = stem * ((fitting + bytes_over) // len(stem.encode()) + (bytes_over > 0))
    safe = safe_name(long_stem + extension)
    assert safe.endswith(extension)
    assert NAME_MAX_BYTES - 4 <= len(safe.encode()) <= NAME_MAX_BYTES
    assert set(safe.removesuffix(extension)) == {stem}


def test_safe_name_treats_a_long_suffix_as_part_of_the_stem() -> None:
    assert safe_name("a." + "b" * 400) == "a." + "b" * (NAME_MAX_BYTES - 2)


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        ([], []),
        (["a.csv", "b.csv"], ["a.csv", "b.csv"]),
        (["a.csv", "a.csv", "a.csv"], ["a.csv", "a-2.csv", "a-3.csv"]),
        (["a.csv", "a.csv", "a-2.csv"], ["a.csv", "a-3.csv", "a-2.csv"]),
        (["a-2.csv", "a.csv", "a.csv"], ["a-2.csv", "a.csv", "a-3.csv"]),
        (["a-2.csv", "a-2.csv", "a.csv", "a.csv"], ["a-2.csv", "a-2-2.csv", "a.csv", "a-3.csv"]),
        (["a.csv.gz", "a.csv.gz"], ["a.csv.gz", "a-2.csv.gz"]),
        (["a", "a"], ["a", "a-2"]),
        ([".csv", ".csv"], [".csv", ".csv-2"]),
        (["_manifest.json", "_SUCCESS"], ["_manifest-2.json", "_SUCCESS-2"]),
        (["manifest.json", "manifest-2.json"], ["manifest-3.json", "manifest-2.json"]),
    ],
)
def test_unique_names_numbers_repeated_names(names: list[str], unique: list[str]) -> None:
    assert unique_names(names) == unique


@given(st.lists(st.sampled_from(["a.csv", "a-2.csv", "a-2-2.csv", "a-3.csv", "_manifest.json", "_SUCCESS", "x" * 200])))
def test_unique_names_are_distinct_and_within_the_limit(names: list[str]) -> None:
    unique = unique_names(names)
    assert len(unique) == len(names)
    assert RESERVED_NAMES.isdisjoint(unique)
    assert len(set(unique)) == len(names)
    assert all(len(name.encode()) <= NAME_MAX_BYTES for name in unique)


def test_unique_names_numbers_thousands_of_equal_names() -> None:
    assert unique_names(["a.csv"] * 5000)[-1] == "a-5000.csv"


def test_render_key_fills_in_the_template_after_the_prefix() -> None:
    assert rendered(prefix="team/") == "team/growingio.tag_users/dt=2026-11-22/e1/a.csv"
    assert rendered("{connection}-{{x}}/{file_name}") == "gio-{x}/a.csv"


@given(ANY_TEXT)
@example("{export_id}")
@example("{kind.__class__}")
@example("{{}}")
def test_render_key_reads_no_value_as_a_template(name: str) -> None:
    file_name = safe_name(name)
    assert rendered(file_name=file_name) == f"growingio.tag_users/dt=2026-11-22/e1/{file_name}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{kind}/x", r"must contain \{file_name\}"),
        ("{kind.__class__}/{file_name}", r"\{kind.__class__\} is not allowed"),
        ("{kind[0]}/{file_name}", r"\{kind\[0\]\} is not allowed"),
        ("{kind!r}/{file_name}", r"\{kind\} is not allowed in this form"),
        ("{kind:>9}/{file_name}", r"\{kind\} is not allowed in this form"),
        ("{file_name:{kind}}", r"\{file_name\} is not allowed in this form"),
        ("{}/{file_name}", r"\{\} is not allowed"),
        ("{0}/{file_name}", r"\{0\} is not allowed"),
        ("{tenant}/{file_name}", r"\{tenant\} is not allowed.*\{export_id\}"),
        ("{kind/{file_name}", "is not a valid template|is not allowed"),
        ("{file_name}}", "is not a valid template"),
        ("a\n/{file_name}", "control characters"),
        ("a\u200f/{file_name}", "control characters"),
        ("{metadata}/{file_name}", r"\{metadata\} is not allowed.*\{metadata.NAME\}"),
        ("{metadata.}/{file_name}", r"\{metadata.\} is not allowed"),
        ("{metadata[team]}/{file_name}", r"\{metadata\[team\]\} is not allowed"),
        ("{metadata.a/b}/{file_name}", r"\{metadata.a/b\} is not allowed"),
        ("{metadata.team!r}/{file_name}", r"\{metadata.team\} is not allowed in this form"),
        ("".join(f"{{metadata.a{number}}}/" for number in range(9)) + "{file_name}", "1024"),
        ("x" * 900 + "/{file_name}", "1024"),
    ],
)
def test_validate_key_template_refuses_a_template_that_cannot_work(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_key_template(template)


def test_validate_key_template_counts_the_prefix() -> None:
    validate_key_template(TEMPLATE, "team/")
    with pytest.raises(ValueError, match="1024"):
        validate_key_template(TEMPLATE, "x" * 900)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (TEMPLATE, "team/growingio.tag_users/dt=2026-11-22/e1/"),
        ("{connection}/{file_name}/{export_id}", "team/gio/"),
        ("{file_name}", "team/"),
        ("{{x}}-{export_id}-{file_name}-{file_name}", "team/{x}-e1-"),
    ],
)
@pytest.mark.parametrize("file_name", ["a.csv", "e1", "{kind}", "0"])
def test_key_prefix_is_everything_before_the_file_name(template: str, expected: str, file_name: str) -> None:
    assert key_prefix("team/", template, FIELDS) == expected
    assert rendered(template, "team/", file_name).startswith(expected + file_name)


METADATA = {"team": "ads", "a-b.c_d": "x", "部门": "广告", "empty": ""}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("team={metadata.team}/{file_name}", "p/team=ads/a.csv"),
        ("{metadata.a-b.c_d}/{metadata.部门}/{file_name}", "p/x/广告/a.csv"),
        ("{metadata.team}/{metadata.team}/{file_name}", "p/ads/ads/a.csv"),
        ("x={metadata.empty}/y={metadata.missing}/{file_name}", f"p/x={NULL_PARTITION}/y={NULL_PARTITION}/a.csv"),
        ("{metadata.missing}/{metadata.missing}-{file_name}", "p/none/none-a.csv"),
    ],
)
def test_metadata_is_filled_in_and_missing_values_have_a_substitute(template: str, expected: str) -> None:
    fields = replace(FIELDS, metadata=METADATA)
    validate_key_template(template, "p/")
    assert render_key("p/", template, fields, "a.csv") == expected
    assert key_prefix("p/", template, fields) == expected.removesuffix("a.csv")


def test_key_pattern_matches_keys_with_metadata() -> None:
    export_id = "0123456789abcdef" * 2
    template = "{metadata.team}/x={metadata.team}/{export_id}/{file_name}"
    pattern = key_pattern("p/", template)
    assert pattern is not None
    for metadata in ({}, {"team": "a/b"}, {"team": export_id}, {"team": "x" * 4000}):
        fields = replace(FIELDS, export_id=export_id, metadata=metadata)
        assert pattern.export_ids(render_key("p/", template, fields, "a.csv")) == {export_id}


@given(st.text("0123456789abcdef-x", min_size=1, max_size=90), st.text("0123456789abcdef-x", max_size=90), st.uuids())
def test_right_export_is_always_among_those_that_may_have_a_key(a: str, b: str, export_id: UUID) -> None:
    template = "{metadata.a}{export_id}{metadata.b}-{connection}{file_name}"
    pattern = key_pattern("p/", template)
    assert pattern is not None
    fields = replace(FIELDS, export_id=export_id.hex, metadata={"a": a, "b": b})
    assert export_id.hex in pattern.export_ids(render_key("p/", template, fields, b or "x"))


def test_key_prefix_of_a_wrong_template_is_refused() -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        key_prefix("", "{tenant}/{file_name}", FIELDS)


def test_key_pattern_matches_rendered_keys_and_finds_the_export_id() -> None:
    export_id = "0123456789abcdef" * 2
    fields = KeyFields(kind="k.x", connection="gio", date=dt.date(2026, 11, 22), export_id=export_id)
    template = "{kind}/{export_id}/dt={date}/{connection}/{export_id}/{file_name}"
    pattern = key_pattern("team+/", template)
    assert pattern is not None
    assert pattern.export_ids(render_key("team+/", template, fields, f"{'0' * 32}\nb.csv")) == {export_id}
    assert pattern.export_ids("team+/k.x/e1/dt=2026-11-22/gio/e1/a.csv") == set()
    assert key_pattern("", "{kind}/{file_name}") is None


@pytest.mark.parametrize("bytes_over", [-1, 0, 1])
def test_render_key_refuses_a_key_longer_than_s3_allows(bytes_over: int) -> None:
    prefix = "文" * 300
    file_name = "x" * (KEY_MAX_BYTES - 900 + bytes_over)
    if bytes_over > 0:
        with pytest.raises(ValueError, match="1025 bytes"):
            rendered("{file_name}", prefix, file_name=file_name)
    else:
        assert rendered("{file_name}", prefix, file_name=file_name) == prefix + file_name

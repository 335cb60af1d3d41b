import datetime as dt
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from export_worker.s3.object_keys import (
    KEY_MAX_BYTES,
    NAME_MAX_BYTES,
    render_key,
    safe_name,
    unique_names,
    validate_key_template,
)

TEMPLATE = "{kind}/dt={date}/{export_id}/{file_name}"
ANY_TEXT = st.text(st.characters(), max_size=300)


def rendered(template: str = TEMPLATE, prefix: str = "", **changes: str) -> str:
    values = {"kind": "growingio.tag_users", "connection": "gio", "export_id": "e1", "file_name": "a.csv"} | changes
    return render_key(prefix, template, date=dt.date(2026, 11, 22), **values)


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
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(ANY_TEXT)
def test_every_safe_name_is_safe(name: str) -> None:
    safe = safe_name(name)
    assert 1 <= len(safe.encode()) <= NAME_MAX_BYTES
    assert safe not in {".", ".."}
    assert not set(safe) & {"/", "\\", "\uffff"}
    assert not {unicodedata.category(character) for character in safe} & {"Cc", "Cs"}
    assert safe_name(safe) == safe


@pytest.mark.parametrize(
    ("stem", "extension"),
    [("x", ".csv"), ("文", ".csv"), ("x", ".csv.gz"), ("x", ""), ("😀", ".json"), ("x", ".0123456789012345678")],
)
@pytest.mark.parametrize("bytes_over", [-1, 0, 1, 5000])
def test_a_long_name_keeps_its_extension(stem: str, extension: str, bytes_over: int) -> None:
    fitting = NAME_MAX_BYTES - len(extension)
    long_stem = stem * ((fitting + bytes_over) // len(stem.encode()) + (bytes_over > 0))
    safe = safe_name(long_stem + extension)
    assert safe.endswith(extension)
    assert NAME_MAX_BYTES - 4 <= len(safe.encode()) <= NAME_MAX_BYTES
    assert set(safe.removesuffix(extension)) == {stem}


def test_a_long_tail_after_a_dot_is_no_extension() -> None:
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
        (["manifest.json", "_SUCCESS"], ["manifest-2.json", "_SUCCESS-2"]),
        (["manifest.json", "manifest-2.json"], ["manifest-3.json", "manifest-2.json"]),
    ],
)
def test_unique_names(names: list[str], unique: list[str]) -> None:
    assert unique_names(names) == unique


@given(st.lists(st.sampled_from(["a.csv", "a-2.csv", "a-2-2.csv", "a-3.csv", "manifest.json", "_SUCCESS", "x" * 200])))
def test_all_names_become_distinct_and_stay_bounded(names: list[str]) -> None:
    unique = unique_names(names)
    assert len(unique) == len(names)
    assert len({*unique, "manifest.json", "_SUCCESS"}) == len(names) + 2
    assert all(len(name.encode()) <= NAME_MAX_BYTES for name in unique)


def test_thousands_of_equal_names() -> None:
    assert unique_names(["a.csv"] * 5000)[-1] == "a-5000.csv"


def test_the_key() -> None:
    assert rendered(prefix="team/") == "team/growingio.tag_users/dt=2026-11-22/e1/a.csv"
    assert rendered("{connection}-{{x}}/{file_name}") == "gio-{x}/a.csv"


@given(ANY_TEXT)
@example("{export_id}")
@example("{kind.__class__}")
@example("{{}}")
def test_a_value_is_never_read_as_a_template(name: str) -> None:
    file_name = safe_name(name)
    assert rendered(file_name=file_name) == f"growingio.tag_users/dt=2026-11-22/e1/{file_name}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{kind}/x", r"must contain \{file_name\}"),
        ("{kind.__class__}/{file_name}", r"\{kind.__class__\} is not allowed"),
        ("{kind[0]}/{file_name}", r"\{kind\[0\]\} is not allowed"),
        ("{kind!r}/{file_name}", r"\{kind\} is not allowed as it stands"),
        ("{kind:>9}/{file_name}", r"\{kind\} is not allowed as it stands"),
        ("{file_name:{kind}}", r"\{file_name\} is not allowed as it stands"),
        ("{}/{file_name}", r"\{\} is not allowed"),
        ("{0}/{file_name}", r"\{0\} is not allowed"),
        ("{tenant}/{file_name}", r"\{tenant\} is not allowed.*\{export_id\}"),
        ("{kind/{file_name}", "is no template|is not allowed"),
        ("{file_name}}", "is no template"),
        ("a\n/{file_name}", "control characters"),
        ("x" * 900 + "/{file_name}", "1024"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_key_template(template)


def test_a_prefix_counts_too() -> None:
    validate_key_template(TEMPLATE, "team/")
    with pytest.raises(ValueError, match="1024"):
        validate_key_template(TEMPLATE, "x" * 900)


@pytest.mark.parametrize("bytes_over", [-1, 0, 1])
def test_the_longest_key(bytes_over: int) -> None:
    prefix = "文" * 300
    file_name = "x" * (KEY_MAX_BYTES - 900 + bytes_over)
    if bytes_over > 0:
        with pytest.raises(ValueError, match="1025 bytes"):
            rendered("{file_name}", prefix, file_name=file_name)
    else:
        assert rendered("{file_name}", prefix, file_name=file_name) == prefix + file_name

"""The texts for people: the same in both languages, complete, and each of them used."""

import tomllib
from string import Formatter
from typing import get_args

import pytest

from export_producers.choices import LANGUAGES, Language
from export_producers.language_choice import preferred
from export_producers.languages import age, duration, text, texts
from export_producers.reasons import AnyNote, AnyReason, Reason, fix
from export_worker.contract.redis_keys import CallKind
from export_worker.errors import ErrorCode
from support.paths import ROOT

LANGUAGE = ROOT / "producers" / "export_producers" / "languages" / "en"
KINDS: tuple[type[Reason], ...] = (*get_args(AnyReason), *get_args(AnyNote))
NEVER_THE_END_OF_AN_EXPORT = {
    ErrorCode.INVALID_REQUEST,
    ErrorCode.IDEMPOTENCY_CONFLICT,
    ErrorCode.NOT_FOUND,
    ErrorCode.INVALID_CONFIG,
    ErrorCode.SERVICE_UNREACHABLE,
    ErrorCode.CANCELLED,
}
DERIVED = {"calls", "fix"}
"""Arguments that are made from other ones."""


def arguments(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def test_both_languages_have_the_same_keys_and_arguments() -> None:
    english, chinese = texts("en"), texts("zh")
    assert list(english) == list(chinese)
    for key in english:
        assert arguments(english[key]) == arguments(chinese[key]), key


def test_each_table_is_in_one_file() -> None:
    tables = [table for path in sorted(LANGUAGE.rglob("*.toml")) for table in tomllib.loads(path.read_text("utf-8"))]
    assert tables
    assert len(tables) == len(set(tables))


def test_every_code_has_a_text_and_every_text_has_a_code() -> None:
    codes = {f"{kind.table}.{kind.code}" for kind in KINDS}
    assert codes == {key for key in texts("en") if key.startswith(("explain.", "note."))}


@pytest.mark.parametrize("kind", KINDS)
def test_text_uses_only_the_arguments_of_its_code(kind: type[Reason]) -> None:
    for language in LANGUAGES:
        used = arguments(texts(language)[f"{kind.table}.{kind.code}"])
        assert used <= set(kind.model_fields) | DERIVED


def test_every_error_that_ends_an_export_has_its_advice() -> None:
    advised = {key.partition(".")[2] for key in texts("en") if key.startswith("fix.")}
    assert advised == {*set(ErrorCode) - NEVER_THE_END_OF_AN_EXPORT, "other"}
    assert fix("a_code_of_a_later_version") == text("en", "fix.other")


def test_a_text_shows_braces_of_its_arguments_unchanged() -> None:
    shown = text("en", "note.last_error", error_code="{x}", message="{0} {error_code.__class__}")
    assert shown == "Last error: [{x}] {0} {error_code.__class__}."


def test_every_part_of_a_sentence_is_used() -> None:
    steps = {f"{prefix}{step}" for prefix in ("", "calls_") for step in get_args(CallKind)}
    optional = {f"no_{name}" for name in ("until", "reason", "by")}
    assert {key.partition(".")[2] for key in texts("en") if key.startswith("word.")} == {"space", *steps, *optional}
    tables = {key.partition(".")[0] for key in texts("en")}
    assert tables >= {"unit", "age", "word", "explain", "note", "fix"}


def test_durations_and_ages_have_the_units_of_the_language() -> None:
    assert (duration("en", 185), duration("zh", 185)) == ("3 min 5 s", "3 分钟 5 秒")
    assert (age("en", 185.0), age("en", -90_000.0), age("en", 0.2)) == ("3 min ago", "in 1 d", "0 s ago")
    assert (age("zh", 185.0), age("zh", -90_000.0)) == ("3 分钟前", "1 天后")


@pytest.mark.parametrize(
    ("wishes", "language"),
    [
        ((None, None), "en"),
        (("zh",), "zh"),
        (("zh_CN.UTF-8",), "zh"),
        (("C.UTF-8",), "en"),
        ((None, "de-DE,zh-Hans;q=0.9,en;q=0.8"), "zh"),
        (("en", "zh"), "en"),
        (("", ",;,"), "en"),
        ((None, "en;q=0.5,zh;q=0.9"), "zh"),
        ((None, "en;q=0.1, fr, zh-CN ; q=0.2"), "zh"),
        ((None, "zh;q=0,en;q=0.1"), "en"),
        ((None, "zh;q=0"), "en"),
        ((None, "en,zh"), "en"),
        ((None, "en;q=x,zh;q=0.5"), "zh"),
        ((None, "zh;q=nan,en;q=0.3"), "en"),
        (("zh_CN.UTF-8", "en;q=1"), "zh"),
    ],
)
def test_preferred_language_is_the_first_one_that_exists(wishes: tuple[str | None, ...], language: Language) -> None:
    assert preferred(*wishes) == language

"""The texts and templates of the console: complete in both languages, and nothing that a strict policy forbids."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from export_producers.choices import LANGUAGES
from export_producers.console.views import Ahead, said, say
from export_producers.languages import text, texts
from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.contract.status import Phase
from support.paths import ROOT

CONSOLE = ROOT / "producers" / "export_producers" / "console"
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))
SOURCES = [*TEMPLATES, *sorted(CONSOLE.rglob("*.py"))]
PREFIXES = (
    "act.",
    "action.",
    "asked.",
    "delivery.",
    "batch.is_",
    "breaker.",
    "bulk.ask_",
    "bulk.do_",
    "bulk.none_",
    "bulk.state_",
    "bulk.title_",
    "bulk.what_",
    "done.",
    "events.none_",
    "field.",
    "frame.theme_",
    "group.",
    "kind.",
    "level.",
    "nav.",
    "schedule_state.",
    "overview.failing_",
    "phase.",
    "program.",
    "retry.from_",
    "retry.what_",
    "role.",
    "state.",
)
"""The beginnings of keys whose ends are values, such as the name of a phase."""
TEXTS = sorted((CONSOLE.parent / "languages" / "en" / "console").glob("*.toml"))


def own_keys() -> set[str]:
    files = [tomllib.loads(path.read_text(encoding="utf-8")) for path in TEXTS]
    return {f"{table}.{name}" for tables in files for table, named in tables.items() for name in named}


def used_keys() -> set[str]:
    source = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    return set(re.findall(r"""["']([a-z]+\.[a-z_]+)["']""", source))


def test_no_text_is_empty_or_has_markup() -> None:
    found = {f"{language} {key}": texts(language)[key] for language in LANGUAGES for key in own_keys()}
    assert {key: each for key, each in found.items() if not each.strip() or re.search(r"[<>]|&\w+;", each)} == {}


def test_every_text_is_used() -> None:
    assert {key for key in own_keys() if not key.startswith(PREFIXES)} - used_keys() == set()


def test_every_text_that_a_page_names_exists() -> None:
    tables = {key.partition(".")[0] for key in own_keys()}
    named = {key for key in used_keys() if key.partition(".")[0] in tables}
    files = {path.name for path in SOURCES}
    assert {key for key in named if key not in {*texts("en"), *files, *PREFIXES}} == set()


def test_every_phase_and_kind_has_a_name() -> None:
    assert {f"phase.{phase}" for phase in Phase} | {f"kind.{kind}" for kind in PLATFORM_OF_KIND} <= set(texts("zh"))


@pytest.mark.parametrize(("left_s", "wait"), [(-1, "in 1 s"), (0.4, "in 1 s"), (90, "in 1 min")])
def test_time_ahead_is_never_said_to_be_past(left_s: float, wait: str) -> None:
    ahead = said("now.no_answer", wait=Ahead(timedelta(seconds=left_s)))
    assert say("en", ahead).endswith(f"next check {wait}")


def test_text_gets_its_arguments() -> None:
    assert text("zh", "exports.total", count=3) == "符合条件的导出\uff1a3"
    with pytest.raises(KeyError):
        text("en", "exports.total")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_has_only_what_the_policy_allows(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not re.search(
        r"\|\s*safe|Markup|autoescape|<style|\sstyle=|\son[a-z]+=|<script(?! src=)|javascript:", source
    )


def test_script_is_short_and_builds_no_markup() -> None:
    source = (CONSOLE / "static" / "console.js").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 250
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", source)

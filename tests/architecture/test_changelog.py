"""The changelog has the form of Keep a Changelog, and each change since then has a well-formed fragment."""

import re
from pathlib import Path

import pytest

from support.deployment import PROJECT, read
from support.paths import ROOT

KINDS = ("added", "changed", "deprecated", "removed", "fixed", "security")
"""The kinds of Keep a Changelog."""
FRAGMENTS = ROOT / ".changelog"
FRAGMENT_NAME = re.compile(rf"({'|'.join(KINDS)})-[a-z0-9]+(-[a-z0-9]+)*\.md")
LINE_MAX = 120
TITLE_MAX = 100
PARAGRAPHS_MIN = 2
"""The problem, and the new behaviour."""


def problems_of(name: str, text: str) -> list[str]:
    """Returns what is wrong with the name and the form of a fragment."""
    title, *paragraphs = text.strip().split("\n\n")
    checks = {
        "the name is not KIND-topic.md": FRAGMENT_NAME.fullmatch(name) is not None,
        "the first line is not a title": re.fullmatch(rf"# [A-Z].{{10,{TITLE_MAX}}}[^.\s]", title) is not None,
        "the problem or the new behaviour is missing": len(paragraphs) >= PARAGRAPHS_MIN,
        "a paragraph does not end with a period": all(each.endswith(".") for each in paragraphs),
        "a line is too long": all(len(line) <= LINE_MAX for line in text.splitlines()),
        "the file does not end with one line break": text.endswith("\n") and not text.endswith("\n\n"),
    }
    return [problem for problem, passed in checks.items() if not passed]


@pytest.mark.parametrize("path", sorted(FRAGMENTS.iterdir()), ids=lambda path: path.name)
def test_fragment_has_the_required_name_and_form(path: Path) -> None:
    if path.name != "README.md":
        assert problems_of(path.name, path.read_text(encoding="utf-8")) == []


GOOD = "# Retry at once after a past Retry-After\n\nA worker ignored it.\n\nA worker retries at once.\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("retry-after.md", GOOD),
        ("fixed-Retry.md", GOOD),
        ("fixed-retry.txt", GOOD),
        ("fixed-retry.md", GOOD.replace("# ", "")),
        ("fixed-retry.md", GOOD.replace("Retry-After\n", "Retry-After.\n")),
        ("fixed-retry.md", GOOD.partition("\n\nA worker retries")[0] + "\n"),
        ("fixed-retry.md", GOOD.replace("at once.", "at once")),
        ("fixed-retry.md", GOOD.replace("ignored it", "ignored it" * 20)),
        ("fixed-retry.md", GOOD + "\n"),
    ],
)
def test_malformed_fragment_is_detected(name: str, text: str) -> None:
    assert problems_of("fixed-retry.md", GOOD) == []
    assert len(problems_of(name, text)) == 1


def test_changelog_describes_the_version_of_the_package_by_kind() -> None:
    versions = re.findall(r"^## \[(.+?)\] - \d{4}-\d\d-\d\d$", read("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == PROJECT["project"]["version"]
    kinds = re.findall(r"^### (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert {kind.lower() for kind in kinds} <= set(KINDS)

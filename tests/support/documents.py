"""Reads the Markdown documents of this repository, for the tests that check them."""

import re
from functools import cache

from support.deployment import read
from support.paths import ROOT

DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", ".changelog/*.md", "k8s/**/*.md", "producers/*.md", "worker/*.md")
    for path in ROOT.glob(pattern)
)
"""Every document, as a path below the root of the repository."""


def links(path: str) -> list[tuple[str, str]]:
    """Returns the target and the anchor of each link that stays within the repository."""
    return re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", _prose(read(path)))


def section_links(text: str) -> list[str]:
    """Returns the anchors of the links that lead to a heading of the same page."""
    return re.findall(r"\]\(#([^)]+)\)", text)


def headings(text: str) -> list[str]:
    """Returns the text of every heading, without code blocks."""
    return re.findall(r"^#+ (.+)$", _prose(text), re.MULTILINE)


def linked_headings(text: str) -> list[str]:
    """Returns the text of every heading of the second level."""
    return re.findall(r"^## (.+)$", _prose(text), re.MULTILINE)


def slug(heading: str) -> str:
    """Returns the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def table_rows(path: str, *header: str) -> list[list[str]]:
    """Returns the rows of all tables whose header begins with these cells."""
    rows: list[list[str]] = []
    inside = False
    for line in read(path).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            inside = False
        elif tuple(cells[: len(header)]) == header:
            inside = True
        elif inside and set("".join(cells)) != {"-"}:
            rows.append(cells)
    return rows


@cache
def source_text() -> str:
    """Returns the text of all modules of both packages."""
    sources = [path for package in ("worker", "producers") for path in sorted((ROOT / package).rglob("*.py"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in sources)


def _prose(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)

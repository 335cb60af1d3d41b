#!/usr/bin/env python3
"""Prepares a release: `make release VERSION=0.2.0`. It changes files, and commits and uploads nothing.

The fragments of `.changelog` become a section of `CHANGELOG.md`, and every file names the new version.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = ("added", "changed", "deprecated", "removed", "fixed", "security")
"""The kinds of Keep a Changelog, in the order of its sections."""
LOCK_FILES = ("requirements.lock", "worker/requirements.lock", "worker/build.lock")
OTHER_VERSIONS = ("CHANGELOG.md", ".changelog/", "tests/", *LOCK_FILES)
"""Files whose versions are of the past, of tests, or of other packages."""


def section(version: str, day: date, fragments: Mapping[str, str]) -> str:
    """Returns the section of a version, with the title of each fragment as one line.

    Args:
        fragments: The texts of the fragments, by name.
    """
    parts = [f"## [{version}] - {day}"]
    for kind in KINDS:
        titles = [title(text) for name, text in sorted(fragments.items()) if name.startswith(f"{kind}-")]
        if titles:
            parts.append(f"### {kind.capitalize()}\n\n" + "\n".join(f"- {each}." for each in titles))
    return "\n\n".join(parts) + "\n"


def title(fragment: str) -> str:
    """Returns the change in one line."""
    return fragment.partition("\n")[0].removeprefix("# ")


def with_section(changelog: str, added: str) -> str:
    """Returns the changelog with one more section, before the newest."""
    return changelog.replace("\n## [", f"\n{added}\n## [", 1)


def with_version(text: str, old: str, new: str) -> str:
    """Returns a text that names the new version in place of the old one. 10.1.0.0 does not name 0.1.0."""
    return re.sub(rf"(?<![\d.]){re.escape(old)}(?![\d.])", new, text)


def problem(old: str, new: str, fragments: Mapping[str, str]) -> str | None:
    """Returns why there can be no such release."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", new):
        return f"VERSION must be three numbers, such as 0.2.0, not {new!r}"
    if tuple(map(int, new.split("."))) <= tuple(map(int, old.split("."))):
        return f"VERSION must be later than {old}"
    return None if fragments else "there is no change since the last version: .changelog has no fragment"


def versioned_files() -> Iterable[Path]:
    """Yields the files that git tracks and that may name the current version."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return (ROOT / name for name in listed.stdout.splitlines() if not name.startswith(OTHER_VERSIONS))


def main(new: str) -> str | None:
    """Prepares the release of a version. Returns why it cannot."""
    (old,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    paths = [path for path in (ROOT / ".changelog").glob("*.md") if path.name != "README.md"]
    fragments = {path.name: path.read_text(encoding="utf-8") for path in paths}
    if found := problem(old, new, fragments):
        return found
    changelog = ROOT / "CHANGELOG.md"
    added = section(new, datetime.now(UTC).date(), fragments)
    changelog.write_text(with_section(changelog.read_text(encoding="utf-8"), added), encoding="utf-8")
    for path in versioned_files():
        text = path.read_text(encoding="utf-8")
        path.write_text(with_version(text, old, new), encoding="utf-8")
    for path in paths:
        path.unlink()
    print(  # noqa: T201 - a script
        f"The files are ready for {new}. Read the new section of CHANGELOG.md, then:\n"
        f"  git commit --all --message 'Release {new}' && git tag v{new}\n"
        f"  make dist\n"
        f"and upload dist/* to your package index, and the image that worker/Dockerfile builds to your registry."
    )
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2] or [""]))

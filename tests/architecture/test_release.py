"""`make release` prepares a version: the changelog gets a section, and every file names the version."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.deployment import PROJECT
from support.paths import ROOT

OLD, NEW = PROJECT["project"]["version"], "99.0.1"
FRAGMENTS = {
    "fixed-retry.md": "# Retry at once\n\nA worker waited.\n\nA worker retries.\n",
    "added-bar.md": "# Add a bar\n\nThere was none.\n\nThere is one.\n",
    "added-age.md": "# Add ages\n\nThere were none.\n\nThere are some.\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the files that name the version, and with three changes."""
    names = ["Makefile", ".ci", "CHANGELOG.md", "pyproject.toml", "docker-compose.yml", "k8s", "worker/Dockerfile"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    (tmp_path / ".changelog").mkdir()
    shutil.copy(ROOT / ".changelog" / "README.md", tmp_path / ".changelog")
    for name, text in FRAGMENTS.items():
        (tmp_path / ".changelog" / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def release(checkout: Path, version: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "--silent", "release", f"VERSION={version}", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def names_of(version: str, checkout: Path) -> list[str]:
    """Returns the lines that name a version, outside of the changelog."""
    found = subprocess.run(
        ["git", "grep", "--fixed-strings", version, "--", ":!CHANGELOG.md"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in found.stdout.splitlines() if re.search(rf"(?<![\d.]){re.escape(version)}(?![\d.])", line)]


def test_release_moves_fragments_into_the_changelog_and_names_the_version(checkout: Path) -> None:
    named = len(names_of(OLD, checkout))
    done = release(checkout, NEW)

    assert done.returncode == 0, done.stderr
    assert [path.name for path in (checkout / ".changelog").iterdir()] == ["README.md"]
    changelog = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = changelog[changelog.index("\n## [") : changelog.index(f"\n## [{OLD}]")]
    assert re.fullmatch(
        rf"\n## \[{NEW}\] - \d{{4}}-\d\d-\d\d\n\n"
        r"### Added\n\n- Add ages\.\n- Add a bar\.\n\n### Fixed\n\n- Retry at once\.\n",
        newest,
    )
    assert names_of(OLD, checkout) == []
    assert len(names_of(NEW, checkout)) == named > 8
    assert "make dist" in done.stdout


@pytest.mark.parametrize(
    ("version", "reason"), [("", "three numbers"), ("1.0", "three numbers"), ("0.0.9", "later than"), (OLD, "later")]
)
def test_wrong_version_is_refused_and_changes_nothing(checkout: Path, version: str, reason: str) -> None:
    done = release(checkout, version)
    assert done.returncode != 0
    assert reason in done.stderr
    assert len(list((checkout / ".changelog").iterdir())) == len(FRAGMENTS) + 1

"""What the source distribution contains. `make dist` builds it, builds the wheel from it, and runs the demo."""

import subprocess
import sys
import tarfile
from pathlib import Path

from support.deployment import PROJECT
from support.paths import ROOT

WRITTEN_BY_THE_BUILD = {"PKG-INFO"}


def test_source_distribution_has_every_file_of_the_repository_and_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = tmp_path.iterdir()
    with tarfile.open(file) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert packed - WRITTEN_BY_THE_BUILD == {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_metadata_has_what_a_package_index_shows() -> None:
    project = PROJECT["project"]
    assert {"description", "readme", "license", "license-files", "keywords", "classifiers", "requires-python"} <= set(
        project
    )
    minors = {name.rpartition(".")[2] for name in project["classifiers"] if "Python :: 3." in name}
    assert project["requires-python"].rpartition(".")[2] == min(minors)

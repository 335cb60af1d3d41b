"""An environment in which export-worker is installed with only some extras: links to packages of the tests' own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.paths import ROOT

PROJECT = "export-worker"


def distributions(extras: Sequence[str]) -> set[str]:
    """Returns the names of export-worker and of every package that its installation with these extras brings."""
    found: set[tuple[str, str]] = set()
    waiting = [(PROJECT, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for needed in map(Requirement, metadata.requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), inner) for inner in ("", *needed.extras)]
    return {name for name, _ in found}


def install(directory: Path, *extras: str) -> Path:
    """Links the packages of an installation with these extras into a directory, for PYTHONPATH."""
    directory.mkdir()
    for name in distributions(extras):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if ".." not in file.parts}:
            link = directory / top
            if top != "__pycache__" and not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    return directory


def run(packages: Path, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Runs Python with these packages, and no others: `-S` keeps it from reading the environment of the tests."""
    path = os.pathsep.join(map(str, (packages, ROOT / "worker", ROOT / "producers")))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)

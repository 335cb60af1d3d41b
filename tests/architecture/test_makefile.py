"""What `make demo` and `make install` install. Nothing is installed here: make only prints its commands."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.deployment import read
from support.paths import ROOT

INSTALL = re.compile(r"\.ci/install (\S+)")
"""The script installs the extras that its argument names."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A new checkout, as far as make reads it."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def would_run(checkout: Path, target: str) -> str:
    # The make that runs the tests exports its own variables, such as ARGS.
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=checkout, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_demo_installs_only_its_own_extra(checkout: Path) -> None:
    printed = would_run(checkout, "demo")
    assert INSTALL.findall(printed) == ["demo"]
    assert printed.endswith(".venv/bin/export-worker demo \n")


def test_demo_installs_nothing_after_the_installation_of_everything(checkout: Path) -> None:
    for stamp in re.findall(r"touch (.+)", would_run(checkout, "install")):
        for name in stamp.split():
            (checkout / name).parent.mkdir(exist_ok=True)
            (checkout / name).touch()
    assert [INSTALL.findall(would_run(checkout, target)) for target in ("demo", "check")] == [[], []]


def test_installation_of_everything_follows_the_demo(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".demo").touch()
    assert INSTALL.findall(would_run(checkout, "demo")) == []
    assert INSTALL.findall(would_run(checkout, "test")) == ["all,dev"]


def test_installer_itself_has_a_locked_version() -> None:
    assert re.search(r"^uv==[\d.]+$", read("requirements.lock"), re.MULTILINE)

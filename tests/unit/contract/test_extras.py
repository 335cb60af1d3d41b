"""The command that installs a missing extra, for each way in which export-worker may be installed."""

from pathlib import Path
from typing import Any

import pytest

from export_worker.contract.extras import what_to_install


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    return folder


def test_extra_comes_from_the_checkout_that_is_installed(checkout: Path) -> None:
    installed = {"url": checkout.as_uri(), "dir_info": {}}
    assert what_to_install("worker", installed, checkout) == [".[worker]"]
    assert what_to_install("worker", installed, Path("/")) == [f"{checkout}[worker]"]


def test_editable_installation_stays_editable(checkout: Path) -> None:
    installed = {"url": checkout.as_uri(), "dir_info": {"editable": True}}
    assert what_to_install("demo", installed, checkout) == ["--editable", ".[demo]"]


def test_extra_comes_from_the_wheel_that_is_installed(tmp_path: Path) -> None:
    wheel = tmp_path / "export_worker-0.1.0-py3-none-any.whl"
    wheel.touch()
    installed = {"url": wheel.as_uri(), "archive_info": {"hashes": {}}}
    assert what_to_install("nats", installed, tmp_path) == [f"export-worker[nats] @ {wheel.as_uri()}"]


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (
            {"url": "https://git.example.com/it.git", "vcs_info": {"vcs": "git", "commit_id": "a1b2"}},
            "git+https://git.example.com/it.git@a1b2",
        ),
        ({"url": "https://files.example.com/it.whl", "archive_info": {}}, "https://files.example.com/it.whl"),
    ],
    ids=["version control", "download"],
)
def test_extra_comes_from_the_address_that_is_installed(installed: dict[str, Any], expected: str) -> None:
    assert what_to_install("kafka", installed, Path("/")) == [f"export-worker[kafka] @ {expected}"]


@pytest.mark.parametrize(
    "installed",
    [
        {},
        {"url": "file:///no/such/checkout", "dir_info": {}},
        {"url": "file:///no/such.whl", "archive_info": {}},
        {"dir_info": {}},
        {"archive_info": {}},
    ],
    ids=str,
)
def test_unknown_place_is_not_guessed(installed: dict[str, Any]) -> None:
    assert what_to_install("worker", installed, Path("/")) is None

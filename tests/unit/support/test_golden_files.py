"""The helper behind every golden file: it must be able to fail, and an update must lose nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from support import golden_files
from support.golden_files import check_golden

SEEN = {"method": "GET", "query": {"id": "17", "at": "2026-11-22"}, "body": None}


def write(directory: Path, document: dict[str, Any]) -> None:
    (directory / "x").mkdir()
    (directory / "x" / "a.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    "document",
    [
        SEEN,
        SEEN | {"note": "the sample lacks a bracket"},
        SEEN | {"query": {"id": "17", "at": "<ANY>"}},
    ],
)
def test_equal(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, document)
    check_golden("x/a", SEEN, tmp_path)


@pytest.mark.parametrize(
    "document",
    [
        SEEN | {"method": "POST"},
        SEEN | {"extra": 1},
        {"method": "GET"},
        SEEN | {"query": {"id": "17"}},
        SEEN | {"query": {"id": "17", "at": "2026-11-22", "more": "<ANY>"}},
    ],
)
def test_different(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, document)
    with pytest.raises(AssertionError, match="differs from"):
        check_golden("x/a", SEEN, tmp_path)


def test_a_missing_file_fails(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="--update-golden"):
        check_golden("x/a", SEEN, tmp_path)


def test_an_update_writes_and_keeps_notes_and_wildcards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"note": "mended", "method": "POST", "query": {"at": "<ANY>", "old": 1}})
    with monkeypatch.context() as patch:
        patch.setattr(golden_files, "updating", True)
        check_golden("x/a", SEEN, tmp_path)
        check_golden("y/new", SEEN, tmp_path)
    written = json.loads((tmp_path / "x" / "a.json").read_text(encoding="utf-8"))
    assert written == {"note": "mended", "method": "GET", "query": {"id": "17", "at": "<ANY>"}, "body": None}
    check_golden("x/a", SEEN | {"query": {"id": "17", "at": "tomorrow"}}, tmp_path)
    check_golden("y/new", SEEN, tmp_path)

"""The helper for golden files: it fails on a difference, and an update keeps notes and wildcards."""

import json
from pathlib import Path
from typing import Any

import pytest

from support import golden_files
from support.golden_files import check_golden

ACTUAL = {"method": "GET", "query": {"id": "17", "at": "2026-11-22"}, "body": None}


def write(directory: Path, document: dict[str, Any]) -> None:
    (directory / "x").mkdir()
    (directory / "x" / "a.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    "document",
    [
        ACTUAL,
        ACTUAL | {"note": "the sample lacks a bracket"},
        ACTUAL | {"query": {"id": "17", "at": "<ANY>"}},
    ],
)
def test_equal_document_passes(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, document)
    check_golden("x/a", ACTUAL, tmp_path)


@pytest.mark.parametrize(
    "document",
    [
        ACTUAL | {"method": "POST"},
        ACTUAL | {"extra": 1},
        {"method": "GET"},
        ACTUAL | {"query": {"id": "17"}},
        ACTUAL | {"query": {"id": "17", "at": "2026-11-22", "more": "<ANY>"}},
    ],
)
def test_different_document_fails(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, document)
    with pytest.raises(AssertionError, match="differs from"):
        check_golden("x/a", ACTUAL, tmp_path)


def test_missing_file_fails_and_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="--update-golden"):
        check_golden("x/a", ACTUAL, tmp_path)


def test_update_writes_document_and_keeps_note_and_wildcards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"note": "corrected", "method": "POST", "query": {"at": "<ANY>", "old": 1}})
    with monkeypatch.context() as patch:
        patch.setattr(golden_files, "updating", True)
        check_golden("x/a", ACTUAL, tmp_path)
        check_golden("y/new", ACTUAL, tmp_path)
    written = json.loads((tmp_path / "x" / "a.json").read_text(encoding="utf-8"))
    assert written == {"note": "corrected", "method": "GET", "query": {"id": "17", "at": "<ANY>"}, "body": None}
    check_golden("x/a", ACTUAL | {"query": {"id": "17", "at": "tomorrow"}}, tmp_path)
    check_golden("y/new", ACTUAL, tmp_path)

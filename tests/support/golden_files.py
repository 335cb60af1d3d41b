"""Golden files: requests and answers on the wire, stored as data, so that a change of them shows as a change of data.

`pytest --update-golden` writes the actual documents. A file may also contain `note`, a text for readers, and `"<ANY>"`,
which matches any value. An update keeps both.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from support.paths import DATA

DIRECTORY = DATA / "golden"
ANY = "<ANY>"
NOTE = "note"

updating = False
"""Whether the files are written; `--update-golden` sets it."""


def check_golden(name: str, document: dict[str, Any], directory: Path = DIRECTORY) -> None:
    """Compares a document with its golden file, or updates the file.

    Args:
        name: The name of the file without suffix, such as `thinkingdata/user-cluster-detail`.
        document: The actual document, in JSON types.
        directory: The directory of the golden files.
    """
    path = directory / f"{name}.json"
    golden = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    actual = json.loads(json.dumps(document))
    if updating:
        path.parent.mkdir(parents=True, exist_ok=True)
        note = {key: value for key, value in (golden or {}).items() if key == NOTE}
        path.write_text(_text(note | _with_wildcards(actual, golden)), encoding="utf-8")
    elif golden is None:
        pytest.fail(f"there is no {path}; run pytest with --update-golden and review the new file")
    else:
        expected = _without_note(golden, actual)
        assert _with_wildcards(actual, expected) == expected, f"differs from {path}"


def _without_note(golden: dict[str, Any], actual: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in golden.items() if key != NOTE or key in actual}


def _with_wildcards(actual: Any, golden: Any) -> Any:
    """Returns the actual document with `<ANY>` wherever the golden file has it."""
    if golden == ANY:
        return ANY
    if isinstance(actual, dict) and isinstance(golden, dict):
        return {key: _with_wildcards(value, golden.get(key)) for key, value in actual.items()}
    if isinstance(actual, list) and isinstance(golden, list) and len(actual) == len(golden):
        return [_with_wildcards(value, old) for value, old in zip(actual, golden, strict=True)]
    return actual


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"

"""Golden files: what goes over the wire, kept as data, so that a change of it shows as a change of data.

`pytest --update-golden` writes what was seen. A file may say more than what is compared: `note` is for people, and
`"<ANY>"` stands for any value; an update keeps both.
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
"""Whether files are written; `--update-golden` says so."""


def check_golden(name: str, document: dict[str, Any], directory: Path = DIRECTORY) -> None:
    """Compare what was seen with the golden file, or write it there.

    Args:
        name: Such as `thinkingdata/user-cluster-detail`.
        document: Plain JSON.
    """
    path = directory / f"{name}.json"
    golden = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    seen = json.loads(json.dumps(document))
    if updating:
        path.parent.mkdir(parents=True, exist_ok=True)
        note = {key: value for key, value in (golden or {}).items() if key == NOTE}
        path.write_text(_text(note | _kept(seen, golden)), encoding="utf-8")
    elif golden is None:
        pytest.fail(f"there is no {path}; run pytest with --update-golden, and look at what it writes")
    else:
        expected = _without_note(golden, seen)
        assert _kept(seen, expected) == expected, f"differs from {path}"


def _without_note(golden: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in golden.items() if key != NOTE or key in seen}


def _kept(seen: Any, golden: Any) -> Any:
    """What was seen, with every `<ANY>` of the golden file in its place."""
    if golden == ANY:
        return ANY
    if isinstance(seen, dict) and isinstance(golden, dict):
        return {key: _kept(value, golden.get(key)) for key, value in seen.items()}
    if isinstance(seen, list) and isinstance(golden, list) and len(seen) == len(golden):
        return [_kept(value, old) for value, old in zip(seen, golden, strict=True)]
    return seen


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"

"""Characters that the encoding of standard output lacks are written as JSON escapes."""

import io
import json
import sys

import pytest

from export_worker.cli import escape_what_streams_cannot_write


@pytest.mark.parametrize(
    ("encoding", "errors"),
    [
        pytest.param("latin-1", "strict", id="PYTHONIOENCODING=latin-1"),
        pytest.param("ascii", "surrogateescape", id="LC_ALL=C"),
    ],
)
def test_json_survives_an_encoding_without_its_characters(
    monkeypatch: pytest.MonkeyPatch, encoding: str, errors: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, errors=errors))
    escape_what_streams_cannot_write()
    sys.stdout.write(json.dumps("中 é 😀", ensure_ascii=False))
    sys.stdout.flush()
    assert json.loads(written.getvalue().decode(encoding)) == "中 é 😀"


def test_handler_that_the_user_has_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors="replace"))
    escape_what_streams_cannot_write()
    sys.stdout.write("中")
    sys.stdout.flush()
    assert written.getvalue() == b"?"

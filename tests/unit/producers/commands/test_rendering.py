"""Rendering of exports for people: tables, lines, and the removal of control characters."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console, RenderableType

from export_producers.commands import rendering
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Status

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
KINDS = ["growingio.segment_profile_users", "sensorsdata.user_group_users"]
EVIL = "a\x1b[2Jb\x9b31mc\u202ed\r\ne\u200f\u061c"


def status(**fields: Any) -> Status:
    defaults = {
        "export_id": "0123456789abcdef" * 2,
        "phase": "transferring",
        "connection": "gio",
        "kind": KINDS[0],
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Status.model_validate(defaults | fields)


def shown(what: RenderableType, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 240])
def test_listing_never_cuts_ids_or_kinds(width: int) -> None:
    ids = [f"{number:032x}" for number in range(1, 4)]
    error = {"code": "platform_error", "message": "text " * 30, "step": "poll", "retryable": True}
    listing = [status(export_id=name, kind=KINDS[number % 2], error=error) for number, name in enumerate(ids)]

    text = shown(rendering.table(listing), width)

    assert all(name in text for name in ids)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        assert all(kind in text for kind in KINDS)
    assert ("CONNECTION" in text) == (width >= 160)


def test_empty_listing_has_a_header() -> None:
    assert shown(rendering.table([]), 80).startswith("EXPORT")


def test_activity_of_a_transfer_has_bytes_files_parts_and_rate() -> None:
    progress = {"bytes_done": 3 * 2**20, "bytes_total": 2**23, "files_done": 1, "files_total": 2}
    assert rendering.activity(status(progress=progress)) == "3.0 MiB of 8.0 MiB, file 2 of 2"
    moving = progress | {"parts_done": 4, "bytes_per_s": 2**21}
    assert rendering.activity(status(progress=moving)) == "3.0 MiB of 8.0 MiB, file 2 of 2, 4 part(s), 2.0 MiB/s"


def test_rich_markup_in_a_status_is_shown_as_text() -> None:
    assert "[red]users[/red]" in shown(rendering.table([status(kind="[red]users[/red]")]), 240)


@pytest.mark.parametrize("width", [80, 240])
def test_control_characters_in_a_status_never_reach_the_terminal(width: int) -> None:
    error = {"code": "platform_error", "message": EVIL, "step": "poll", "retryable": True}
    written = status(
        error=error,
        metadata={EVIL: EVIL},
        connection=EVIL,
        kind=EVIL,
        operation_id=EVIL,
        manifest=EVIL,
        export_id=EVIL,
        platform_stage=EVIL,
    )
    texts = [
        shown(rendering.table([written]), width),
        shown(rendering.details(written), width),
        rendering.line(written),
        rendering.activity(written),
        rendering.line(written.model_copy(update={"phase": "running"})),
        rendering.document(written),
    ]
    for text in texts:
        assert not set(text) & set("\x1b\x9b\u202e\u200f\u061c\r"), text
    assert "\n" not in rendering.line(written)


def test_clean_keeps_letters_of_all_languages() -> None:
    assert clean("用户\tStraße 😀") == "用户 Straße 😀"


@pytest.mark.parametrize("indent", [None, 2])
def test_dumps_is_valid_utf_8_and_parses_to_the_same_value(indent: int | None) -> None:
    value = {"用户": EVIL, "half": "\udcff"}
    text = dumps(value, indent=indent)
    assert "用户" in text
    assert json.loads(text.encode()) == value

"""Rendering of exports for people: tables, lines, and the removal of control characters."""

import io
import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from export_producers.commands import rendering
from export_producers.commands.following import Following
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Status
from support.terminal import Terminal

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
    assert rendering.activity(status(progress=moving)) == (
        "3.0 MiB of 8.0 MiB, file 2 of 2, 4 part(s), 2.0 MiB/s, 2 s left"
    )


@pytest.mark.parametrize(
    ("phase", "progress", "expected"),
    [
        ("running", {}, None),
        ("running", {"percent": 40.0}, 0.4),
        ("transferring", {"percent": 37.5, "bytes_done": 3}, 0.375),
        ("transferring", {"bytes_done": 1, "bytes_total": 4}, 0.25),
        ("transferring", {"bytes_done": 5, "bytes_total": 4}, 1.0),
        ("transferring", {"bytes_done": 5, "files_done": 1, "files_total": 4}, 0.25),
        ("transferring", {"bytes_done": 5, "files_total": 1}, None),
    ],
)
def test_fraction_is_known_from_percent_bytes_or_files(
    phase: str, progress: dict[str, Any], expected: float | None
) -> None:
    assert rendering.fraction(status(phase=phase, progress=progress)) == expected


REQUEST = {
    "connection": "gio",
    "export": {"kind": KINDS[0], "project_id": "p", "segment_key": "vip", "properties": ["a", "b"]},
    "output": {"charset": "UTF-8", "compression": "none"},
    "idempotency_key": "order-42",
    "deadline_s": 7200.0,
    "notify": ["stream"],
}


def test_details_show_what_the_export_asks_for_and_ages_beside_times() -> None:
    due = NOW + timedelta(minutes=3)
    found = status(request=REQUEST, due_at=due, trace_id="4bf92f35")
    text = shown(rendering.details(found, NOW + timedelta(hours=2)), 120)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "asks for project_id = p, segment_key = vip, properties = a, b" in lines
    assert "output charset = UTF-8" in lines
    assert {"key order-42", "deadline 7200 s", "sinks stream", "trace id 4bf92f35"} <= set(lines)
    assert "created 2026-11-22T03:00:00.000Z (2 h ago)" in lines
    assert "due 2026-11-22T03:03:00.000Z (1 h ago)" in lines


@pytest.mark.parametrize("width", [46, 80, 240])
def test_listing_shows_segment_connection_and_age(width: int) -> None:
    listing = rendering.Listing([status(request=REQUEST)], NOW + timedelta(seconds=90))
    text = " ".join(shown(listing, width).split())
    assert f"{KINDS[0]} segment vip" in text
    assert "gio" in text
    assert ("1 min ago" in text) == (width > 46)


def test_export_takes_two_lines_where_its_activity_fits_beside_its_subject() -> None:
    listing = rendering.Listing([status(request=REQUEST)] * 2, NOW)
    assert [len(shown(listing, width).splitlines()) for width in (60, 120)] == [6, 4]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_timeline_indents_the_continuation_of_a_note(width: int) -> None:
    entry = {"at": "2026-11-22T03:00:00.000Z", "phase": "transferring", "note": "word " * 40}
    first, *more = shown(rendering.Timeline([entry, entry | {"note": "end"}]), width).rstrip().splitlines()
    assert first.startswith("2026-11-22T03:00:00.000Z  transferring")
    continued = [line for line in more if line.strip().startswith("word")]
    assert continued
    assert {len(line) - len(line.lstrip()) for line in continued} == {2 if width < 70 else 40}


def test_timeline_of_unknown_phase_is_shown() -> None:
    entry = {"at": "t", "phase": "phase_of_tomorrow", "note": EVIL}
    text = shown(rendering.Timeline([entry]), 100)
    assert "phase_of_tomorrow" in text
    assert not set(text) & set("\x1b\x9b\u202e")


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
        shown(Following(written.model_copy(update={"request": {"export": {EVIL: EVIL, "tag_key": EVIL}}}), NOW), width),
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


@pytest.mark.parametrize(("kind", "redraws"), [("xterm-256color", True), ("dumb", False), ("unknown", False)])
def test_terminals_that_only_append_are_not_drawn_again(
    monkeypatch: pytest.MonkeyPatch, kind: str, redraws: bool
) -> None:
    monkeypatch.setenv("TERM", kind)
    with Terminal(80, 24) as terminal, os.fdopen(os.dup(terminal.stream), "w") as stream:
        assert rendering.redraws(Console(file=stream)) is redraws


def test_forced_colours_do_not_make_a_file_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = Console(file=io.StringIO())
    assert console.is_terminal
    assert not rendering.redraws(console)

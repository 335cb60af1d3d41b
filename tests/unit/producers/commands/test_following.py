"""What a terminal shows while a command follows an export."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from export_producers.commands import rendering
from export_producers.commands.following import Following, following
from export_producers.languages import duration, short
from export_worker.contract.status import Status

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
REQUEST = {"connection": "gio", "export": {"kind": "growingio.segment_users", "segment_id": "qgQMXnD3"}}
MOVING = {"bytes_done": 2**20, "bytes_total": 2**22, "files_done": 0, "files_total": 1, "bytes_per_s": 2**18}


def status(phase: str = "transferring", **fields: Any) -> Status:
    return Status.model_validate(
        {
            "export_id": "e1",
            "phase": phase,
            "connection": "gio",
            "kind": "growingio.segment_users",
            "created_at": NOW,
            "updated_at": NOW,
            "request": REQUEST,
        }
        | fields
    )


def shown(shows: Following, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(shows)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [36, 50, 80, 120])
def test_transfer_shows_bar_percent_rate_and_time_left_within_the_width(width: int) -> None:
    lines = shown(Following(status(progress=MOVING), NOW + timedelta(seconds=72)), width)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= width
    assert "segment qgQMXnD3" in text
    assert "25%" in text
    assert "256.0 KiB/s, 12 s left" in text
    assert "for 1 min 12 s" in text
    assert ("━" in text) == (width >= 50)


def test_operation_without_percentage_has_no_bar() -> None:
    lines = shown(Following(status("running", platform_stage="EXECUTING"), NOW), 80)
    assert lines[1:] == ["running for 0 s", "platform says EXECUTING, 0 polls"]


def test_wait_for_the_next_step_counts_down() -> None:
    waiting = status("running", due_at=NOW + timedelta(seconds=30))
    assert shown(Following(waiting, NOW + timedelta(seconds=10)), 80)[2].endswith("0 polls, next step in 20 s")
    assert shown(Following(waiting, NOW + timedelta(seconds=40)), 80)[2].endswith("0 polls")


def test_end_shows_how_long_it_took_and_where_the_files_are() -> None:
    item = {"bucket": "b", "key": "k", "bytes": 1024, "etag": "e", "checksum": "c", "file_name": "k"}
    ended = status(
        "succeeded",
        finished_at=NOW + timedelta(seconds=5),
        objects=[item | {"uri": f"s3://b/{number}.csv"} for number in range(7)],
        manifest="s3://b/_manifest.json",
    )
    lines = shown(Following(ended, NOW + timedelta(hours=1)), 80)
    assert lines[1] == "succeeded after 5 s"
    assert lines[3:] == [*(f"s3://b/{number}.csv" for number in range(5)), "… and 2 more", "s3://b/_manifest.json"]


def test_terminal_gets_the_last_status_in_colour() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    with following(console) as show:
        show(status("running"))
        show(status("failed", error={"code": "auth_failed", "message": "m", "step": "poll", "retryable": False}))
    assert isinstance(console.file, io.StringIO)
    assert "\x1b[1;31mfailed" in console.file.getvalue()
    assert "[auth_failed] m" in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "long", "largest"),
    [
        (-5, "0 s", "0 s"),
        (0.4, "0 s", "0 s"),
        (59, "59 s", "59 s"),
        (60, "1 min", "1 min"),
        (185, "3 min 5 s", "3 min"),
        (7_260, "2 h 1 min", "2 h"),
        (86_400 * 3 + 59, "3 d", "3 d"),
    ],
)
def test_durations_have_one_or_two_units(seconds: float, long: str, largest: str) -> None:
    assert (duration("en", seconds), short("en", seconds)) == (long, largest)


def test_ages_are_past_or_future() -> None:
    assert rendering.how_long_ago(NOW, NOW + timedelta(seconds=90), "en") == "1 min ago"
    assert rendering.how_long_ago(NOW, NOW - timedelta(seconds=90), "en") == "in 1 min"
    assert rendering.how_long_ago(NOW, NOW - timedelta(seconds=0.5), "en") == "0 s ago"

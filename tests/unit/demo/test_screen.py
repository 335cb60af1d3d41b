"""The screen of the demo: it fits the terminal, and shows what has not ended yet."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from export_worker.contract.status import Counters, ErrorReport, Phase, Progress, Status
from export_worker.demo.first_line import STARTING
from export_worker.demo.requests import EXPORTS, FLAKY, GOOD
from export_worker.demo.screen import Screen, waits
from support.deployment import blocks

BEGUN = datetime(2026, 11, 22, 12, 42, 17, tzinfo=UTC)
NOW = BEGUN + timedelta(seconds=12)
UNAVAILABLE = ErrorReport(code="platform_unavailable", message="503 " * 50, step="submit", retryable=True)
KINDS = [export["kind"] for _, export in EXPORTS]
TOTAL = len(EXPORTS)
OPEN = (10, 11, 12)
"""The exports of the second round that have not ended."""


def status(
    number: int, phase: Phase, round_name: str = FLAKY, *, error: ErrorReport | None = None, due_s: float = 0.4
) -> Status:
    begun = BEGUN + timedelta(seconds=2 if round_name == GOOD else 7)
    return Status(
        export_id=f"{number:032x}",
        phase=phase,
        platform_stage="RUNNING" if phase is Phase.RUNNING else None,
        connection="gio",
        kind=KINDS[number % len(KINDS)],
        created_at=begun,
        updated_at=begun,
        due_at=NOW + timedelta(seconds=due_s) if error else None,
        finished_at=begun + timedelta(seconds=4) if phase.terminal else None,
        counters=Counters(polls=3),
        progress=Progress(bytes_done=2048, files_total=1),
        error=error,
        metadata={"weather": round_name},
        request={"export": EXPORTS[number % len(EXPORTS)][1]},
    )


def drawn(statuses: Sequence[Status], columns: int = 80, lines: int = 24) -> list[str]:
    output = StringIO()
    console = Console(file=output, width=columns, height=lines)
    console.print(Screen(statuses, BEGUN, NOW))
    return [line.rstrip() for line in output.getvalue().splitlines()]


GOOD_ROUND = [status(number, Phase.SUCCEEDED, GOOD) for number in range(TOTAL)]
MIXED = [
    *GOOD_ROUND,
    *(status(number, Phase.SUCCEEDED) for number in range(TOTAL) if number not in OPEN),
    status(OPEN[0], Phase.QUEUED, error=UNAVAILABLE),
    status(OPEN[1], Phase.RUNNING),
    status(OPEN[2], Phase.TRANSFERRING),
]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 50), (40, 10)])
@pytest.mark.parametrize("count", [0, 5, 18, 500])
def test_screen_fits_every_terminal(columns: int, lines: int, count: int) -> None:
    statuses = [*GOOD_ROUND, *(status(number, Phase.RUNNING, error=UNAVAILABLE) for number in range(count))]
    shown = drawn(statuses, columns, lines)
    assert len(shown) < lines, "the cursor needs a line"
    assert [line for line in shown if cell_len(line) > columns] == []


def test_open_exports_are_first_and_ended_ones_are_counted() -> None:
    first, second, header, *rows, last = drawn(MIXED)
    assert first.startswith(f"Round 1 of 2, the platforms work: {TOTAL} of {TOTAL} exports succeeded")
    assert second.startswith(
        f"Round 2 of 2, the platforms fail some calls: {TOTAL - len(OPEN)} of {TOTAL} exports succeeded"
    )
    assert header.split() == ["KIND", "PHASE", "NOW"]
    assert [row.split()[1] for row in rows] == ["transferring", "running", "queued"]
    assert last == "Waiting for 1 operation, 1 transfer and 1 retry (next in 0.4 s)"


def test_line_of_a_round_ends_with_its_time() -> None:
    first, second, *_ = drawn(MIXED)
    assert [line.rpartition("  ")[2] for line in (first, second)] == ["4 s", "5 s"]


def test_wide_screen_says_what_each_export_asks_for() -> None:
    _, _, header, *rows, _ = drawn(MIXED, 120, 50)
    assert header.split() == ["KIND", "WHAT", "PHASE", "NOW"]
    assert "cluster 971" in rows[-1]


def test_exports_without_room_are_counted() -> None:
    *_, more, last = drawn([*GOOD_ROUND, *(status(number, Phase.RUNNING) for number in range(40))])
    assert more == "… and 22 more"
    assert last == "Waiting for 40 operations"


def test_screen_before_the_first_export_says_what_is_started() -> None:
    (line,) = drawn([])
    assert line.startswith(STARTING)
    assert line.endswith("12 s")


def test_failed_exports_are_named_in_the_line_of_their_round() -> None:
    first, *_ = drawn([status(1, Phase.FAILED, GOOD), *GOOD_ROUND[1:]])
    assert f"{TOTAL - 1} of {TOTAL} exports succeeded, 1 did not" in first


@pytest.mark.parametrize(("round_name", "text"), [(GOOD, "the next round"), (FLAKY, "the last events and processes")])
def test_wait_after_all_exports_have_ended_is_named(round_name: str, text: str) -> None:
    assert text in waits([status(1, Phase.SUCCEEDED, round_name)], NOW)


def test_picture_in_the_readme_is_what_a_terminal_shows() -> None:
    picture, *_ = blocks("README.md", "console")
    assert picture.startswith("\n".join(["$ make demo", *drawn(MIXED), "…\n"]))


def test_retry_that_is_overdue_has_no_time() -> None:
    statuses = [status(1, Phase.RUNNING, error=UNAVAILABLE, due_s=-3.0)]
    assert waits(statuses, NOW) == "Waiting for 1 retry"

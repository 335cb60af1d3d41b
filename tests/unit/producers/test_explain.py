"""Why an export waits and until when, in one sentence each."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_producers.explain import Facts, explanation
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Counters, ErrorReport, Phase, Status, StoredObject

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
EARLIER = NOW - timedelta(minutes=5)
ERROR = ErrorReport(code="platform_unavailable", message="HTTP 502", step="poll", retryable=True)
STORED = StoredObject(
    uri="s3://b/k/a.csv", bucket="b", key="k/a.csv", bytes=1, etag="0cc1", checksum="CRC64NVME:A", file_name="a.csv"
)


def status_of(phase: Phase, **more: Any) -> Status:
    return Status(
        export_id="e1",
        phase=phase,
        connection="gio",
        kind="growingio.tag_users",
        created_at=NOW,
        updated_at=NOW,
        **more,
    )


def explained(phase: Phase = Phase.RUNNING, *, about: dict[str, Any] | None = None, **seen: Any) -> str:
    """The sentence about an export that waits for its time, but for what is given."""
    facts: dict[str, Any] = {
        "due_ms": epoch_ms(LATER),
        "held": False,
        "cancelled": False,
        "parked": None,
        "waiting": None,
        "aside": False,
        "slots": 0,
        "failures": 0,
        "paused_until_ms": None,
    }
    return explanation(Facts(status=status_of(phase, **(about or {})), now=NOW, **(facts | seen)))


# Ended


def test_success_says_when_and_where() -> None:
    about = {"finished_at": NOW, "objects": [STORED], "manifest": "s3://b/k/manifest.json"}
    assert explained(Phase.SUCCEEDED, about=about, due_ms=None) == (
        "It succeeded at 2026-11-22T03:00:00.000Z: 1 file(s) and s3://b/k/manifest.json."
    )


def test_failure_says_why_and_what_to_do() -> None:
    assert explained(Phase.FAILED, about={"finished_at": NOW, "error": ERROR}, due_ms=None) == (
        "It failed at 2026-11-22T03:00:00.000Z in its poll [platform_unavailable]: HTTP 502; "
        "`export-worker retry e1` tries again from there."
    )


def test_a_failure_without_a_report_is_told_too() -> None:
    assert explained(Phase.FAILED) == "It failed; `export-worker retry e1` tries again from there."


def test_cancelling_says_when_and_what_to_do() -> None:
    assert explained(Phase.CANCELLED, about={"finished_at": NOW, "error": ERROR}) == (
        "It was cancelled at 2026-11-22T03:00:00.000Z; `export-worker retry e1` sets it going again."
    )


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED])
def test_an_ended_export_waits_for_nothing_whatever_is_left_of_it(phase: Phase) -> None:
    left: dict[str, Any] = {
        "parked": 3,
        "held": True,
        "cancelled": True,
        "paused_until_ms": epoch_ms(LATER),
        "failures": 9,
    }
    assert explained(phase, **left) == explained(phase)


# Waiting


def test_one_that_waits_for_a_slot_says_behind_whom() -> None:
    assert explained(Phase.QUEUED, parked=2, slots=4, due_ms=None) == (
        "It waits for a free slot of connection gio, behind 2 other(s); "
        "4 export(s) are on the platform now (max_in_flight)."
    )


def test_the_first_in_the_row_is_behind_nobody() -> None:
    assert "behind 0 other(s)" in explained(Phase.QUEUED, parked=0, due_ms=None)


def test_a_lost_queue_entry_is_told() -> None:
    assert explained(due_ms=None) == (
        "Its queue entry is missing; the next sweep of a worker brings it back within a minute."
    )


@pytest.mark.parametrize(
    ("phase", "step"), [(Phase.QUEUED, "submit"), (Phase.RUNNING, "poll"), (Phase.TRANSFERRING, "transfer")]
)
def test_one_that_is_worked_at_says_until_when_it_is_safe(phase: Phase, step: str) -> None:
    assert explained(phase, held=True) == (
        f"A worker is at it now ({step}); should it die, another takes over after 2026-11-22T03:05:00.000Z."
    )


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.RUNNING])
def test_a_paused_connection_says_until_when_and_why(phase: Phase) -> None:
    assert explained(phase, failures=7, paused_until_ms=epoch_ms(LATER)) == (
        "Connection gio is paused until 2026-11-22T03:05:00.000Z: its platform has not answered 7 times in a row; "
        "it is then looked at by one export, and goes on for all."
    )


@pytest.mark.parametrize("until", [EARLIER, NOW])
def test_a_pause_that_is_over_is_no_reason(until: datetime) -> None:
    assert explained(failures=7, paused_until_ms=epoch_ms(until)) == explained()


def test_paused_transfers_say_what_may_be_out_of_reach() -> None:
    assert explained(Phase.TRANSFERRING, failures=7, paused_until_ms=epoch_ms(LATER)) == (
        "Transfers of connection gio are paused until 2026-11-22T03:05:00.000Z: the host of its files, or S3, was out "
        "of reach 7 times in a row; one export then looks again, and all go on when it can."
    )


def test_one_in_the_row_of_its_connection_says_behind_how_many() -> None:
    assert explained(Phase.TRANSFERRING, waiting=4, due_ms=None) == (
        "It waits for a transfer worker that has room, behind 4 other(s) of connection gio; connections take turns."
    )


def test_a_poll_to_come_says_what_the_platform_said_last() -> None:
    about = {"platform_stage": "EXECUTING", "counters": Counters(polls=3)}
    assert explained(about=about) == (
        "It waits until 2026-11-22T03:05:00.000Z for its next poll; the platform says EXECUTING (3 polls so far)."
    )


def test_a_platform_that_says_nothing_is_not_quoted() -> None:
    assert explained().endswith("; the platform says nothing yet (0 polls so far).")


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.RUNNING, Phase.TRANSFERRING])
def test_a_wait_after_a_failure_says_which(phase: Phase) -> None:
    assert explained(phase, about={"error": ERROR}).endswith(", after [platform_unavailable] HTTP 502.")


@pytest.mark.parametrize(("phase", "step"), [(Phase.QUEUED, "submit"), (Phase.TRANSFERRING, "transfer")])
def test_a_wait_without_a_failure_says_until_when(phase: Phase, step: str) -> None:
    assert explained(phase) == f"It waits until 2026-11-22T03:05:00.000Z for its next {step}."


@pytest.mark.parametrize(
    ("phase", "step", "role"),
    [
        (Phase.QUEUED, "submit", "control"),
        (Phase.RUNNING, "poll", "control"),
        (Phase.TRANSFERRING, "transfer", "transfer"),
    ],
)
@pytest.mark.parametrize("due", [NOW, EARLIER])
def test_one_that_nobody_takes_asks_for_a_worker(phase: Phase, step: str, role: str, due: datetime) -> None:
    since = due.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert explained(phase, due_ms=epoch_ms(due)) == (
        f"It is due for its {step} since {since}, and no {role} worker has taken it; is one running?"
    )


# All of them

waiting = st.fixed_dictionaries(
    {
        "due_ms": st.none() | st.integers(0, 4 * 10**12).map(float),
        "held": st.booleans(),
        "parked": st.none() | st.integers(0, 10**6),
        "waiting": st.none() | st.integers(0, 10**6),
        "aside": st.booleans(),
        "slots": st.integers(0, 10**6),
        "failures": st.integers(0, 10**6),
        "paused_until_ms": st.none() | st.integers(0, 4 * 10**12).map(float),
    }
)


@given(st.sampled_from([Phase.QUEUED, Phase.RUNNING, Phase.TRANSFERRING]), waiting)
def test_whoever_asked_for_its_end_is_told_that_it_was_heard(phase: Phase, seen: dict[str, Any]) -> None:
    words = explained(phase, **seen)
    assert explained(phase, cancelled=True, **seen) == f"Somebody asked for its end; {words[0].lower()}{words[1:]}"


@given(st.sampled_from(list(Phase)), waiting, st.booleans())
def test_it_is_always_one_sentence_on_one_line(phase: Phase, seen: dict[str, Any], cancelled: bool) -> None:
    words = explained(phase, cancelled=cancelled, **seen)
    assert words[-1] in ".?"
    assert "\n" not in words
    assert "None" not in words or phase is Phase.SUCCEEDED

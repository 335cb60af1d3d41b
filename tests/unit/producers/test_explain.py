"""The explanation of an export in every state: why it waits and until when, or how it ended."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_producers.choices import LANGUAGES, Language
from export_producers.explain import Facts, Pause, explanation
from export_producers.languages import age
from export_producers.pauses import ConnectionPause
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Counters, ErrorReport, Phase, Status, StoredObject
from export_worker.errors import ErrorCode

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
EARLIER = NOW - timedelta(minutes=5)
ERROR = ErrorReport(code="platform_unavailable", message="HTTP 502", step="poll", retryable=True)
STORED = StoredObject(
    uri="s3://b/k/a.csv", bucket="b", key="k/a.csv", bytes=1, etag="0cc1", checksum="CRC64NVME:A", file_name="a.csv"
)
RESTART = "To restart it, run `export-worker retry e1`."


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


NOTHING_KNOWN: dict[str, Any] = {
    "due_ms": None,
    "claimed": False,
    "cancel_requested": False,
    "parked": None,
    "waiting": None,
    "offered_to_others": False,
    "slots": 0,
    "platform": None,
    "kind": None,
}


def explained(
    phase: Phase = Phase.RUNNING, *, about: dict[str, Any] | None = None, language: Language = "en", **found: Any
) -> str:
    """Explains an export that waits until `LATER`.

    Args:
        about: Fields of its status.
        language: The language of the text.
        found: Facts that differ from those of such an export.
    """
    facts = NOTHING_KNOWN | {"due_ms": epoch_ms(LATER)}
    status = status_of(phase, **(about or {}))
    return explanation(Facts(status=status, now=NOW, **(facts | found))).text(language)


# Exports that have ended


def test_success_has_its_time_and_the_manifest() -> None:
    about = {"finished_at": NOW, "objects": [STORED], "manifest": "s3://b/k/_manifest.json"}
    assert explained(Phase.SUCCEEDED, about=about, due_ms=None) == (
        "The export succeeded at 2026-11-22T03:00:00.000Z (0 s ago). It stored 1 file(s) and the manifest s3://b/k/_manifest.json."
    )


def test_failure_has_its_time_its_error_and_the_command_to_retry() -> None:
    assert explained(Phase.FAILED, about={"finished_at": NOW, "error": ERROR}, due_ms=None) == (
        "The export failed at 2026-11-22T03:00:00.000Z (0 s ago) in its poll step: [platform_unavailable] HTTP 502. "
        + RESTART
    )


def test_failure_without_an_error_report_has_the_command_to_retry() -> None:
    assert explained(Phase.FAILED) == (
        "The export failed at 2026-11-22T03:00:00.000Z (0 s ago) in its unknown step: "
        f"[internal_error] the record has no error. {RESTART}"
    )


@pytest.mark.parametrize("code", sorted(ErrorCode))
@pytest.mark.parametrize("step", ["submit", "poll", "transfer"])
def test_retry_is_advised_exactly_if_a_retry_from_the_same_step_can_help(code: ErrorCode, step: str) -> None:
    for retryable in (True, False):
        error = ErrorReport(code=code, message="m", step=step, retryable=retryable)
        status = status_of(Phase.FAILED, error=error)
        notes = explanation(Facts(status=status, now=NOW, **NOTHING_KNOWN)).after
        can_help = retryable or code is ErrorCode.DEADLINE_EXCEEDED
        assert [note.code for note in notes] == ["retry" if can_help else "fix"]
        if not can_help:
            for language in LANGUAGES:
                assert "export-worker retry" not in explained(Phase.FAILED, about={"error": error}, language=language)


def test_cancelled_export_has_its_time_and_the_command_to_retry() -> None:
    assert explained(Phase.CANCELLED, about={"finished_at": NOW, "error": ERROR}) == (
        f"The export was cancelled at 2026-11-22T03:00:00.000Z (0 s ago). {RESTART}"
    )


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED])
def test_ended_export_is_not_explained_by_facts_of_its_queue_entry(phase: Phase) -> None:
    leftovers: dict[str, Any] = {
        "parked": 3,
        "claimed": True,
        "cancel_requested": True,
        "platform": Pause(epoch_ms(LATER), 9),
        "kind": Pause(epoch_ms(LATER), 9),
    }
    assert explained(phase, **leftovers) == explained(phase)


@pytest.mark.parametrize(("code", "start"), [("platform_error", "submit"), ("platform_refused", None)])
def test_advice_names_the_step_from_which_a_restart_may_succeed(code: str, start: str | None) -> None:
    error = ErrorReport(code=code, message="m", step="poll", retryable=False)
    (note,) = explanation(Facts(status=status_of(Phase.FAILED, error=error), now=NOW, **NOTHING_KNOWN)).after
    assert note.model_dump() == {"error_code": code, "start": start}


# Exports that wait


def test_export_that_waits_for_a_slot_has_its_position() -> None:
    assert explained(Phase.QUEUED, parked=2, slots=4, due_ms=None) == (
        "Waiting for a free slot of connection gio (max_in_flight). Exports ahead of it: 2. "
        "Exports running on the platform: 4. Its priority is normal. Exports with a higher one are first. "
        "Within a priority, those who request exports take turns."
    )


def test_export_that_waits_for_a_slot_has_its_wait_and_an_estimate_of_the_rest() -> None:
    text = explained(Phase.QUEUED, parked=3, slots=2, parked_s=90.0, durations_s=[600.0] * 20)
    assert text.endswith(
        " It has waited for 1 min 30 s. "
        "If the exports before it take as long as usual, its slot is free in about 20 min."
    )
    assert "usual" not in explained(Phase.QUEUED, parked=3, slots=2, parked_s=90.0, durations_s=[600.0] * 4)
    assert "usual" not in explained(Phase.QUEUED, parked=3, slots=0, parked_s=90.0, durations_s=[600.0] * 20)


def test_first_export_that_waits_for_a_slot_has_position_zero() -> None:
    assert "Exports ahead of it: 0." in explained(Phase.QUEUED, parked=0, due_ms=None)


def test_export_that_is_offered_to_other_workers_has_the_reason() -> None:
    assert explained(Phase.QUEUED, offered_to_others=True, due_ms=None) == (
        "The last worker that claimed this export does not know connection gio, runs an older version, "
        "or cannot use its store. "
        "Other workers can claim the export at once. After some seconds, every worker can claim it again."
    )


def test_missing_queue_entry_is_reported() -> None:
    assert explained(due_ms=None) == (
        "The queue entry of this export is missing. The sweep of a worker restores the entry within one minute."
    )


@pytest.mark.parametrize(
    ("phase", "step"), [(Phase.QUEUED, "submit"), (Phase.RUNNING, "poll"), (Phase.TRANSFERRING, "transfer")]
)
def test_claimed_step_has_the_time_at_which_another_worker_may_claim_it(phase: Phase, step: str) -> None:
    assert explained(phase, claimed=True) == (
        f"A worker is running its {step} step. "
        "If that worker stops responding, another worker claims the step after 2026-11-22T03:05:00.000Z (in 5 min)."
    )


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.RUNNING])
def test_paused_connection_has_the_end_of_the_pause_and_the_reason(phase: Phase) -> None:
    pause = Pause(epoch_ms(LATER), 7)
    assert explained(phase, platform=pause, kind=pause) == (
        "Connection gio is paused until 2026-11-22T03:05:00.000Z (in 5 min): "
        "its platform did not answer 7 checks in a row. "
        "Then a worker checks the platform again. If the platform answers, all exports resume."
    )


@pytest.mark.parametrize("until", [EARLIER, NOW])
def test_pause_that_has_ended_is_ignored(until: datetime) -> None:
    assert explained(platform=Pause(epoch_ms(until), 7), kind=Pause(epoch_ms(until), 7)) == explained()


@pytest.mark.parametrize(
    ("phase", "calls"), [(Phase.QUEUED, "Submits"), (Phase.RUNNING, "Polls"), (Phase.TRANSFERRING, "Transfers")]
)
def test_export_whose_kind_of_calls_is_paused_has_the_end_of_the_pause_and_the_error(phase: Phase, calls: str) -> None:
    assert explained(phase, about={"error": ERROR}, kind=Pause(epoch_ms(LATER), 7)) == (
        f"{calls} of connection gio are paused until 2026-11-22T03:05:00.000Z (in 5 min) "
        "for this and all other exports for which "
        "one has failed: 7 exports, without a success in between. Then one export is tried. "
        "If it succeeds, all exports resume. Last error: [platform_unavailable] HTTP 502."
    )


@pytest.mark.parametrize("parked", [None, 3])
def test_connection_that_an_operator_has_paused_has_the_end_and_the_reason(parked: int | None) -> None:
    pause = ConnectionPause(since=EARLIER, until=LATER, by="oncall", reason="maintenance of the platform")
    assert explained(Phase.QUEUED, operator_pause=pause, parked=parked) == (
        "Connection gio is paused by oncall until 2026-11-22T03:05:00.000Z (in 5 min). "
        "Reason: maintenance of the platform. "
        "Until then, no export of the connection is submitted. Polls and transfers continue."
    )
    endless = explained(Phase.QUEUED, operator_pause=ConnectionPause(since=EARLIER), parked=parked)
    assert "is paused by an operator until it is resumed. Reason: none." in endless


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.TRANSFERRING])
def test_pause_by_an_operator_concerns_submits_only(phase: Phase) -> None:
    assert explained(phase, operator_pause=ConnectionPause(since=EARLIER)) == explained(phase)
    ended = ConnectionPause(since=EARLIER, until=EARLIER)
    assert explained(Phase.QUEUED, operator_pause=ended) == explained(Phase.QUEUED)


@pytest.mark.parametrize("parked", [None, 3])
def test_queued_export_outside_of_the_submit_windows_has_the_next_one(parked: int | None) -> None:
    text = explained(Phase.QUEUED, window_ms=epoch_ms(LATER), parked=parked, due_ms=epoch_ms(NOW))
    assert text == (
        "Connection gio is outside of its submit windows until 2026-11-22T03:05:00.000Z (in 5 min). "
        "Until then, no export of the connection is submitted. Polls and transfers continue."
    )
    paused = ConnectionPause(since=EARLIER)
    assert "paused by" in explained(Phase.QUEUED, window_ms=epoch_ms(LATER), operator_pause=paused, parked=parked)


@pytest.mark.parametrize(
    ("phase", "found"),
    [
        (Phase.RUNNING, {"window_ms": epoch_ms(LATER)}),
        (Phase.TRANSFERRING, {"window_ms": epoch_ms(LATER)}),
        (Phase.QUEUED, {"window_ms": epoch_ms(NOW)}),
        # It waits for longer than the window, for example after a failed operation.
        (Phase.QUEUED, {"window_ms": epoch_ms(LATER), "due_ms": epoch_ms(LATER) + 1}),
    ],
)
def test_submit_windows_are_no_reason_for_other_waits(phase: Phase, found: dict[str, Any]) -> None:
    due = {key: value for key, value in found.items() if key == "due_ms"}
    assert explained(phase, **found) == explained(phase, **due)


def test_estimate_of_an_export_outside_of_the_submit_windows_begins_with_the_next_one() -> None:
    found: dict[str, Any] = {"window_ms": epoch_ms(LATER), "due_ms": None, "slots_max": 2, "durations_s": [600.0] * 20}
    assert explained(Phase.QUEUED, parked=1, **found).endswith("its slot is free in about 5 min.")
    assert explained(Phase.QUEUED, parked=4, **found).endswith("its slot is free in about 25 min.")


def test_transfer_whose_store_no_worker_can_use_has_the_reason() -> None:
    expected = (
        "No transfer worker can use the store of connection gio: NoSuchBucket. "
        "Each worker checks its store every few seconds, and then claims transfers again."
    )
    assert explained(Phase.TRANSFERRING, waiting=4, due_ms=None, store_problem="NoSuchBucket") == expected
    assert explained(Phase.TRANSFERRING, claimed=True, store_problem="NoSuchBucket").startswith("A worker is running")


def test_transfer_that_waits_for_a_worker_has_its_position() -> None:
    assert explained(Phase.TRANSFERRING, waiting=4, due_ms=None) == (
        "Waiting for a transfer worker with free capacity. Exports of connection gio ahead of it: 4. "
        "Connections take turns. Its priority is normal. Exports with a higher one are first. "
        "Within a priority, those who request exports take turns."
    )


def test_export_that_waits_for_a_poll_has_the_last_stage_of_the_platform() -> None:
    about = {"platform_stage": "EXECUTING", "counters": Counters(polls=3)}
    assert explained(about=about) == (
        "Waiting until 2026-11-22T03:05:00.000Z (in 5 min) for its next poll step. "
        "The platform reports stage EXECUTING after 3 poll(s)."
    )


def test_missing_stage_of_the_platform_is_reported() -> None:
    assert explained().endswith(" The platform has not reported a stage after 0 poll(s).")


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.RUNNING, Phase.TRANSFERRING])
def test_export_that_waits_after_an_error_has_the_error(phase: Phase) -> None:
    assert explained(phase, about={"error": ERROR}).endswith(" Last error: [platform_unavailable] HTTP 502.")


@pytest.mark.parametrize(("phase", "step"), [(Phase.QUEUED, "submit"), (Phase.TRANSFERRING, "transfer")])
def test_export_that_waits_without_an_error_has_only_the_time(phase: Phase, step: str) -> None:
    assert explained(phase) == f"Waiting until 2026-11-22T03:05:00.000Z (in 5 min) for its next {step} step."


@pytest.mark.parametrize(
    ("phase", "step", "role"),
    [
        (Phase.QUEUED, "submit", "control"),
        (Phase.RUNNING, "poll", "control"),
        (Phase.TRANSFERRING, "transfer", "transfer"),
    ],
)
@pytest.mark.parametrize("due", [NOW, EARLIER])
def test_due_step_that_no_worker_claims_names_the_missing_role(
    phase: Phase, step: str, role: str, due: datetime
) -> None:
    since = due.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    since_due = age("en", (NOW - due).total_seconds())
    assert explained(phase, due_ms=epoch_ms(due)) == (
        f"Its {step} step has been due since {since} ({since_due}), but no worker has claimed it. "
        f"Check that a {role} worker is running."
    )


# All combinations

pauses = st.none() | st.builds(Pause, st.integers(0, 4 * 10**12).map(float), st.integers(0, 10**6))
waiting = st.fixed_dictionaries(
    {
        "due_ms": st.none() | st.integers(0, 4 * 10**12).map(float),
        "claimed": st.booleans(),
        "parked": st.none() | st.integers(0, 10**6),
        "waiting": st.none() | st.integers(0, 10**6),
        "offered_to_others": st.booleans(),
        "slots": st.integers(0, 10**6),
        "platform": pauses,
        "kind": pauses,
    }
)


@given(st.sampled_from([Phase.QUEUED, Phase.RUNNING, Phase.TRANSFERRING]), waiting)
def test_requested_cancellation_precedes_the_reason_of_the_wait(phase: Phase, found: dict[str, Any]) -> None:
    text = explained(phase, **found)
    assert explained(phase, cancel_requested=True, **found) == f"Cancellation requested. {text}"


@given(st.sampled_from(list(Phase)), waiting, st.booleans())
def test_explanation_is_always_one_line_of_complete_sentences(
    phase: Phase, found: dict[str, Any], cancel_requested: bool
) -> None:
    text = explained(phase, cancel_requested=cancel_requested, **found)
    assert text[0].isupper()
    assert text[-1] == "."
    assert "\n" not in text
    assert "None" not in text or phase is Phase.SUCCEEDED


def test_slow_export_has_its_time_on_the_platform_and_the_usual_time() -> None:
    text = explained(running_s=7500.0, durations_s=[600.0] * 20)
    assert text.endswith(
        " It has been on the platform for 2 h 5 min, much longer than usual: "
        "nine tenths of the last 20 exports of its kind took at most 10 min."
    )
    assert "longer" not in explained(running_s=1700.0, durations_s=[600.0] * 20)
    assert "longer" not in explained(running_s=7500.0, durations_s=[600.0] * 4)


def test_export_on_its_platform_has_the_usual_time_for_comparison() -> None:
    durations_s = [float(each) for each in range(60, 1260, 60)]
    assert explained(running_s=90.0, durations_s=durations_s).endswith(
        " It has been on the platform for 1 min 30 s. Half of the last 20 exports of its kind took at most 10 min, "
        "and 95 % of them at most 19 min."
    )
    assert "kind" not in explained(running_s=90.0, durations_s=durations_s[:4])
    assert "kind" not in explained(running_s=0.0, durations_s=durations_s)

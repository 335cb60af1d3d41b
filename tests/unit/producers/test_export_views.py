"""What the page of one export shows of its timeline and its duration."""

from datetime import UTC, datetime, timedelta

from export_producers.console.pages.export_views import copy_command, last_beginning, transitions, usual_duration
from export_worker.contract.status import Eta

START = datetime(2026, 11, 22, 3, tzinfo=UTC)
ETA = Eta(p50=40, p95=90, samples=20)


def entry(after_s: float, phase: str, note: str) -> dict[str, str]:
    return {"at": (START + timedelta(seconds=after_s)).isoformat(), "phase": phase, "note": note}


def test_equal_failures_become_one_entry_although_their_backoffs_differ() -> None:
    found = transitions(
        [
            entry(0, "queued", "accepted"),
            entry(1, "queued", "submit failed (platform_unavailable), retry in 1.0 s: HTTP 503"),
            entry(2, "queued", "submit failed (platform_unavailable), retry in 2.1 s: HTTP 503"),
            entry(4, "queued", "submit failed (platform_unavailable), retry in 3.9 s: HTTP 503"),
            entry(9, "running", "submitted as op1"),
        ]
    )
    assert [(each.note, each.times) for each in found] == [
        ("accepted", 1),
        ("submit failed (platform_unavailable): HTTP 503", 3),
        ("submitted as op1", 1),
    ]
    assert (found[1].last_at - START, found[2].after) == (timedelta(seconds=4), timedelta(seconds=5))


def test_single_failure_keeps_its_backoff() -> None:
    (found,) = transitions([entry(0, "queued", "poll failed (timeout), retry in 1.0 s: slow")])
    assert "retry in 1.0 s" in found.note


def test_duration_is_that_of_the_last_operation() -> None:
    entries = [
        entry(0, "queued", "accepted"),
        entry(10, "running", "submitted as op1"),
        entry(12, "running", "stage EXECUTING"),
        entry(20, "failed", "failed"),
        entry(30, "queued", "restarted from submit"),
        entry(40, "running", "submitted as op2"),
    ]
    found = usual_duration(ETA, entries, START + timedelta(seconds=140))
    assert found is not None
    assert (found.took, found.is_slow) == (timedelta(seconds=100), True)
    assert 0 < found.at_p50 < found.at_p95 < found.at_took < 100
    ended = usual_duration(ETA, [*entries, entry(60, "transferring", "ready")], START + timedelta(seconds=140))
    assert ended is not None
    assert (ended.took, ended.is_slow) == (timedelta(seconds=20), False)
    assert usual_duration(None, entries, START) is None


def test_last_beginning_of_a_transfer_is_found_with_its_kind() -> None:
    entries = [
        entry(0, "transferring", "resumed the upload of 3 parts"),
        entry(1, "transferring", "restarted k from the beginning"),
        entry(2, "queued", "restarted from submit"),
    ]
    assert last_beginning(entries) == ("restarted", "restarted k from the beginning")
    assert last_beginning([*entries[1:], entries[0]]) == ("resumed", "resumed the upload of 3 parts")
    assert last_beginning(entries[2:]) is None


def test_command_for_an_object_is_quoted() -> None:
    assert copy_command("s3://bucket/a b$(c).csv") == "aws s3 cp 's3://bucket/a b$(c).csv' ."

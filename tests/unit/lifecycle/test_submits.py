"""Unclear submits: how many are allowed, when they are repeated, and what their texts state."""

from dataclasses import replace

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import (
    ErrorCode,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformUnavailableError,
    SubmitUnclearError,
)
from export_worker.lifecycle import endings, submits
from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.decisions import Moment, Policy
from export_worker.lifecycle.endings import RESUBMIT_WAIT_S
from export_worker.lifecycle.export import Export
from export_worker.lifecycle.resubmit import Resubmit
from export_worker.lifecycle.submits import UNCLEAR_MAX
from support.export_states import POLICY, at, code_of, due_in_s, export_of, running, saved

MANY_ATTEMPTS = 1000
TIMEOUT = "POST /graphql: no response within the timeout"


def policy_of(resubmit: Resubmit, max_attempts: int = MANY_ATTEMPTS) -> Policy:
    return Policy(POLICY.poll, POLICY.retry, max_attempts, POLICY.deadline_s, resubmit)


def unclear_times(count: int, policy: Policy, moment: Moment | None = None) -> Export:
    """Returns an export after this many unclear submits. Fewer, if it has failed before."""
    export = export_of()
    for _ in range(count):
        if export.phase is Phase.QUEUED:
            error = PlatformUnavailableError(TIMEOUT, unclear=True)
            export = endings.after_failure(submits.count_submit(export), error, moment or at(1), policy).export
    return export


@pytest.mark.parametrize(("resubmit", "allowed"), [("never", 1), ("once", 2)])
def test_export_fails_with_submit_unclear_after_the_allowed_submits(resubmit: Resubmit, allowed: int) -> None:
    policy = policy_of(resubmit)
    assert unclear_times(allowed - 1, policy).phase is Phase.QUEUED
    export = unclear_times(allowed, policy)
    assert (export.phase, code_of(export), export.counters.submits) == (
        Phase.FAILED,
        ErrorCode.SUBMIT_UNCLEAR,
        allowed,
    )


def test_resubmit_always_uses_the_attempts_of_the_export() -> None:
    assert unclear_times(99, policy_of("always", 100)).phase is Phase.QUEUED
    export = unclear_times(100, policy_of("always", 100))
    assert (export.phase, code_of(export)) == (Phase.FAILED, ErrorCode.SUBMIT_UNCLEAR)


def test_message_of_failure_names_the_cause_and_what_to_look_up() -> None:
    export = unclear_times(2, policy_of("once"))
    assert export.error is not None
    assert export.error.message == (
        f"the platform may have received this submit ({TIMEOUT}) and 1 earlier one(s); before you retry the export, "
        "look on the platform for operations that were started for growingio.tag_users tag_key=t"
    )
    assert not export.error.retryable


def test_timeline_and_error_of_retried_submit_state_that_the_platform_may_have_received_it() -> None:
    error = PlatformMalformedError("the response has no job id", unclear=True)
    decision = endings.after_failure(export_of(), error, at(1), POLICY)
    cause = "the platform may have received this submit (the response has no job id)"
    assert decision.note == f"submit failed (platform_malformed), retry in 30.0 s: {cause}"
    assert decision.export.error is not None
    assert decision.export.error.message == cause


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("max_s", "longest_s"), [(30.0, 30.0), (300.0, RESUBMIT_WAIT_S)])
def test_only_repetition_waits_longer_than_a_short_outage(draw: float, max_s: float, longest_s: float) -> None:
    error, moment = PlatformUnavailableError(TIMEOUT, unclear=True), at(1, draw)
    slow = replace(policy_of("once"), retry=Backoff(1.0, max_s))
    once = endings.after_failure(export_of(), error, moment, slow)
    assert due_in_s(once, moment) == longest_s * (1 + draw) / 2
    always = endings.after_failure(export_of(), error, moment, policy_of("always"))
    assert due_in_s(always, moment) == POLICY.retry.wait_s(0, draw)


@pytest.mark.parametrize("resubmit", ["never", "once", "always"])
def test_failures_that_are_safe_to_repeat_count_as_no_unclear_submit(resubmit: Resubmit) -> None:
    policy, export = policy_of(resubmit), export_of()
    for _ in range(10):
        export = endings.after_failure(export, PlatformUnavailableError("no connection"), at(1), policy).export
    assert (export.phase, export.unclear_submits) == (Phase.QUEUED, 0)


def lost_times(count: int) -> Export:
    """Returns an export after this many workers have died in its submit."""
    export = export_of()
    for _ in range(count):
        export = submits.count_open(submits.with_open_submit(submits.count_submit(export)))
    return export


@pytest.mark.parametrize("resubmit", ["never", "once", "always"])
@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_each_worker_that_dies_in_a_submit_counts_as_unclear(resubmit: Resubmit, deaths: int) -> None:
    export = lost_times(deaths)
    assert (export.unclear_submits, export.open_submits, export.counters.submits) == (deaths, 0, deaths)
    assert submits.may_submit(export, policy_of(resubmit)) == (deaths <= UNCLEAR_MAX[resubmit])


@pytest.mark.parametrize(
    ("note", "lost", "expected"),
    [
        (None, 0, None),
        ("stage X", 0, "stage X"),
        (None, 1, "the platform may have received 1 earlier submit(s)"),
        ("stage X", 2, "stage X; the platform may have received 2 earlier submit(s)"),
        (f"cancelled; {submits.MAY_HAVE_STARTED}", 1, f"cancelled; {submits.MAY_HAVE_STARTED}"),
        (submits.may_have_received("HTTP 504"), 1, submits.may_have_received("HTTP 504")),
    ],
)
def test_note_of_a_step_names_the_lost_submits_once(note: str | None, lost: int, expected: str | None) -> None:
    assert submits.with_lost_submits(note, lost) == expected


def test_refused_submit_ends_the_export_and_names_the_death_of_the_worker() -> None:
    export = lost_times(2)
    failed = endings.after_failure(export, SubmitUnclearError(submits.WORKER_LOST), at(1), POLICY).export
    assert failed.error is not None
    assert (failed.phase, failed.error.code) == (Phase.FAILED, ErrorCode.SUBMIT_UNCLEAR)
    assert failed.error.message.startswith(
        "the platform may have received this submit (its worker stopped before it saved the result) and 1 earlier"
    )
    assert failed.counters.submits == 2


def test_other_failure_after_an_unclear_submit_mentions_it() -> None:
    export = unclear_times(1, policy_of("once"))
    failed = endings.after_failure(export, PlatformRefusedError("no such tag"), at(2), policy_of("once")).export
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == (
        ErrorCode.PLATFORM_REFUSED,
        "no such tag; a submit whose response was lost may have started an operation on the platform",
    )


def test_deadline_and_cancel_after_an_unclear_submit_mention_it() -> None:
    export = unclear_times(1, policy_of("once"))
    warning = "a submit whose response was lost may have started an operation on the platform"
    expired = endings.after_deadline(export, at(3600), POLICY).export
    assert expired.error is not None
    assert warning in expired.error.message
    assert endings.after_cancel(export, at(9)).note == f"cancelled; {warning}"


def test_record_of_an_older_worker_has_no_unclear_submits() -> None:
    record = running().model_dump(mode="json", exclude_none=True)
    del record["unclear_submits"]
    assert Export.model_validate(record).unclear_submits == 0
    assert saved(submits.with_unclear_submit(running())).unclear_submits == 1

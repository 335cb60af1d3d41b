"""The state machine: (export, what was observed, now) → the next export. Pure: no I/O, no clock, no randomness.

The caller saves the decision and schedules the next step at its `due_at`. Polls and retries are two policies: a poll
may say "not yet" as often as it likes until the deadline, an attempt may fail a few times only. Being throttled is
waiting, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

from export_worker.contract.status import ErrorReport, ManifestObject, Phase
from export_worker.errors import (
    AuthFailedError,
    ErrorCode,
    PlatformThrottledError,
    ResultMissingError,
    StepError,
)
from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.export import (
    Cancelled,
    Ended,
    Export,
    Failed,
    Open,
    Queued,
    Running,
    Succeeded,
    Transferring,
)
from export_worker.lifecycle.observations import (
    OperationFailed,
    Pending,
    Polled,
    Ready,
    ResumableUpload,
    Stored,
    Submitted,
)
from export_worker.lifecycle.poll_schedule import PollSchedule

EMPTY_LOOKS_MAX = 4
"""A job that is FINISH may name its files a moment later (seen with replicas); after so many looks it has none."""

_UNHEARD = "the platform may have the job of a submit whose answer nobody heard"


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a connection is.

    Args:
        poll: Waits between polls.
        retry: Waits between attempts.
        max_attempts: Failures in a row after which an export is given up.
        deadline_s: Seconds from acceptance after which an export is given up, unless its request says its own.
    """

    poll: PollSchedule
    retry: Backoff
    max_attempts: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """When a decision is taken, and with which luck.

    Args:
        now: The time, with a zone.
        draw: A random number from 0 to 1, for jitter.
    """

    now: datetime
    draw: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the export.

    Args:
        export: The next value; due at `export.due_at` unless its phase is terminal.
        note: A line for the timeline; None for what happens by the hundred, like a poll that says "not yet".
    """

    export: Export
    note: str | None = None


def deadline(export: Export, policy: Policy) -> datetime:
    """The moment at which patience ends."""
    return export.set_going_at + timedelta(seconds=export.request.deadline_s or policy.deadline_s)


def submitting(export: Export, claims: int) -> Export:
    """The export with one more submit counted: one for each time that the step was begun.

    Args:
        claims: More than one means that a worker began this step and never said how it ended: it may have died between
            the platform's acceptance and our note of it.
    """
    submits = export.counters.submits + claims
    return export.model_copy(update={"counters": export.counters.model_copy(update={"submits": submits})})


def _again(claims: int) -> str:
    """What to say of a submit in a step that was begun before."""
    return "" if claims == 1 else " again (an earlier submit may have reached the platform before its worker died)"


def after_submit(
    export: Export,
    submitted: Submitted,
    moment: Moment,
    policy: Policy,
    *,
    claims: int = 1,
    seen_s: Sequence[float] = (),
) -> Decision:
    """The platform took the job; look at once if it says that it is done, else when jobs like it have ended.

    Args:
        claims: See `submitting`.
        seen_s: How long the last jobs of this kind took on this connection.
    """
    wait_s = 0.0 if submitted.done else policy.poll.wait_s(0, 0.0, seen_s, moment.draw)
    state = Running(operation_id=submitted.operation_id, stage=submitted.stage, submitted_at=moment.now)
    return Decision(
        _progressed(export, moment, state=state, due_at=_due(export, moment, wait_s, policy)),
        f"submitted{_again(claims)} as {submitted.operation_id}",
    )


def after_poll(
    export: Export,
    state: Running,
    polled: Polled,
    moment: Moment,
    policy: Policy,
    *,
    claims: int = 1,
    seen_s: Sequence[float] = (),
) -> Decision:
    """Wait on, move bytes, or end.

    Args:
        claims: See `submitting`: some looks submit, too.
        seen_s: How long the last jobs of this kind took on this connection.
    """
    counters = export.counters.model_copy(update={"polls": export.counters.polls + 1})
    export = _next(export, moment, counters=counters)
    match polled:
        case Pending(submitted=True):
            return _wait(submitting(export, claims), state, polled, moment, policy, claims=claims, seen_s=seen_s)
        case Pending():
            return _wait(export, state, polled, moment, policy, claims=claims, seen_s=seen_s)
        case Ready(files=()):
            return _look_again(export, state, polled, moment, policy)
        case Ready():
            ready = Transferring(
                operation_id=state.operation_id,
                stage=polled.stage,
                files=list(polled.files),
                stored=_still_named(state, polled),
                upload=state.upload,
            )
            # No progress yet in the sense of `attempt`: a file that is named but never there must not loop for ever.
            return Decision(
                _next(export, moment, state=ready, due_at=moment.now, throttled=0),
                f"ready with {len(polled.files)} file(s)",
            )
        case OperationFailed():
            failed = state.model_copy(update={"stage": polled.stage})
            return _fail(_next(export, moment, state=failed), ErrorCode.PLATFORM_ERROR, polled.message, moment)


def _still_named(state: Running, polled: Ready) -> list[ManifestObject]:
    """What stands in S3 of files that are named anew, and need not be moved again. Other names: another result."""
    return state.stored if state.names == [file.name for file in polled.files] else []


def _wait(
    export: Export,
    state: Running,
    polled: Pending,
    moment: Moment,
    policy: Policy,
    *,
    claims: int,
    seen_s: Sequence[float],
) -> Decision:
    operation_id = polled.operation_id or state.operation_id
    waited = state.model_copy(
        update={"operation_id": operation_id, "stage": polled.stage, "percent": polled.percent, "looked_at": moment.now}
    )
    elapsed_s = 0.0 if state.submitted_at is None else (moment.now - state.submitted_at).total_seconds()
    wait_s = policy.poll.wait_s(export.counters.polls, elapsed_s, seen_s, moment.draw)
    due_at = _due(export, moment, wait_s, policy)
    note = None if polled.stage == state.stage else f"stage {polled.stage}"
    if operation_id != state.operation_id:
        how = f"submitted{_again(claims)}" if polled.submitted else "goes on"
        note = f"stage {polled.stage}, {how} as {operation_id}"
        waited = waited.model_copy(update={"names": [], "stored": []})  # another operation, other files
    return Decision(_progressed(export, moment, state=waited, due_at=due_at), note)


def _look_again(export: Export, state: Running, polled: Ready, moment: Moment, policy: Policy) -> Decision:
    looks = state.empty_looks + 1
    looked = state.model_copy(update={"stage": polled.stage, "empty_looks": looks})
    export = _next(export, moment, state=looked)
    if looks > EMPTY_LOOKS_MAX:
        message = f"the platform's job is done and named no file in {looks} looks; is the result empty or expired?"
        return _fail(export, ErrorCode.RESULT_EMPTY, message, moment)
    due_at = _due(export, moment, policy.retry.wait_s(looks, moment.draw), policy)
    return Decision(_next(export, moment, due_at=due_at), f"done without files, look {looks}")


def after_upload(
    export: Export, state: Transferring, upload: ResumableUpload | None, moment: Moment, note: str | None
) -> Decision:
    """An upload was begun or is gone on with, or None is left to go on with. No progress in the sense of `attempt`."""
    return Decision(_next(export, moment, state=state.model_copy(update={"upload": upload})), note)


def after_file(export: Export, state: Transferring, stored: ManifestObject, moment: Moment) -> Decision:
    """One more file stands in S3."""
    files = [*state.stored, stored]
    landed_at = moment.now if len(files) == len(state.files) else None
    grown = state.model_copy(update={"stored": files, "landed_at": landed_at, "upload": None})
    return Decision(_progressed(export, moment, state=grown), f"stored {stored.key}")


def after_transfer(export: Export, state: Transferring, stored: Stored, moment: Moment) -> Decision:
    """Everything stands in S3."""
    succeeded = Succeeded(
        operation_id=state.operation_id,
        stage=state.stage,
        stored=list(stored.objects),
        manifest_uri=stored.manifest_uri,
        finished_at=moment.now,
    )
    return Decision(_progressed(export, moment, state=succeeded, error=None), "succeeded")


def after_failure(export: Export, error: StepError, moment: Moment, policy: Policy, *, probe: bool = False) -> Decision:
    """A step failed: try again later, or give up.

    Args:
        probe: What the step needs was known to be out of reach, and this was the look whether it still is. It uses no
            attempt of this export.
    """
    throttled = isinstance(error, PlatformThrottledError) or (probe and error.outage)
    # A credential that is refused from the start is wrong; one that a running job has had is being exchanged.
    retryable = error.retryable or (isinstance(error, AuthFailedError) and not isinstance(export.state, Queued))
    attempt = export.attempt + (0 if throttled else 1)
    report = ErrorReport(code=error.code, message=str(error), step=export.step_name, retryable=retryable)
    if not retryable or (attempt >= policy.max_attempts and not throttled):
        return _fail(export, error.code, str(error), moment, retryable=retryable)
    waits = export.throttled if throttled else export.attempt
    wait_s = max(error.retry_after_s or 0.0, policy.retry.wait_s(waits, moment.draw))
    due_at = _due(export, moment, wait_s, policy)
    retries = export.counters.retries + (0 if throttled else 1)
    retried = _next(
        export,
        moment,
        state=_state_to_retry(export, error),
        attempt=attempt,
        throttled=export.throttled + (1 if throttled else 0),
        counters=export.counters.model_copy(update={"retries": retries}),
        due_at=due_at,
        error=report,
    )
    again_s = (due_at - moment.now).total_seconds()
    return Decision(retried, f"{report.step} failed ({error.code}), again in {again_s:.1f} s: {error}")


def _state_to_retry(export: Export, error: StepError) -> Open:
    """A file that has gone is asked for anew: the platform may name it under another address."""
    state = _open_state(export)
    if isinstance(state, Transferring) and isinstance(error, ResultMissingError):
        return Running(
            operation_id=state.operation_id,
            stage=state.stage,
            upload=state.upload,
            names=[file.name for file in state.files],
            stored=state.stored,
        )
    return state


def _open_state(export: Export) -> Open:
    if isinstance(export.state, Ended):
        raise TypeError(f"an export that has {export.phase} takes no step")
    return export.state


def after_deadline(export: Export, moment: Moment, policy: Policy, *, cut: bool = False, claims: int = 1) -> Decision:
    """Time is up.

    Args:
        cut: It was up in the middle of the step.
        claims: See `submitting`.
    """
    limit_s = export.request.deadline_s or policy.deadline_s
    message = f"not done within {limit_s:g} s of acceptance; it was {export.phase}"
    if isinstance(export.state, Queued) and (cut or claims > 1):
        message += f", and {_UNHEARD}"
    elif isinstance(export.state, Running) and cut:
        message += ", and a look was cut: what it may have begun on the platform goes on"
    if export.error is not None:
        message += f", last failure: {export.error.message}"
    return _fail(export, ErrorCode.DEADLINE_EXCEEDED, message, moment)


def after_cancel(export: Export, moment: Moment, *, told: bool = False, claims: int = 1) -> Decision:
    """Somebody asked for its end.

    Args:
        told: The platform has cancelled its operation, too.
        claims: See `submitting`.
    """
    cancelled = Cancelled(**_reached(export), finished_at=moment.now)
    note = "cancelled"
    match export.state:
        case Running(operation_id=operation_id):
            note += (
                f", and so is {operation_id} on the platform" if told else f"; the platform goes on with {operation_id}"
            )
        case Queued() if claims > 1:
            note += f"; {_UNHEARD}"
    return Decision(_next(export, moment, state=cancelled), note)


def restart(export: Export, start: str, moment: Moment) -> Decision:
    """Set an ended export going again; its next end is another event.

    Args:
        start: submit, poll or transfer. A start that the export never reached becomes the one before it.
    """
    state = _restarted(export, start)
    again = _progressed(
        export,
        moment,
        state=state,
        error=None,
        due_at=moment.now,
        set_going_at=moment.now,
        generation=export.generation + 1,
    )
    return Decision(again, f"set going again from {again.step_name}")


def _restarted(export: Export, start: str) -> Open:
    state = export.state
    if isinstance(state, Open):
        return state
    operation_id, stage = state.operation_id, state.stage
    if operation_id is None or start == "submit":
        return Queued()
    if isinstance(state, Succeeded) or not state.files or start == "poll":
        return Running(operation_id=operation_id, stage=stage)
    return Transferring(
        operation_id=operation_id, stage=stage, files=state.files, stored=state.stored, landed_at=state.landed_at
    )


def _fail(export: Export, code: ErrorCode, message: str, moment: Moment, *, retryable: bool = False) -> Decision:
    failed = Failed(**_reached(export), finished_at=moment.now)
    report = ErrorReport(code=code, message=message, step=export.step_name, retryable=retryable)
    return Decision(_next(export, moment, state=failed, error=report), f"{Phase.FAILED}: {code}: {message}")


def _reached(export: Export) -> dict[str, Any]:
    """How far the export came, for the one who looks and the one who retries."""
    match export.state:
        case Queued():
            return {}
        case Running(operation_id=operation_id, stage=stage):
            return {"operation_id": operation_id, "stage": stage}
        case Transferring() as state:
            return {name: getattr(state, name) for name in ("operation_id", "stage", "files", "stored", "landed_at")}
        case Succeeded() | Failed() | Cancelled():
            raise TypeError(f"an export that has {export.phase} takes no step")
        case _:
            assert_never(export.state)


def _due(export: Export, moment: Moment, wait_s: float, policy: Policy) -> datetime:
    """The next look, but not later than the deadline: it must be noticed when it comes."""
    # Bounded before it is added: a wait of any length must not leave the range of datetime.
    left_s = (deadline(export, policy) - moment.now).total_seconds()
    return moment.now + timedelta(seconds=max(0.0, min(wait_s, left_s)))


def _progressed(export: Export, moment: Moment, **changes: Any) -> Export:
    return _next(export, moment, attempt=0, throttled=0, **changes)


def _next(export: Export, moment: Moment, **changes: Any) -> Export:
    return export.model_copy(update={"updated_at": moment.now, **changes})

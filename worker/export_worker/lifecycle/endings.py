"""What a failure, a deadline or a cancellation makes of an export: a retry, or its end. Pure."""

from datetime import timedelta
from typing import Any, assert_never

from export_worker.contract.status import ErrorReport, Phase
from export_worker.errors import (
    AuthFailedError,
    ErrorCode,
    PlatformNotFoundError,
    PlatformRefusedError,
    PlatformThrottledError,
    ResultMissingError,
    StepError,
    StoragePausedError,
    SubmitUnclearError,
)
from export_worker.lifecycle.decisions import Decision, Moment, Policy, due_after, progressed, updated
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
    earlier_names_length,
    with_earlier_files,
)
from export_worker.lifecycle.submits import (
    MAY_HAVE_STARTED,
    failure_message,
    may_have_received,
    may_submit,
    with_unclear_submit,
)

RESUBMIT_WAIT_S = 60.0
"""The longest wait before the only repetition of an unclear submit. A gateway or a platform that restarts is usually
back by then."""

EARLIER_NAMES_MAX_CHARS = 8 * 1024 * 1024
"""Characters of the names of all earlier files in the record. A platform that names 10,000 other files at each poll may
do so about ten times, and not until the deadline."""
WORKER_DEATHS_MAX = 7
"""Workers that may die in one step before its export fails. With the waits in between, that takes half a minute and
seven leases, so that workers which die for another reason have time to recover."""


def after_failure(
    export: Export,
    error: StepError,
    moment: Moment,
    policy: Policy,
    *,
    spared: bool = False,
    refusal_is_final: bool = False,
) -> Decision:
    """Decides after a failed step: retry later, or fail the export.

    A failure that leaves a submit unclear is retried only if the connection allows it.

    Args:
        spared: The failure is not the export's own: the platform is down, or such calls fail for several exports. It
            uses no attempt of this export.
        refusal_is_final: The platform has refused a submit or a cancellation that a poll step requested.
    """
    if error.unclear:
        export = with_unclear_submit(export)
    throttled = spared or isinstance(error, PlatformThrottledError | StoragePausedError)
    retryable = error.retryable or _may_be_temporary(export, error, refusal_is_final=refusal_is_final)
    attempt = export.attempt + (0 if throttled else 1)
    exhausted = not retryable or (attempt >= policy.max_attempts and not throttled)
    if isinstance(error, SubmitUnclearError) or (error.unclear and (exhausted or not may_submit(export, policy))):
        return fail(export, ErrorCode.SUBMIT_UNCLEAR, failure_message(export, str(error)), moment)
    if exhausted:
        return fail(export, error.code, _with_earlier(export, str(error)), moment, retryable=retryable)
    cause = may_have_received(str(error)) if error.unclear else str(error)
    report = ErrorReport(code=error.code, message=cause, step=export.step_name, retryable=retryable)
    due_at = due_after(export, moment, _retry_wait_s(export, error, moment, policy, throttled=throttled), policy)
    retries = export.counters.retries + (0 if throttled else 1)
    state = _state_to_retry(export, error)
    if isinstance(state, Running) and isinstance(export.state, Transferring):
        export = with_earlier_files(export)
        if earlier_names_length(export) > EARLIER_NAMES_MAX_CHARS:
            message = f"the platform names other files at each poll, and its files are missing: {error}"
            return fail(export, ErrorCode.TOO_MANY_FILES, message, moment)
    retried = updated(
        export,
        moment,
        state=state,
        attempt=attempt,
        throttled=export.throttled + (1 if throttled else 0),
        counters=export.counters.model_copy(update={"retries": retries}),
        due_at=due_at,
        error=report,
    )
    retry_s = (due_at - moment.now).total_seconds()
    return Decision(retried, f"{report.step} failed ({error.code}), retry in {retry_s:.1f} s: {cause}")


def after_operation_failure(export: Export, message: str, moment: Moment, policy: Policy) -> Decision:
    """Decides after the platform has reported that an operation failed: submit again after a wait, or fail the export.

    During the wait the export has no slot. An export with an unclear submit is not submitted again: an operation of
    that submit may still run.
    """
    retry, earlier = policy.operation_retry, export.operation_retries
    if earlier >= retry.times or export.unclear_submits:
        repeated = f"{message}; {earlier} earlier operation(s) of the export have failed as well"
        return fail(export, ErrorCode.PLATFORM_ERROR, repeated if earlier else message, moment)
    due_at = due_after(export, moment, retry.after_s, policy)
    queued = progressed(
        export,
        moment,
        state=Queued(),
        error=ErrorReport(code=ErrorCode.PLATFORM_ERROR, message=message, step=export.step_name, retryable=True),
        due_at=due_at,
        operation_retries=earlier + 1,
        counters=export.counters.model_copy(update={"retries": export.counters.retries + 1}),
    )
    wait_s = (due_at - moment.now).total_seconds()
    note = f"operation failed, submit {earlier + 1} of {retry.times} more in {wait_s:.1f} s: {message}"
    return Decision(queued, note)


def _may_be_temporary(export: Export, error: StepError, *, refusal_is_final: bool) -> bool:
    """Returns whether to retry a refusal that would be final in a submit."""
    match error:
        case AuthFailedError():
            # The credential has worked at the submit, so it is probably being replaced.
            return not isinstance(export.state, Queued)
        case PlatformNotFoundError():
            return False
        case PlatformRefusedError():
            # The platform has accepted the operation, which may still run, or its result may be ready.
            return isinstance(export.state, Running) and not refusal_is_final
        case _:
            return False


def _with_earlier(export: Export, message: str) -> str:
    """Returns the message of a failure, which also mentions earlier submits that are unclear."""
    return f"{message}; {MAY_HAVE_STARTED}" if export.unclear_submits else message


def _retry_wait_s(export: Export, error: StepError, moment: Moment, policy: Policy, *, throttled: bool) -> float:
    """Returns the seconds until a failed step is retried.

    The only repetition of an unclear submit comes late, so that it succeeds after a short outage of the platform.
    """
    if error.unclear and policy.resubmit != "always":
        wait_s = min(policy.retry.max_s, RESUBMIT_WAIT_S) * (1.0 + moment.draw) / 2
    else:
        wait_s = policy.retry.wait_s(export.throttled if throttled else export.attempt, moment.draw)
    return max(error.retry_after_s or 0.0, wait_s)


def _state_to_retry(export: Export, error: StepError) -> Open:
    """Returns the state from which to retry. A missing file is retried by a poll, for its new address."""
    state = _open_state(export)
    if isinstance(state, Transferring) and isinstance(error, ResultMissingError):
        return Running(
            operation_id=state.operation_id,
            stage=state.stage,
            upload=state.upload,
            names=[] if state.copy_of else [file.name for file in state.files],
            stored=state.stored,
        )
    return state


def _open_state(export: Export) -> Open:
    if isinstance(export.state, Ended):
        raise TypeError(f"an export in phase {export.phase} takes no step")
    return export.state


def after_deadline(export: Export, moment: Moment, policy: Policy, *, submitting: bool = False) -> Decision:
    """Fails an export whose deadline has passed.

    Args:
        submitting: The deadline has interrupted a submit.
    """
    limit_s = export.request.deadline_s or policy.deadline_s
    message = f"not finished within {limit_s:g} s of acceptance; its phase was {export.phase}"
    if export.unclear_submits or submitting:
        message += f"; {MAY_HAVE_STARTED}"
    if export.error is not None:
        message += f"; last failure: {export.error.message}"
    return fail(export, ErrorCode.DEADLINE_EXCEEDED, message, moment)


def after_worker_deaths(export: Export, deaths: int, moment: Moment) -> Decision:
    """Fails an export during whose step too many workers have died: the step may be what kills them."""
    message = (
        f"{deaths} workers stopped responding during this step, for example because they ran out of memory; "
        "read the logs and exit codes of the workers, fix the cause, then retry the export"
    )
    return fail(export, ErrorCode.WORKER_DIED, _with_earlier(export, message), moment, retryable=True)


def after_cancel(export: Export, moment: Moment, *, on_platform: bool = False) -> Decision:
    """Ends an export whose cancellation was requested.

    Args:
        on_platform: The platform has cancelled its operation, too.
    """
    cancelled = Cancelled(**_reached(export), finished_at=moment.now)
    note = "cancelled"
    if isinstance(export.state, Running):
        note += f"; {export.state.operation_id} {'is cancelled' if on_platform else 'continues'} on the platform"
    note = _with_earlier(export, note)
    return Decision(updated(export, moment, state=cancelled), note)


def after_unclear_seal(export: Export, ending: Decision, error: StepError, moment: Moment, policy: Policy) -> Decision:
    """Decides when the worker cannot find out whether `_SUCCESS` of an export that is about to end is in S3.

    The step is retried, also past the deadline: an export whose `_SUCCESS` exists has succeeded. While S3 does not
    answer, this uses no attempt. When the attempts are used up (S3 refuses, or this worker does not have the
    connection), the export ends as decided.

    Args:
        ending: The failure or the cancellation that the export would end with.
    """
    attempt = export.attempt + (0 if error.outage else 1)
    note = f"whether _SUCCESS exists is not known ({error})"
    if attempt >= policy.max_attempts and not error.outage:
        return Decision(ending.export, f"{ending.note}; {note}")
    wait_s = max(error.retry_after_s or 0.0, policy.retry.wait_s(export.attempt + export.throttled, moment.draw))
    report = ErrorReport(code=error.code, message=str(error), step=export.step_name, retryable=True)
    waiting = updated(
        export,
        moment,
        attempt=attempt,
        throttled=export.throttled + (1 if error.outage else 0),
        due_at=moment.now + timedelta(seconds=wait_s),
        error=report,
    )
    return Decision(waiting, f"{note}, so the export does not end yet; retry in {wait_s:.1f} s")


def fail(export: Export, code: ErrorCode, message: str, moment: Moment, *, retryable: bool = False) -> Decision:
    """Fails an export with this error."""
    failed = Failed(**_reached(export), finished_at=moment.now)
    report = ErrorReport(code=code, message=message, step=export.step_name, retryable=retryable)
    return Decision(updated(export, moment, state=failed, error=report), f"{Phase.FAILED}: {code}: {message}")


def _reached(export: Export) -> dict[str, Any]:
    """Returns how far the export came. The status shows it, and a retry by hand continues from it."""
    match export.state:
        case Queued():
            return {}
        case Running(operation_id=operation_id, stage=stage):
            return {"operation_id": operation_id, "stage": stage}
        case Transferring(copy_of=str()) as state:
            # The names of its files are those in S3. A retry polls the operation for the platform's names.
            return {name: getattr(state, name) for name in ("operation_id", "stage", "stored")}
        case Transferring() as state:
            return {name: getattr(state, name) for name in ("operation_id", "stage", "files", "stored", "landed_at")}
        case Succeeded() | Failed() | Cancelled():
            raise TypeError(f"an export in phase {export.phase} takes no step")
        case _:
            assert_never(export.state)

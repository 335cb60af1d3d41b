"""The state machine: (export, what was observed, now) → the next export. Pure: no I/O, no clock, no randomness.

The caller saves the decision and schedules the next step at its `due_at`. Polls and retries have separate policies: a
poll may return "not yet" any number of times until the deadline, but only a few attempts in a row may fail. A throttled
request counts as waiting, not as a failure.
"""

from collections.abc import Sequence

from export_worker.contract.status import ManifestObject
from export_worker.errors import ErrorCode
from export_worker.lifecycle.decisions import (
    NO_HISTORY,
    Decision,
    Moment,
    Policy,
    StepHistory,
    due_after,
    progressed,
    updated,
)
from export_worker.lifecycle.endings import after_operation_failure, fail
from export_worker.lifecycle.export import (
    Ended,
    Export,
    Open,
    Queued,
    Running,
    Succeeded,
    Transferring,
    with_earlier_files,
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
from export_worker.lifecycle.submits import submitted_note

EMPTY_POLLS_MAX = 4
"""A finished operation may name its files later (seen with replicas). After more polls than this without a file, the
result counts as empty."""


def after_submit(
    export: Export, submitted: Submitted, moment: Moment, policy: Policy, *, history: StepHistory = NO_HISTORY
) -> Decision:
    """Decides when to poll first: at once if the operation has ended already, else when similar ones have ended."""
    wait_s = 0.0 if submitted.done else policy.poll.wait_s(0, 0.0, history.durations_s, moment.draw)
    state = Running(operation_id=submitted.operation_id, stage=submitted.stage, submitted_at=moment.now)
    return Decision(
        progressed(export, moment, state=state, due_at=due_after(export, moment, wait_s, policy), unclear_submits=0),
        submitted_note(export, submitted.operation_id),
    )


def after_poll(
    export: Export,
    state: Running,
    polled: Polled,
    moment: Moment,
    policy: Policy,
    *,
    history: StepHistory = NO_HISTORY,
) -> Decision:
    """Decides after a poll: poll again later, transfer the files, submit again, or fail."""
    counters = export.counters.model_copy(update={"polls": export.counters.polls + 1})
    export = updated(export, moment, counters=counters)
    match polled:
        case Pending():
            return _wait(export, state, polled, moment, policy, history=history)
        case Ready(files=()):
            return _wait_for_files(export, state, polled, moment, policy)
        case Ready():
            ready = Transferring(
                operation_id=state.operation_id,
                stage=polled.stage,
                files=list(polled.files),
                stored=_still_named(state, polled),
                upload=state.upload,
            )
            # Does not reset `attempt`: a file that the platform names but never serves must not be retried forever.
            return Decision(
                updated(export, moment, state=ready, due_at=moment.now, throttled=0),
                f"ready with {len(polled.files)} file(s)",
            )
        case OperationFailed():
            failed = state.model_copy(update={"stage": polled.stage})
            return after_operation_failure(updated(export, moment, state=failed), polled.message, moment, policy)


def _still_named(state: Running, polled: Ready) -> list[ManifestObject]:
    """Returns the stored files that need no second transfer: none if the platform now names other files."""
    return state.stored if state.names == [file.name for file in polled.files] else []


def _wait(
    export: Export, state: Running, polled: Pending, moment: Moment, policy: Policy, *, history: StepHistory
) -> Decision:
    operation_id = polled.operation_id or state.operation_id
    waiting = state.model_copy(
        update={"operation_id": operation_id, "stage": polled.stage, "percent": polled.percent, "looked_at": moment.now}
    )
    elapsed_s = 0.0 if state.submitted_at is None else (moment.now - state.submitted_at).total_seconds()
    wait_s = policy.poll.wait_s(export.counters.polls, elapsed_s, history.durations_s, moment.draw)
    due_at = due_after(export, moment, wait_s, policy)
    note = None if polled.stage == state.stage else f"stage {polled.stage}"
    if operation_id != state.operation_id:
        how = submitted_note(export, operation_id) if polled.submitted else f"continues as {operation_id}"
        note = f"stage {polled.stage}, {how}"
        waiting = waiting.model_copy(update={"names": [], "stored": []})  # another operation has other files
    unclear = 0 if polled.submitted else export.unclear_submits
    return Decision(progressed(export, moment, state=waiting, due_at=due_at, unclear_submits=unclear), note)


def _wait_for_files(export: Export, state: Running, polled: Ready, moment: Moment, policy: Policy) -> Decision:
    polls = state.empty_looks + 1
    export = updated(export, moment, state=state.model_copy(update={"stage": polled.stage, "empty_looks": polls}))
    if polls > EMPTY_POLLS_MAX:
        message = f"the operation has finished, but {polls} polls named no file; is the result empty or expired?"
        return fail(export, ErrorCode.RESULT_EMPTY, message, moment)
    due_at = due_after(export, moment, policy.retry.wait_s(polls, moment.draw), policy)
    return Decision(updated(export, moment, due_at=due_at), f"finished without files, poll {polls}")


def after_upload(
    export: Export, state: Transferring, upload: ResumableUpload | None, moment: Moment, note: str | None
) -> Decision:
    """Saves the upload that the next attempt can resume, or None if there is none. Does not reset `attempt`."""
    return Decision(updated(export, moment, state=state.model_copy(update={"upload": upload})), note)


def after_files(export: Export, state: Transferring, stored: Sequence[ManifestObject], moment: Moment) -> Decision:
    """Adds files that are now stored in S3: the next ones, in the order of the export's files."""
    files = [*state.stored, *stored]
    landed_at = moment.now if len(files) == len(state.files) else None
    stored_bytes = state.stored_bytes + sum(item.source_bytes for item in stored)
    grown = state.model_copy(
        update={"stored": files, "stored_bytes": stored_bytes, "landed_at": landed_at, "upload": None}
    )
    others = f" and {len(stored) - 1} file(s) before it" if len(stored) > 1 else ""
    return Decision(progressed(export, moment, state=grown), f"stored {stored[-1].key}{others}")


def after_move(export: Export, state: Transferring, moment: Moment) -> Decision:
    """Transfers all files again: bucket, prefix, key template or manifest name were changed since the first was stored.

    A reader takes the folder with `_SUCCESS` for the whole export, so all files must be in it.
    """
    note = f"restarted all files: {len(state.stored)} file(s) are stored under other keys than those of now, e.g. "
    emptied = state.model_copy(update={"stored": [], "stored_bytes": 0, "landed_at": None, "upload": None})
    noted = with_earlier_files(export)
    return Decision(updated(noted, moment, state=emptied), note + state.stored[0].uri)


def after_transfer(
    export: Export, state: Transferring, stored: Stored, moment: Moment, *, removed_files: int = 0
) -> Decision:
    """Ends an export whose files, manifest and `_SUCCESS` are in S3.

    Args:
        removed_files: How many files of earlier attempts were removed.
    """
    succeeded = Succeeded(
        operation_id=state.operation_id,
        stage=state.stage,
        stored=list(stored.objects),
        manifest_uri=stored.manifest_uri,
        finished_at=moment.now,
    )
    note = f"succeeded; removed {removed_files} file(s) of earlier attempts" if removed_files else "succeeded"
    return Decision(progressed(export, moment, state=succeeded, error=None, earlier_files=[]), note)


def after_seal_found(export: Export, state: Transferring, stored: Stored, ending: Decision, moment: Moment) -> Decision:
    """Ends an export as succeeded that was about to fail or to be cancelled, because its `_SUCCESS` is in S3.

    Args:
        ending: The failure or the cancellation that the export would have ended with.
    """
    succeeded = after_transfer(export, state, stored, moment).export
    return Decision(succeeded, f"succeeded: _SUCCESS was in S3 before the export could end as {ending.export.phase}")


def restart(export: Export, start: str, moment: Moment) -> Decision:
    """Reopens an ended export after a retry by hand. The event of its next end has another id.

    Args:
        start: submit, poll or transfer. An export that does not have the operation or the files for this step restarts
            from poll, or else from submit. A succeeded export has no files to transfer, so it is polled again.
    """
    state = _state_to_restart(export, start)
    if isinstance(export.state, Ended) and not isinstance(state, Transferring):
        export = with_earlier_files(export)
    restarted = progressed(
        export,
        moment,
        state=state,
        error=None,
        due_at=moment.now,
        set_going_at=moment.now,
        generation=export.generation + 1,
        unclear_submits=0,
        operation_retries=0,
    )
    return Decision(restarted, f"restarted from {restarted.step_name}")


def leaves_success(ended: Export, restarted: Export) -> bool:
    """Whether a restart leaves a state in which `_SUCCESS` may be in S3.

    An export that failed after its last file was stored may have one, too: S3 did not say so in time. If it restarts
    from its transfer, this `_SUCCESS` is of the same files.
    """
    state = ended.state
    if isinstance(state, Open) or isinstance(restarted.state, Transferring):
        return False
    return isinstance(state, Succeeded) or state.landed_at is not None


def _state_to_restart(export: Export, start: str) -> Open:
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

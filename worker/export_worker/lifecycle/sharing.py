"""What an export does that shares the operation of another one, once that one has ended or passed it on. Pure."""

from typing import Literal

from export_worker.errors import ErrorCode
from export_worker.lifecycle.decisions import Decision, Moment, progressed, updated
from export_worker.lifecycle.export import Cancelled, Export, Failed, Queued, Running, Succeeded, Transferring
from export_worker.lifecycle.observations import RemoteFile

OWN_CAUSES = frozenset({ErrorCode.DEADLINE_EXCEEDED, ErrorCode.OBJECT_EXISTS})
"""Failures that concern one export only: the operation that it shares may still succeed for the others."""


def takers(export: Export) -> Literal["all", "next"] | None:
    """Returns which waiting exports take over from an ended export that leads those that share its operation.

    All of them take its files, or fail as it has failed. If the end concerns only this export, the next one continues
    its operation, and the others wait for that one.
    """
    if not export.request.share:
        return None
    return "next" if _ended_for_itself(export) else "all"


def after_source(export: Export, source: Export | None, moment: Moment) -> Decision:
    """Decides for a queued export that takes over.

    Args:
        source: The export from which it takes over; None if Redis no longer has it.
    """
    if source is None:
        return _submit(export, moment, "the export whose operation it shared is no longer stored")
    match source.state:
        case Succeeded() as state:
            files = [RemoteFile(item.source_uri, item.file_name) for item in state.stored]
            copying = Transferring(
                operation_id=state.operation_id, stage=state.stage, files=files, copy_of=source.export_id
            )
            note = f"takes the {len(files)} file(s) of export {source.export_id}, whose operation it shares"
            return Decision(progressed(export, moment, state=copying, due_at=moment.now), note, took_over=True)
        case Failed() if not _ended_for_itself(source) and source.error is not None:
            return _fail(export, source, moment)
        case Queued():
            return _submit(export, moment, f"export {source.export_id} has no operation yet", source)
        case state if state.operation_id is None:
            return _submit(export, moment, f"export {source.export_id} has ended without an operation", source)
        case state:
            running = Running(operation_id=state.operation_id, stage=state.stage)
            note = f"continues {state.operation_id}, the operation of export {source.export_id}"
            return Decision(progressed(export, moment, state=running, due_at=moment.now), note, took_over=True)


def _ended_for_itself(export: Export) -> bool:
    if isinstance(export.state, Failed):
        return export.error is not None and export.error.code in OWN_CAUSES
    return isinstance(export.state, Cancelled)


def _submit(export: Export, moment: Moment, why: str, source: Export | None = None) -> Decision:
    """Returns to the submit. What the platform may have received for the other export counts for this one, too."""
    unclear = 0 if source is None else source.unclear_submits + source.open_submits
    queued = updated(export, moment, due_at=moment.now, unclear_submits=export.unclear_submits + unclear)
    return Decision(queued, f"submits itself: {why}", took_over=True)


def _fail(export: Export, source: Export, moment: Moment) -> Decision:
    """Fails as the export has failed whose operation this one shares. A retry can continue with the operation."""
    report, state = source.error, source.state
    if report is None or not isinstance(state, Failed):
        raise TypeError(f"export {source.export_id} has not failed")
    failed = Failed(operation_id=state.operation_id, stage=state.stage, finished_at=moment.now)
    message = f"{report.message} (the operation is shared with export {source.export_id})"
    shared = report.model_copy(update={"message": message})
    note = f"failed: {report.code}: {message}"
    return Decision(updated(export, moment, state=failed, error=shared), note, took_over=True)

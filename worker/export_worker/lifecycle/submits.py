"""Submits that the platform may have received although no operation is known. Pure.

Such a submit is unclear: its response was lost or cannot be read, or its worker died before it saved the result. The
setting `resubmit` of the connection states whether it may be repeated.

A worker saves that it begins a submit before it sends the request. So the next worker of the step knows of the submit
even if the first one dies, and whatever the platform shows by then.
"""

from collections.abc import Mapping

from export_worker.lifecycle.decisions import Policy
from export_worker.lifecycle.export import Export
from export_worker.lifecycle.resubmit import Resubmit

UNCLEAR_MAX: Mapping[Resubmit, float] = {"never": 0, "once": 1, "always": float("inf")}
"""How many unclear submits an export may have when it submits."""

MAY_HAVE_RECEIVED = "the platform may have received"
MAY_HAVE_STARTED = "a submit whose response was lost may have started an operation on the platform"
"""Each text about unclear submits has one of these."""

WORKER_LOST = "its worker stopped before it saved the result"
RESPONSE_LOST = "its response was lost"
"""Causes for which there is no error message, or no longer."""


def count_open(export: Export) -> Export:
    """Returns the export with its open submits as unclear ones: the worker that began them has stopped."""
    unclear = export.unclear_submits + export.open_submits
    return export.model_copy(update={"unclear_submits": unclear, "open_submits": 0})


def count_submit(export: Export) -> Export:
    """Returns the export with one more submit, which the worker is about to make."""
    counters = export.counters.model_copy(update={"submits": export.counters.submits + 1})
    return export.model_copy(update={"counters": counters})


def with_open_submit(export: Export, lost: int = 0) -> Export:
    """Returns the export as it is saved before a submit that has been counted.

    Args:
        lost: How many of the unclear submits this step has found; see `with_lost_open`.
    """
    found = with_lost_open(export, lost)
    return found.model_copy(update={"open_submits": found.open_submits + 1})


def with_lost_open(export: Export, lost: int) -> Export:
    """Returns the export as it is saved in the middle of a step: what the step has found stays open until its decision.

    Args:
        lost: How many of the unclear submits this step has found.
    """
    unclear, is_open = export.unclear_submits - lost, export.open_submits + lost
    return export.model_copy(update={"unclear_submits": unclear, "open_submits": is_open})


def with_unclear_submit(export: Export) -> Export:
    """Returns the export with one more unclear submit. It was counted as a submit before it was made."""
    return export.model_copy(update={"unclear_submits": export.unclear_submits + 1})


def may_submit(export: Export, policy: Policy) -> bool:
    """Returns whether the connection allows a submit after the unclear ones."""
    return export.unclear_submits <= UNCLEAR_MAX[policy.resubmit]


def may_have_received(cause: str) -> str:
    """Returns the beginning of every text about an unclear submit."""
    return f"{MAY_HAVE_RECEIVED} this submit ({cause})"


def failure_message(export: Export, cause: str) -> str:
    """Returns why the export fails: what the platform may have received, and what users must look up there.

    Args:
        cause: Why the last submit is unclear.
    """
    earlier = export.unclear_submits - 1
    more = f" and {earlier} earlier one(s)" if earlier > 0 else ""
    return (
        f"{may_have_received(cause)}{more}; before you retry the export, look on the platform for operations that "
        f"were started for {_subject(export)}"
    )


def submitted_note(export: Export, operation_id: str) -> str:
    """Returns the timeline's note of a submit. The note mentions earlier submits that are unclear."""
    if not export.unclear_submits:
        return f"submitted as {operation_id}"
    return f"submitted again as {operation_id}: {_received(export.unclear_submits)}"


def with_lost_submits(note: str | None, lost: int) -> str | None:
    """Returns a step's note that mentions the submits in which earlier workers of the step have stopped."""
    if not lost or (note and (MAY_HAVE_RECEIVED in note or MAY_HAVE_STARTED in note)):
        return note
    return f"{note}; {_received(lost)}" if note else _received(lost)


def _received(count: int) -> str:
    return f"{MAY_HAVE_RECEIVED} {count} earlier submit(s)"


def _subject(export: Export) -> str:
    """Returns the kind and the ids of what is exported, as people can find them on the platform."""
    fields = export.request.export.model_dump(mode="json", exclude_none=True)
    ids = [f"{name}={value}" for name, value in fields.items() if name.endswith(("_id", "_key", "_name"))]
    return " ".join([export.request.kind, *ids])

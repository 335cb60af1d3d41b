"""Submits that the platform may have received although no operation is known. Pure.

Such a submit is unclear: its response was lost or cannot be read, or its worker died before it saved the result. The
setting `resubmit` of the connection states whether it may be repeated.
"""

from collections.abc import Mapping

from export_worker.lifecycle.decisions import Policy
from export_worker.lifecycle.export import Export
from export_worker.lifecycle.resubmit import Resubmit

UNCLEAR_MAX: Mapping[Resubmit, float] = {"never": 0, "once": 1, "always": float("inf")}
"""How many unclear submits an export may have when it submits."""

WORKER_LOST = "its worker stopped before it saved the result"
RESPONSE_LOST = "its response was lost"
"""Causes for which there is no error message, or no longer."""


def count_earlier(export: Export, claims: int) -> Export:
    """Returns the export with the submits of workers that began this step and did not report its end.

    Args:
        claims: How often this step was claimed, this claim included. Each earlier worker may have died after the
            platform received its submit, and before the operation's id was saved.
    """
    earlier = claims - 1
    return _counted(export, earlier).model_copy(update={"unclear_submits": export.unclear_submits + earlier})


def count_submit(export: Export) -> Export:
    """Returns the export with one more submit, which the worker is about to make."""
    return _counted(export, 1)


def _counted(export: Export, submits: int) -> Export:
    counters = export.counters.model_copy(update={"submits": export.counters.submits + submits})
    return export.model_copy(update={"counters": counters})


def with_unclear_submit(export: Export) -> Export:
    """Returns the export with one more unclear submit. It was counted as a submit before it was made."""
    return export.model_copy(update={"unclear_submits": export.unclear_submits + 1})


def may_submit(export: Export, policy: Policy) -> bool:
    """Returns whether the connection allows a submit after the unclear ones."""
    return export.unclear_submits <= UNCLEAR_MAX[policy.resubmit]


def may_have_received(cause: str) -> str:
    """Returns the beginning of every text about an unclear submit."""
    return f"the platform may have received this submit ({cause})"


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
    return (
        f"submitted again as {operation_id}: the platform may have received {export.unclear_submits} earlier submit(s)"
    )


def _subject(export: Export) -> str:
    """Returns the kind and the ids of what is exported, as people can find them on the platform."""
    fields = export.request.export.model_dump(mode="json", exclude_none=True)
    ids = [f"{name}={value}" for name, value in fields.items() if name.endswith(("_id", "_key", "_name"))]
    return " ".join([export.request.kind, *ids])

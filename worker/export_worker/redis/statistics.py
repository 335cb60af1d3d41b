"""What is counted about an export that has ended. Pure."""

from export_worker.contract.durations import bucket_of
from export_worker.contract.phase import Phase
from export_worker.lifecycle.export import Export, Succeeded


def counted_end(export: Export) -> dict[str, object]:
    """Returns what `statistics.lua` counts about an export that has just ended.

    The duration is that from the acceptance, or from the last retry by hand, to the end.
    """
    state = export.state
    counted: dict[str, object] = {
        "phase": export.phase,
        "bytes": sum(item.bytes for item in state.stored) if isinstance(state, Succeeded) else 0,
        "bucket": bucket_of((export.updated_at - export.set_going_at).total_seconds()),
    }
    has_failed = export.phase is Phase.FAILED and export.error is not None
    return counted | {"error": export.error.code} if has_failed and export.error is not None else counted

"""The completion events of exports that have not been in Redis."""

from export_worker.contract.event import Event
from export_worker.contract.past import Past, PastHeader
from export_worker.contract.past_documents import event_of_past
from export_worker.lifecycle.export import Export


def event_of(export: Export, namespace: str) -> Event:
    """Returns the event of an ended export, as it is built from a packed record. Raises ValueError for an open one."""
    if not export.phase.terminal:
        raise ValueError("only an ended export has an event")
    header = PastHeader(
        phase=export.phase,
        generation=export.generation,
        step=0,
        number=0,
        saved="",
        until_ms=0,
        connection=export.request.connection,
        kind=export.request.kind,
        requested_by="",
        error="" if export.error is None else export.error.code,
        identity="",
        text=b"",
    )
    return event_of_past(Past(header, export.model_dump_json(exclude_none=True).encode()), namespace)

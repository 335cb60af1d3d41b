"""The documents of an ended export, built from its packed record: its status and its completion event. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from export_worker.contract.batch import BatchEvent
from export_worker.contract.batch_keys import is_batch_event
from export_worker.contract.event import Event, event_source
from export_worker.contract.model import epoch_ms
from export_worker.contract.past import Past, UnreadablePastError, is_packed, unpack
from export_worker.contract.phase import Phase
from export_worker.contract.status import Status
from export_worker.contract.trace import TraceContext


def status_of_past(past: Past) -> Status:
    """Returns the status of an ended export with its request, who requested it, and its trace.

    Raises:
        ValueError: The record is damaged.
    """
    context = TraceContext.read(past.trace) if past.trace else None
    return _status(past, {"trace_id": None if context is None else context.trace_id})


def event_of_past(past: Past, namespace: str) -> Event:
    """Returns the completion event of an ended export: the same event each time.

    Raises:
        ValueError: The record is damaged.
    """
    status = _status(past, {})
    context = TraceContext.read(past.trace) if past.trace else None
    return Event.model_validate(
        {
            "id": f"{status.export_id}.{past.header.generation}",
            "type": f"export.{status.phase}",
            "source": event_source(namespace),
            "subject": status.export_id,
            "time": status.finished_at,
            "traceparent": None if context is None else context.traceparent,
            "data": status,
        }
    )


def stored_event(stored: bytes, event_id: str, namespace: str) -> Event | BatchEvent:
    """Returns an event as it is stored: as a packed record, or as JSON, of a batch or by an earlier version.

    Raises:
        ValueError: What is stored is damaged.
    """
    if not is_packed(stored):
        return (BatchEvent if is_batch_event(event_id) else Event).model_validate_json(stored)
    return event_of_past(unpack(event_id.partition(".")[0], stored), namespace)


def record_fields(past: Past) -> dict[str, bytes]:
    """Returns the fields that the hash of an ended export has: what a retry writes, without its status and phase.

    Raises:
        ValueError: The record is damaged.
    """
    export, header = _document(past.state), past.header
    going_ms = epoch_ms(datetime.fromisoformat(export["set_going_at"]))
    fields = {
        "state": past.state,
        "request": to_json(export["request"]),
        "trace": past.trace,
        "connection": header.connection.encode(),
        "kind": header.kind.encode(),
        "requested_by": header.requested_by.encode(),
        "version": b"0",
        "saved": header.saved.encode(),
        "step": b"%d" % header.step,
        "going": b"%d" % going_ms,
        "number": b"%d" % header.number if header.number else b"",
        "priority": str(export["request"].get("priority", "")).encode(),
    }
    return {name: value for name, value in fields.items() if value}


def request_of_past(past: Past) -> dict[str, Any]:
    """Returns the request of an ended export as JSON has it; empty if the record is damaged."""
    try:
        request = _document(past.state).get("request")
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def _status(past: Past, beside: Mapping[str, Any]) -> Status:
    export = _document(past.state)
    document = _document(past.status) if past.status else status_document(export)
    requested_by = past.header.requested_by or None
    return Status.model_validate(document | {"request": export.get("request"), "requested_by": requested_by, **beside})


def status_document(export: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the status that the state of an ended export gives, as JSON has it, without the request.

    Args:
        export: The export as the worker saved it, as JSON has it.

    Raises:
        ValueError: The state is damaged.
    """
    try:
        state, request = export["state"], export["request"]
        return {
            "export_id": export["export_id"],
            "phase": state["phase"],
            "platform_stage": state.get("stage"),
            "operation_id": state.get("operation_id"),
            "connection": request["connection"],
            "kind": request["export"]["kind"],
            "progress": _progress(state),
            "counters": export.get("counters", {}),
            "created_at": export["created_at"],
            "updated_at": export["updated_at"],
            "finished_at": state["finished_at"],
            "error": export.get("error"),
            "objects": state.get("stored", []),
            "manifest": state.get("manifest_uri"),
            "metadata": request.get("metadata", {}),
        }
    except (KeyError, TypeError, AttributeError):
        raise UnreadablePastError("the state of the packed record is damaged") from None


def _progress(state: Mapping[str, Any]) -> dict[str, Any]:
    if state["phase"] != Phase.SUCCEEDED:
        return {}
    stored = state["stored"]
    total, count = sum(item["source_bytes"] for item in stored), len(stored)
    return {"percent": 100.0, "bytes_done": total, "bytes_total": total, "files_done": count, "files_total": count}


def _document(text: bytes) -> dict[str, Any]:
    document = from_json(text)
    if not isinstance(document, dict):
        raise UnreadablePastError("the state of the packed record is no JSON object")
    return document

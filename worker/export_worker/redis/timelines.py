"""The timeline of an export, and the packed body that keeps it when the export has ended. Pure."""

import json
from collections.abc import Sequence
from datetime import datetime

from export_worker.contract.model import isoformat
from export_worker.contract.past import TIMELINE_MAX, pack_body
from export_worker.contract.phase import Phase
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.export import Export
from export_worker.redis.claims import ClaimedStep

_encode = json.JSONEncoder(ensure_ascii=False).encode


def timeline_entry(at: datetime, phase: Phase, step: int, note: str) -> str:
    """Returns one entry of a timeline, as JSON."""
    return _encode({"at": isoformat(at), "phase": phase, "step": step, "note": note})


def note_of(claimed: ClaimedStep, decision: Decision) -> str | None:
    """Returns the entry of the timeline that a decision adds, if it adds one."""
    export, note = decision.export, decision.note
    return timeline_entry(export.updated_at, export.phase, claimed.step, note) if note else None


def with_note(timeline: tuple[bytes, ...] | None, note: str | None) -> tuple[bytes, ...] | None:
    """Returns a timeline as a script has it after it has added a note. None stays None: it is not known."""
    return timeline if timeline is None or note is None else (*timeline, note.encode())[-TIMELINE_MAX:]


def packed_body(export: Export, trace: str, timeline: Sequence[bytes], note: str | None) -> bytes:
    """Returns the packed body of the record of an ended export.

    Args:
        trace: The trace context of the request as JSON, or empty.
        timeline: The entries so far.
        note: The entry of the decision that ends the export.
    """
    entries = with_note(tuple(timeline), note) or ()
    state = export.model_dump_json(exclude_none=True).encode()
    return pack_body(export.export_id, state, entries, trace=trace.encode(errors="surrogateescape"))

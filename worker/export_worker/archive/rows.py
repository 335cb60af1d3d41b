"""Turns an ended export into a row of the archive. Pure.

A row has what the status, the request and the timeline of the export say, which callers may read as well. It has no
state of a worker, in which addresses of downloads may be secret.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from export_worker.contract.phase import TERMINAL_PHASES, Phase
from export_worker.contract.status import Status, StoredObject
from export_worker.redis.ended_log import EndedEntry

Row = dict[str, Any]
"""The values of one row, by column. `tables.SCHEMA` has the columns."""

INTEGER_MAX = 2**63 - 1
"""The largest integer of Parquet. A larger number must not keep a whole hour from its archive."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One transition of an export."""

    at: datetime
    phase: str
    step: int
    note: str


@dataclass(frozen=True, slots=True)
class EndedExport:
    """What Redis keeps about one end of an export.

    Args:
        status: The status at the end.
        timeline: The transitions, the oldest first, of earlier and later generations as well.
    """

    status: Status
    timeline: Sequence[TimelineEntry] = ()


def row_of(entry: EndedEntry, ended: EndedExport | None) -> Row:
    """Returns the row of one ended export. Without its record, it has the id, the generation and the time alone."""
    row: Row = {
        "export_id": entry.export_id,
        "generation": entry.generation,
        "finished_at": _moment(entry.ended_ms),
    }
    if ended is None:
        return row
    status, timeline = ended.status, of_this_end(ended.timeline)
    return (
        row | _described(status) | _numbers(status) | _durations(status, timeline, entry) | _details(status, timeline)
    )


def of_this_end(timeline: Sequence[TimelineEntry]) -> list[TimelineEntry]:
    """Returns the transitions after the end before the last one, up to the last end."""
    ends = [position for position, entry in enumerate(timeline) if entry.phase in TERMINAL_PHASES]
    if not ends:
        return list(timeline)
    # A note that follows an end in the same phase belongs to that end.
    last = ends[-1]
    before = [position for position in ends if position < last and _is_left(timeline, position)]
    return list(timeline[before[-1] + 1 if before else 0 : last + 1])


def _is_left(timeline: Sequence[TimelineEntry], position: int) -> bool:
    return timeline[position + 1].phase not in TERMINAL_PHASES


def _described(status: Status) -> Row:
    error = status.error
    return {
        "phase": status.phase.value,
        "connection": status.connection,
        "kind": status.kind,
        "requested_by": status.requested_by,
        "created_at": status.created_at,
        "platform_stage": status.platform_stage,
        "operation_id": status.operation_id,
        "trace_id": status.trace_id,
        "error_code": None if error is None else str(error.code),
        "error_step": None if error is None else error.step,
        "error_message": None if error is None else error.message,
        "error_retryable": None if error is None else error.retryable,
    }


def _numbers(status: Status) -> Row:
    counted = [item.rows for item in status.objects if item.rows is not None]
    return {
        "files": len(status.objects),
        "bytes": _integer(sum(item.bytes for item in status.objects)),
        "source_bytes": _integer(status.progress.bytes_done),
        "rows": _integer(sum(counted)) if counted else None,
        "submits": _integer(status.counters.submits),
        "polls": _integer(status.counters.polls),
        "retries": _integer(status.counters.retries),
    }


def _durations(status: Status, timeline: Sequence[TimelineEntry], entry: EndedEntry) -> Row:
    """Returns how long this generation took, and how much of it in each phase (seconds)."""
    ended_at = _moment(entry.ended_ms)
    started_at = status.created_at if entry.generation == 1 or not timeline else timeline[0].at
    spent = dict.fromkeys((phase for phase in Phase if not phase.terminal), 0.0)
    for phase, seconds in _spans(timeline):
        spent[phase] = spent.get(phase, 0.0) + seconds
    return {
        "duration_s": max(0.0, (ended_at - started_at).total_seconds()),
        "queued_s": spent[Phase.QUEUED] if timeline else None,
        "running_s": spent[Phase.RUNNING] if timeline else None,
        "transferring_s": spent[Phase.TRANSFERRING] if timeline else None,
    }


def _spans(timeline: Sequence[TimelineEntry]) -> Iterator[tuple[Phase, float]]:
    for entry, following in pairwise(timeline):
        if entry.phase in _OPEN:
            yield Phase(entry.phase), max(0.0, (following.at - entry.at).total_seconds())


_OPEN = frozenset(phase.value for phase in Phase if not phase.terminal)


def _details(status: Status, timeline: Sequence[TimelineEntry]) -> Row:
    return {
        "manifest": status.manifest,
        "objects": [_object(item) for item in status.objects],
        "metadata": list(status.metadata.items()),
        "request": None if status.request is None else json.dumps(status.request, ensure_ascii=False),
        "timeline": [
            {"at": entry.at, "phase": entry.phase, "step": _integer(entry.step), "note": entry.note}
            for entry in timeline
        ],
    }


def _object(item: StoredObject) -> Mapping[str, Any]:
    return {
        "uri": item.uri,
        "file_name": item.file_name,
        "bytes": _integer(item.bytes),
        "rows": None if item.rows is None else _integer(item.rows),
        "etag": item.etag,
        "checksum": item.checksum,
    }


def _integer(value: int) -> int:
    return min(value, INTEGER_MAX)


def _moment(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)

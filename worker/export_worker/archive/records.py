"""Reads what Redis keeps about ended exports: packed records, and the events and timelines of earlier versions."""

import json
from collections.abc import Sequence
from datetime import datetime

from arq.connections import ArqRedis

from export_worker.archive.rows import EndedExport, TimelineEntry
from export_worker.contract.event import Event
from export_worker.contract.past import TIMELINE_MAX, is_packed, unpack
from export_worker.contract.past_documents import status_of_past
from export_worker.contract.phase import Phase
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Status
from export_worker.contract.trace import TraceContext
from export_worker.redis.ended_log import EndedEntry
from export_worker.redis.records import read_events

ACCEPTED = "accepted"
"""The note of the first transition. It is not stored: it follows from the time of creation."""


class EndedRecords:
    """The records of one namespace."""

    def __init__(self, redis: ArqRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def read(self, entries: Sequence[EndedEntry]) -> list[EndedExport | None]:
        """Returns what is kept about these ends, with two round trips; None where nothing that can be read is left."""
        if not entries:
            return []
        stored = await read_events(self._redis, self._keys, [entry.event_id for entry in entries])
        async with self._redis.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.lrange(self._keys.timeline(entry.export_id), 0, -1)
            timelines = await pipe.execute()
        return [
            ended_export(entry.export_id, end, timeline)
            for entry, end, timeline in zip(entries, stored, timelines, strict=True)
        ]


def ended_export(export_id: str, stored: bytes | None, timeline: Sequence[bytes]) -> EndedExport | None:
    """Returns one ended export; None if it is not kept, or cannot be read.

    Args:
        stored: Its packed record, or the event of an earlier version.
        timeline: The timeline of an earlier version. A packed record has its own.
    """
    if stored is None:
        return None
    try:
        if not is_packed(stored):
            event = Event.model_validate_json(stored)
            return EndedExport(_status_of_event(event), _transitions(event.data, timeline, event.time))
        past = unpack(export_id, stored)
        status = status_of_past(past)
        return EndedExport(status, _transitions(status, past.timeline, status.finished_at))
    except ValueError:  # one damaged record must not keep an hour from the archive
        return None


def _status_of_event(event: Event) -> Status:
    trace = TraceContext.of({"traceparent": event.traceparent})
    return event.data.model_copy(update={"trace_id": None if trace is None else trace.trace_id})


def _transitions(status: Status, timeline: Sequence[bytes], until: datetime | None) -> list[TimelineEntry]:
    """Returns the transitions up to the end of an export. After a retry, a timeline continues."""
    entries = [entry for text in timeline if (entry := _transition(text)) is not None]
    if len(timeline) < TIMELINE_MAX and (not entries or entries[0].note != ACCEPTED):
        entries = [TimelineEntry(status.created_at, Phase.QUEUED.value, 0, ACCEPTED), *entries]
    return [entry for entry in entries if until is None or entry.at <= until]


def _transition(text: bytes) -> TimelineEntry | None:
    try:
        read = json.loads(text)
        at = datetime.fromisoformat(read["at"])
        if at.tzinfo is None:
            return None
        return TimelineEntry(at, _clean(read["phase"]), int(read.get("step", 0)), _clean(read.get("note", "")))
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _clean(text: object) -> str:
    """Returns a text without half characters, which Parquet cannot have."""
    return str(text).encode(errors="replace").decode()

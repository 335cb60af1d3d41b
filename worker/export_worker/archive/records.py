"""Reads what Redis keeps about ended exports: their events, which have their status, and their timelines."""

import json
from collections.abc import Sequence
from datetime import datetime

from arq.connections import ArqRedis

from export_worker.archive.rows import EndedExport, TimelineEntry
from export_worker.contract.event import Event
from export_worker.contract.redis_keys import Keys
from export_worker.contract.trace import TraceContext
from export_worker.redis.ended_events import EndedEntry


class EndedRecords:
    """The records of one namespace."""

    def __init__(self, redis: ArqRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def read(self, entries: Sequence[EndedEntry]) -> list[EndedExport | None]:
        """Returns what is kept about these ends, with one round trip; None where nothing that can be read is left."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.get(self._keys.event(f"{entry.export_id}.{entry.generation}"))
                pipe.lrange(self._keys.timeline(entry.export_id), 0, -1)
            answers = iter(await pipe.execute() if entries else [])
        return [ended_export(event, timeline) for event, timeline in zip(answers, answers, strict=True)]


def ended_export(event: bytes | None, timeline: Sequence[bytes]) -> EndedExport | None:
    """Returns one ended export; None if its event is not kept, or cannot be read."""
    if event is None:
        return None
    try:
        read = Event.model_validate_json(event)
    except ValueError:  # one damaged record must not keep an hour from the archive
        return None
    entries = [entry for text in timeline if (entry := _transition(text)) is not None and entry.at <= read.time]
    trace = TraceContext.of({"traceparent": read.traceparent})
    status = read.data.model_copy(update={"trace_id": None if trace is None else trace.trace_id})
    return EndedExport(status, entries)


def _transition(text: bytes) -> TimelineEntry | None:
    try:
        read = json.loads(text)
        at = datetime.fromisoformat(read["at"])
        return TimelineEntry(at, _clean(read["phase"]), int(read.get("step", 0)), _clean(read.get("note", "")))
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _clean(text: object) -> str:
    """Returns a text without half characters, which Parquet cannot have."""
    return str(text).encode(errors="replace").decode()

"""Reads the statuses and timelines of exports from Redis."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from pydantic_core import to_json

from export_producers.lua import own_script
from export_producers.readable import count_of, json_object
from export_producers.records import RECORD_FIELDS, REQUEST, Offer, differing_fields, read_status
from export_worker.contract.past import TIMELINE_MAX, Past, UnreadablePastError, is_packed, unpack
from export_worker.contract.past_documents import request_of_past, status_of_past
from export_worker.contract.phase import Phase
from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Status
from export_worker.errors import IdempotencyConflictError
from export_worker.redis.records import read_fields
from export_worker.redis.scripts import Script

_log = logging.getLogger(__name__)

_scripts: WeakKeyDictionary[Any, Script] = WeakKeyDictionary()

ACCEPTED = "accepted"
"""The note of the first transition."""

TIMELINE_READ_MAX = 1000
"""Transitions that are read. Workers keep fewer."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a retry must know of an export.

    Args:
        step: The number of the step that would run next; None if the record is damaged.
        request: As JSON; None if the record is damaged.
        past: The packed record of an ended export; None if a hash has it.
    """

    status: Status
    step: int | None
    request: bytes | None
    past: Past | None = None


async def read_records(client: Any, keys: Keys, export_ids: Sequence[str]) -> list[Record | None]:
    """Returns the records of exports with one round trip; None for an export that does not exist.

    A record that cannot be read is logged and left out, so that a list and a bulk run have all others.
    """
    if not export_ids:
        return []
    # In one script: an export that ends in between would have neither a hash nor a packed record.
    names = [name(each) for each in export_ids for name in (keys.stored, keys.export, keys.past)]
    answers = iter(await _reading(client).values(names, {"fields": [*RECORD_FIELDS, "step"]}))
    return [
        _record(export_id, [packed, *record] if packed else [None, *record], stored)
        for export_id, stored, record, packed in zip(export_ids, answers, answers, answers, strict=True)
    ]


def _reading(client: Any) -> Script:
    """Returns the script that reads records, registered once with each client."""
    if client not in _scripts:
        _scripts[client] = Script(client, own_script("records"))
    return _scripts[client]


def _record(export_id: str, values: Sequence[bytes | None], stored: Sequence[bytes]) -> Record | None:
    packed, *fields, step = values
    status = readable_status(export_id, [packed] if packed else fields, stored)
    if status is None:
        return None
    if packed is None:
        return Record(status, count_of(step) if step is not None else None, fields[REQUEST])
    past = unpack(export_id, packed)
    return Record(status, past.header.step, to_json(request_of_past(past)), past)


async def read_statuses(client: Any, keys: Keys, export_ids: Sequence[str]) -> list[Status | None]:
    """Returns the statuses of exports as `read_records` reads them."""
    return [None if record is None else record.status for record in await read_records(client, keys, export_ids)]


def readable_status(export_id: str, record: Sequence[bytes | None], stored: Sequence[bytes] = ()) -> Status | None:
    """Returns the status of a record with `RECORD_FIELDS`; None if it does not exist, or cannot be read.

    Args:
        record: The values of these fields. The first one may be the packed record of an ended export.
    """
    first = record[0]
    try:
        if first is None:
            return None
        return status_of_past(unpack(export_id, first)) if is_packed(first) else read_status(record, stored)
    except ValueError as error:
        _log.warning("the record of export %s cannot be read (%s)", export_id, type(error).__name__)
        return None


async def read_timelines(client: Any, keys: Keys, export_ids: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Returns the transitions of exports with one round trip, the oldest first."""
    if not export_ids:
        return []
    async with client.pipeline(transaction=True) as pipe:
        for export_id in export_ids:
            pipe.lrange(keys.timeline(export_id), -TIMELINE_READ_MAX, -1)
            pipe.hget(keys.export(export_id), "status")
            pipe.get(keys.past(export_id))
        answers = iter(await pipe.execute())
    return [
        _timeline(export_id, entries, status, packed)
        for export_id, entries, status, packed in zip(export_ids, answers, answers, answers, strict=True)
    ]


def _timeline(
    export_id: str, entries: Sequence[bytes], status: bytes | None, packed: bytes | None
) -> list[dict[str, Any]]:
    """Returns the transitions of an export. The acceptance is not stored: it follows from the time of creation."""
    document = status
    if packed is not None:
        try:
            past = unpack(export_id, packed)
        except UnreadablePastError:
            return []
        entries, document = past.timeline, past.state
    transitions = [read for entry in entries if (read := _transition(entry)) is not None]
    created_at = (json_object(document or b"") or {}).get("created_at")
    has_first = len(entries) >= TIMELINE_MAX or (transitions and transitions[0]["note"] == ACCEPTED)
    if created_at is None or has_first:
        return transitions
    first = {"at": created_at, "phase": Phase.QUEUED, "step": 0, "note": ACCEPTED}
    return [*filter(None, [_transition(to_json(first))]), *transitions]


def _transition(entry: bytes) -> dict[str, Any] | None:
    """Returns an entry of a timeline; None if it cannot be read."""
    try:
        read: dict[str, Any] = json.loads(entry)
        datetime.fromisoformat(read["at"])
    except (ValueError, TypeError, KeyError):
        return None
    return {"phase": "", "step": 0, "note": ""} | read


async def read_timeline(client: Any, keys: Keys, export_id: str) -> list[dict[str, Any]]:
    """Returns the transitions of an export with one round trip, oldest first; none if the export does not exist."""
    (timeline,) = await read_timelines(client, keys, [export_id])
    return timeline


async def read_existing(client: Any, keys: Keys, offer: Offer) -> Status | None:
    """Returns the status of the export that has the idempotency key of an offer; None if there is none.

    Raises:
        IdempotencyConflictError: The key belongs to another request.
    """
    request = offer.request
    if request.idempotency_key is None:
        return None
    export_id, fingerprint = await client.hmget(offer.identity_keys(keys)[0], ["export_id", "fingerprint"])
    if export_id is None:
        return None
    (existing,) = await read_statuses(client, keys, [export_id.decode()])
    if existing is not None and fingerprint != request.fingerprint().encode():
        raise await read_conflict(client, keys, request, existing.export_id)
    return existing


async def read_conflict(client: Any, keys: Keys, request: ExportRequest, export_id: str) -> IdempotencyConflictError:
    """Returns the error for a key or message of another request, with the fields in which the requests differ."""
    (record,) = await read_fields(client, keys, [export_id], ["request"])
    fields = differing_fields(request, record.get("request"))
    return IdempotencyConflictError(export_id, fields, of_message=request.idempotency_key is None)

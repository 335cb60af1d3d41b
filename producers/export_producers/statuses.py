"""Reads the statuses and timelines of exports from Redis."""

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from export_producers.records import RECORD_FIELDS, Offer, differing_fields, read_status
from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Status
from export_worker.errors import IdempotencyConflictError

_log = logging.getLogger(__name__)

TIMELINE_READ_MAX = 1000
"""Transitions that are read. Workers keep fewer."""


async def read_statuses(client: Any, keys: Keys, export_ids: Sequence[str]) -> list[Status | None]:
    """Returns the statuses of exports with one round trip; None for an export that does not exist.

    A record that cannot be read is logged and left out, so that a list and a bulk run have all others.
    """
    async with client.pipeline(transaction=False) as pipe:
        for export_id in export_ids:
            # Read first: a transfer that ends in between removes its list, and its status has all files then.
            pipe.lrange(keys.stored(export_id), 0, -1)
            pipe.hmget(keys.export(export_id), RECORD_FIELDS)
        answers = iter(await pipe.execute())
    return [
        readable_status(export_id, record, stored)
        for export_id, stored, record in zip(export_ids, answers, answers, strict=True)
    ]


def readable_status(export_id: str, record: Sequence[bytes | None], stored: Sequence[bytes] = ()) -> Status | None:
    """Returns the status of a record with `RECORD_FIELDS`; None if it does not exist, or cannot be read."""
    try:
        return None if record[0] is None else read_status(record, stored)
    except ValueError as error:
        _log.warning("the record of export %s cannot be read (%s)", export_id, type(error).__name__)
        return None


async def read_timelines(client: Any, keys: Keys, export_ids: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Returns the transitions of exports with one round trip, the oldest first."""
    async with client.pipeline(transaction=False) as pipe:
        for export_id in export_ids:
            pipe.lrange(keys.timeline(export_id), -TIMELINE_READ_MAX, -1)
        answers = await pipe.execute() if export_ids else []
    return [[read for entry in entries if (read := _transition(entry)) is not None] for entries in answers]


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
    fields = differing_fields(request, await client.hget(keys.export(export_id), "request"))
    return IdempotencyConflictError(export_id, fields, of_message=request.idempotency_key is None)

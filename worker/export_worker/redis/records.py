"""Reads what is stored about exports, whether a hash or a packed record has it."""

from collections.abc import Sequence
from typing import Any

from export_worker.contract.past import Past, UnreadablePastError, read_header, unpack
from export_worker.contract.past_documents import record_fields
from export_worker.contract.redis_keys import Keys


async def read_fields(
    client: Any, keys: Keys, export_ids: Sequence[str], names: Sequence[str]
) -> list[dict[str, bytes]]:
    """Returns some fields of the records of exports, in one round trip, as the hash of an open export has them.

    A field that a record does not have is missing. So are all fields if there is no such export, or if its packed
    record cannot be read.
    """
    if not export_ids:
        return []
    # In one transaction: an export that ends in between would be neither a hash nor a packed record.
    async with client.pipeline(transaction=True) as pipe:
        for export_id in export_ids:
            pipe.hmget(keys.export(export_id), names)
            pipe.get(keys.past(export_id))
        answers = iter(await pipe.execute())
    return [
        {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if stored is None
        else fields_of_past(export_id, stored, names)
        for export_id, values, stored in zip(export_ids, answers, answers, strict=True)
    ]


def fields_of_past(export_id: str, stored: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """Returns some fields of a packed record; none if it cannot be read."""
    try:
        known = {"phase": read_header(stored).phase.encode(), **_fields(unpack(export_id, stored))}
    except UnreadablePastError:
        return {}
    return {name: known[name] for name in names if name in known}


def _fields(past: Past) -> dict[str, bytes]:
    try:
        return record_fields(past)
    except (ValueError, KeyError, TypeError):
        raise UnreadablePastError("the state of the packed record is damaged") from None


async def read_events(client: Any, keys: Keys, event_ids: Sequence[str]) -> list[bytes | None]:
    """Returns events as they are stored, in one round trip; None for an event that is not kept.

    The last end of an export is its packed record. A retry keeps it under the id of the event.
    """
    async with client.pipeline(transaction=True) as pipe:
        for event_id in event_ids:
            pipe.get(keys.past(event_id.partition(".")[0]))
            pipe.get(keys.event(event_id))
        answers = iter(await pipe.execute() if event_ids else [])
    return [
        stored_end(past, event, event_id) for event_id, past, event in zip(event_ids, answers, answers, strict=True)
    ]


def stored_end(past: bytes | None, event: bytes | None, event_id: str) -> bytes | None:
    """Returns what is stored of the end that an event reports: the packed record, or else what its own key has."""
    return past if past is not None and _is_of_end(past, event_id) else event


def _is_of_end(past: bytes, event_id: str) -> bool:
    """Returns whether a packed record is of the end that an event reports."""
    try:
        return str(read_header(past).generation) == event_id.partition(".")[2]
    except UnreadablePastError:
        return False

"""Reads from Redis how far the events of one export are delivered."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict

from export_producers.readable import count_of, json_object, moment_of
from export_producers.storage import Storage
from export_worker.contract.model import Model, Timestamp
from export_worker.contract.past_documents import stored_event
from export_worker.errors import ExportNotFoundError
from export_worker.redis.records import fields_of_past, stored_end

EVENTS_MAX = 100
"""Events of one export that are searched for. An export that is retried more often has its first ones listed."""


class Delivery(Model):
    """One event of an export, and one sink."""

    model_config = ConfigDict(extra="ignore", strict=False)

    event_id: str
    """The id of the event: the same in every delivery of it."""
    event_at: Timestamp
    """When the export ended with this event."""
    sink: str
    """The name of the sink."""
    type: str
    """The type of the sink, such as `webhook`."""
    state: Literal["pending", "delivered", "given_up"]
    """Whether the event waits for its next delivery, has left the outbox of the sink, or is not delivered any more."""
    failures: int = 0
    """How often the sink has refused the event."""
    due_at: Timestamp | None = None
    """When the event is delivered next. Null unless it is pending."""
    refused_since: Timestamp | None = None
    """When the sink first refused the event. Null if it is not pending, or was not refused."""
    given_up_at: Timestamp | None = None
    """When the delivery was given up. Null unless it was."""
    delivered_at: Timestamp | None = None
    """When the sink took the event, in a list of the last events that sinks have taken. Otherwise null."""
    answer: str | None = None
    """The last answer of the sink, if the sink has refused the event and the answer is known."""


async def read_deliveries(storage: Storage, export_id: str) -> list[Delivery]:
    """Returns every event of an export with every sink that gets it, the newest event first.

    Needs two round trips: one for the export's events and the sinks, one for the deliveries.

    Raises:
        ExportNotFoundError: The export does not exist.
        ServiceUnreachableError: Redis cannot be reached or refuses a command.
    """
    keys = storage.keys
    event_ids = [f"{export_id}.{number}" for number in range(1, EVENTS_MAX + 1)]
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        pipe.hmget(keys.export(export_id), ["request"])
        pipe.get(keys.past(export_id))
        pipe.hgetall(keys.sinks)
        for event_id in event_ids:
            pipe.get(keys.event(event_id))
        (request,), past, announced, *stored = await pipe.execute()
    if past is not None:
        request = fields_of_past(export_id, past, ["request"]).get("request")
    if request is None:
        raise ExportNotFoundError(export_id)
    types = {name.decode(): kind.decode() for name, kind in announced.items()}
    notify = (json_object(request) or {}).get("notify")
    sinks = sorted(types if notify is None else notify)
    known = {
        event_id: at
        for event_id, event in zip(event_ids, stored, strict=True)
        if (at := time_of_event(stored_end(past, event, event_id), event_id, keys.namespace)) is not None
    }
    pairs = [(event_id, sink) for event_id in reversed(known) for sink in sinks]
    states = await states_of(storage, pairs)
    return [
        Delivery(event_id=event_id, event_at=known[event_id], sink=sink, type=types.get(sink, "unknown"), **state)
        for (event_id, sink), state in zip(pairs, states, strict=True)
    ]


def time_of_event(stored: bytes | None, event_id: str, namespace: str) -> datetime | None:
    """Returns the time of an event of an export; None if it is not kept, or cannot be read. Pure."""
    try:
        return None if stored is None else stored_event(stored, event_id, namespace).time
    except ValueError:
        return None


async def states_of(storage: Storage, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Returns the fields that describe the state of each delivery, in one round trip."""
    if not pairs:
        return []
    keys = storage.keys
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        for event_id, sink in pairs:
            pipe.zscore(keys.outbox(sink), event_id)
            pipe.hget(keys.refusals(sink), event_id)
            pipe.hget(keys.answers(sink), event_id)
            pipe.hget(keys.undelivered(sink), event_id)
        found = iter(await pipe.execute())
    return [_state(*each) for each in zip(found, found, found, found, strict=True)]


def _state(due_ms: float | None, refusals: bytes | None, answer: bytes | None, note: bytes | None) -> dict[str, Any]:
    """Returns the fields of one delivery. An event that was given up and is replayed is pending again."""
    if due_ms is not None:
        failures, _, first_ms = (refusals or b"0").decode(errors="replace").partition(":")
        since, due_at = moment_of(first_ms) if first_ms else None, moment_of(due_ms)
        return {
            "state": "pending",
            "due_at": due_at,
            "failures": count_of(failures),
            "refused_since": since,
            "answer": answer.decode(errors="replace") if answer else None,
        }
    return {"state": "delivered"} if note is None else state_of_note(note)


def state_of_note(note: bytes) -> dict[str, Any]:
    """Returns the fields of a delivery that was given up, from the note about it."""
    given_up = json_object(note) or {}
    at, reason = given_up.get("at"), given_up.get("reason")
    return {
        "state": "given_up",
        "failures": count_of(given_up.get("failures")),
        "given_up_at": None if at is None else given_up_at(at),
        "answer": None if reason is None else str(reason),
    }


def given_up_at(stated: object) -> datetime | None:
    """Returns the time in a note about an event that was given up; None if it cannot be read."""
    try:
        moment = datetime.fromisoformat(str(stated))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None

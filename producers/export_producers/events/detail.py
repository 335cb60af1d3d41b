"""Reads one event: the CloudEvent, and how far each sink has it."""

from pydantic import ConfigDict, TypeAdapter

from export_producers.events.deliveries import Delivery, state_of_note, states_of
from export_producers.events.listing import export_of, sink_types
from export_producers.readable import UnreadableRecordError, json_object
from export_producers.storage import Storage
from export_worker.contract.batch import BatchEvent
from export_worker.contract.event import Event, SinkTestEvent
from export_worker.contract.model import Model
from export_worker.contract.past import is_packed
from export_worker.contract.past_documents import stored_event
from export_worker.redis.records import stored_end


class EventDetail(Model):
    """An event, and how far each sink has it."""

    model_config = ConfigDict(extra="ignore", strict=False)

    event: Event | SinkTestEvent | BatchEvent
    """The CloudEvent as sinks get it."""
    deliveries: list[Delivery]
    """The event with each sink that gets it, sorted by sink."""


_EVENT: TypeAdapter[Event | SinkTestEvent | BatchEvent] = TypeAdapter(Event | SinkTestEvent | BatchEvent)


async def read_event(storage: Storage, event_id: str) -> EventDetail | None:
    """Returns one event; None if it is not kept. Needs three round trips.

    Raises:
        UnreadableRecordError: The event is damaged.
    """
    keys, types = storage.keys, await sink_types(storage)
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        pipe.get(keys.event(event_id))
        pipe.get(keys.past(export_of(event_id)))
        pipe.hget(keys.export(export_of(event_id)), "request")
        pipe.get(keys.sink_test(event_id))
        kept, past, request, refused = await pipe.execute()
    stored = stored_end(past, kept, event_id)
    if stored is None:
        return None
    try:
        is_json = not is_packed(stored)
        event = _EVENT.validate_json(stored) if is_json else stored_event(stored, event_id, keys.namespace)
    except ValueError:
        raise UnreadableRecordError(f"event {event_id}") from None
    asked = event.data.request if isinstance(event, Event) else None
    notify = (asked or json_object(request or b"") or {}).get("notify")
    sinks = [event.subject] if isinstance(event, SinkTestEvent) else sorted(types if notify is None else notify)
    states = await states_of(storage, [(event_id, sink) for sink in sinks])
    if refused is not None:
        states = [state_of_note(refused)]
    deliveries = [
        Delivery(event_id=event_id, event_at=event.time, sink=sink, type=types.get(sink, "unknown"), **state)
        for sink, state in zip(sinks, states, strict=True)
    ]
    return EventDetail(event=event, deliveries=deliveries)

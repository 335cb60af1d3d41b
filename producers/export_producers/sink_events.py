"""Reads the events that sinks have not taken, and delivers events now."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from export_producers.deliveries import Delivery, states_of
from export_producers.storage import Storage
from export_worker.redis.replay import Replay, Replayed

State = Literal["pending", "given_up"]
STATES: tuple[State, ...] = ("pending", "given_up")
SINKS_MAX = 100
"""Sinks whose events one call reads."""


async def sink_types(storage: Storage) -> dict[str, str]:
    """Returns sink → type: the sinks that workers have announced. Needs one round trip."""
    async with storage.calls() as redis:
        found = await redis.hgetall(storage.keys.sinks)
    return {name.decode(): kind.decode() for name, kind in sorted(found.items())[:SINKS_MAX]}


async def read_events(
    storage: Storage, types: Mapping[str, str], state: State, limit: int
) -> tuple[list[Delivery], int]:
    """Returns events in one state, and how many there are. Needs three round trips, however many sinks there are.

    Args:
        types: Sink → type: the sinks whose events are read.
        limit: Maximum number of events of each sink. If more were given up, it is not defined which ones are returned.
    """
    keys = storage.keys
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        for sink in types:
            if state == "pending":
                pipe.zrange(keys.outbox(sink), 0, limit - 1)
                pipe.zcard(keys.outbox(sink))
            else:
                pipe.hrandfield(keys.undelivered(sink), limit)
                pipe.hlen(keys.undelivered(sink))
        answers = await pipe.execute()
    pairs = [
        (event_id.decode(), sink) for sink, found in zip(types, answers[::2], strict=True) for event_id in found or ()
    ]
    deliveries = await _deliveries(storage, types, pairs)
    wanted = [delivery for delivery in deliveries if delivery.state == state]
    return sorted(wanted, key=lambda each: each.due_at or each.event_at), sum(answers[1::2])


async def _deliveries(storage: Storage, types: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> list[Delivery]:
    states = await states_of(storage, pairs)
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        for event_id, _ in pairs:
            pipe.zscore(storage.keys.events, event_id)
        times = await pipe.execute() if pairs else []
    return [
        Delivery(
            event_id=event_id,
            event_at=datetime.fromtimestamp((at_ms or 0) / 1000, UTC),
            sink=sink,
            type=types[sink],
            **state,
        )
        for (event_id, sink), at_ms, state in zip(pairs, times, states, strict=True)
    ]


async def deliver_now(storage: Storage, sinks: Sequence[str], event_id: str) -> Replayed | None:
    """Delivers one event now, to those of the sinks that its request names. Needs three round trips.

    Returns:
        The event; None if it is not kept, or none of the sinks gets it.
    """
    now = await storage.now()
    async with storage.calls():
        return await Replay(storage.client, storage.keys, sinks).deliver(event_id, now)

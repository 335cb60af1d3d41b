"""Delivers completion events now: one event, or those that were given up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from export_producers.events.given_up import index_given_up
from export_producers.events.listing import Position, Which, visible
from export_producers.readable import UnreadableRecordError
from export_producers.storage import Storage
from export_worker.contract.event import TEST_PREFIX
from export_worker.contract.model import epoch_ms
from export_worker.redis.records import read_events
from export_worker.redis.replay import Replay, Replayed

DELIVER_MAX = 1000
"""Events of each sink that one call delivers."""
PIECES_MAX = 50
"""So many times as many events one call reads to find some that it can deliver."""


@dataclass(frozen=True, slots=True)
class GivenUpDelivered:
    """What became of the events that were given up.

    Args:
        delivering: How many are delivered now.
        expired: How many are not kept any more, or are pending already.
        has_more: Whether more were given up in the same time.
    """

    delivering: int
    expired: int
    has_more: bool


async def deliver_now(storage: Storage, sinks: Sequence[str], event_id: str) -> Replayed | None:
    """Delivers one event now, to those of the sinks that its request names. Needs three round trips.

    Returns:
        The event; None if it is not kept, is a test event, or none of the sinks gets it.

    Raises:
        UnreadableRecordError: The event or the record of its export is damaged.
    """
    if event_id.startswith(TEST_PREFIX):
        return None
    now = await storage.now()
    async with storage.calls():
        try:
            return await Replay(storage.client, storage.keys, sinks).deliver(event_id, now)
        except ValueError:
            raise UnreadableRecordError(f"event {event_id}, or the record of its export,") from None


async def deliver_given_up(storage: Storage, which: Which, since: datetime) -> GivenUpDelivered:
    """Delivers the events that were given up since a moment, each to the sink for which it was given up.

    Needs five round trips, and one more if the caller may not see every connection. Events that are not delivered, such
    as those of other connections, do not keep the call from the later ones: it reads on until it finds some.

    Args:
        which: The sinks, and the connections that the caller may see.
    """
    sinks, now = list(which.types), await storage.now()
    await index_given_up(storage, sinks)
    kept, expired, has_more = list[Position](), 0, True
    for piece in range(PIECES_MAX):
        found, has_more = await _given_up(storage, sinks, since, piece * DELIVER_MAX)
        chosen = await visible(storage, which.allowed, found)
        kept = await _deliverable(storage, chosen)
        expired += len(chosen) - len(kept)
        if kept or not has_more:
            break
    async with storage.calls():
        outboxes = {sink: [each.event_id for each in kept if each.sink == sink] for sink in sinks}
        await Replay(storage.client, storage.keys, sinks).put(outboxes, now)
    return GivenUpDelivered(len(kept), expired, has_more)


async def _given_up(storage: Storage, sinks: Sequence[str], since: datetime, start: int) -> tuple[list[Position], bool]:
    """Returns a piece of the events that were given up, and whether there are more."""
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        for sink in sinks:
            index = storage.keys.given_up(sink)
            pipe.zrangebyscore(index, epoch_ms(since), "+inf", start=start, num=DELIVER_MAX + 1, withscores=True)
        answers = await pipe.execute()
    found = [
        Position(int(score), sink, event_id.decode())
        for sink, entries in zip(sinks, answers, strict=True)
        for event_id, score in entries[:DELIVER_MAX]
    ]
    return found, any(len(entries) > DELIVER_MAX for entries in answers)


async def _deliverable(storage: Storage, chosen: Sequence[Position]) -> list[Position]:
    """Returns the events that are kept, and that do not wait for a delivery already."""
    if not chosen:
        return []
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        for each in chosen:
            pipe.zscore(storage.keys.outbox(each.sink), each.event_id)
        due = await pipe.execute()
        kept = await read_events(storage.client, storage.keys, [each.event_id for each in chosen])
    return [each for each, event, at in zip(chosen, kept, due, strict=True) if event is not None and at is None]

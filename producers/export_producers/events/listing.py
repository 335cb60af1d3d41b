"""Reads the completion events of sinks: those that wait, that were given up, and that were taken last."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Literal, Self

from export_producers.events.deliveries import Delivery, states_of, time_of_event
from export_producers.events.given_up import index_given_up
from export_producers.storage import Storage
from export_worker.contract.event import TEST_PREFIX
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.redis.records import read_events as read_stored_events
from export_worker.redis.records import read_fields

State = Literal["pending", "given_up", "delivered"]
STATES: tuple[State, ...] = ("pending", "given_up", "delivered")
SINKS_MAX = 100
"""Sinks whose events one call reads."""
READ_MAX = 1000
"""Events that are read for one page of a caller who may not see all of them."""
EQUAL_MAX = 10_000
"""Events of one time that are searched for a hidden one: more than one order delivers."""
HIDDEN = "~"
"""The beginning of the digest that a cursor has in the place of an event's id."""
_POSITION = re.compile(r"(\d{1,16}):([^:]{1,64}):([^:]{1,80})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """An event of a sink in the order of a listing: by time, then by sink, then as Redis sorts equal times."""

    at_ms: int
    sink: str
    event_id: str

    @classmethod
    def of(cls, cursor: str) -> Self:
        """Returns the position of a cursor.

        Raises:
            InvalidRequestError: The text is no cursor.
        """
        found = _POSITION.fullmatch(cursor)
        if found is None:
            raise InvalidRequestError([FieldProblem("cursor", "must be the next_cursor of another page")])
        return cls(int(found[1]), found[2], found[3])

    @property
    def cursor(self) -> str:
        """The cursor of the events after this one."""
        return f"{self.at_ms}:{self.sink}:{self.event_id}"

    @property
    def hidden(self) -> Self:
        """The same position without the id of the event, for callers who may not see the event."""
        return replace(self, event_id=HIDDEN + blake2b(self.event_id.encode(), digest_size=16).hexdigest())


@dataclass(frozen=True, slots=True)
class Which:
    """Which events are listed.

    Args:
        types: Sink → type: the sinks whose events are read.
        allowed: The connections whose exports the caller may see; None for all.
    """

    types: Mapping[str, str]
    state: State
    allowed: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of events.

    Args:
        cursor: None on the last page.
        total: How many there are; None if the caller may not see all of them.
        positions: The position of each event.
        missing: The queues whose events are missing, because their Redis cannot be reached.
    """

    deliveries: list[Delivery]
    cursor: str | None
    total: int | None
    positions: Sequence[Position] = ()
    missing: tuple[str, ...] = ()


async def sink_types(storage: Storage) -> dict[str, str]:
    """Returns sink → type: the sinks that workers have announced. Needs one round trip."""
    async with storage.calls() as redis:
        found = await redis.hgetall(storage.keys.sinks)
    return {name.decode(): kind.decode() for name, kind in sorted(found.items())[:SINKS_MAX]}


async def read_events(storage: Storage, which: Which, limit: int, after: Position | None = None) -> EventPage:
    """Returns one page of events with their sinks.

    Pending ones are sorted by their next delivery, the first one first. Those that were given up, or taken, are sorted
    by when that happened, the last one first. Of those that were taken, each sink has the last 100, on one page.

    Needs five round trips at most, however many sinks there are.

    Args:
        limit: Maximum size of the page.
        after: Where the previous page ended.
    """
    if which.state == "delivered":
        return await _read_delivered(storage, which, limit)
    if which.state == "given_up":
        await index_given_up(storage, list(which.types))
    size = limit if which.allowed is None else READ_MAX
    if after is not None and after.event_id.startswith(HIDDEN):
        after = await _found_again(storage, which, after)
    found, total = await _entries(storage, which, size + 1, after)
    seen = await visible(storage, which.allowed, found[:size])
    chosen = seen[:limit]
    last = chosen[-1] if len(seen) > limit else found[size - 1] if len(found) > size else None
    if last is not None and last not in seen:
        last = last.hidden
    described = zip(chosen, await _described(storage, which.types, chosen), strict=True)
    matching = [(position, each) for position, each in described if each.state == which.state]
    return EventPage(
        [each for _, each in matching],
        None if last is None else last.cursor,
        total if which.allowed is None else None,
        [position for position, _ in matching],
    )


def _index(storage: Storage, which: Which, sink: str) -> str:
    """Returns the key of the events of a sink by their times."""
    return storage.keys.outbox(sink) if which.state == "pending" else storage.keys.given_up(sink)


async def _found_again(storage: Storage, which: Which, hidden: Position) -> Position:
    """Returns the position of an event from its digest; unchanged if the event has left its place."""
    async with storage.calls() as redis:
        key, at = _index(storage, which, hidden.sink), hidden.at_ms
        event_ids = await redis.zrangebyscore(key, at, at, start=0, num=EQUAL_MAX)
    known = (replace(hidden, event_id=event_id.decode()) for event_id in event_ids)
    return next((each for each in known if each.hidden == hidden), hidden)


async def _entries(storage: Storage, which: Which, most: int, after: Position | None) -> tuple[list[Position], int]:
    """Returns the first entries after a position, and the number of all entries."""
    is_pending = which.state == "pending"
    index = {sink: _index(storage, which, sink) for sink in which.types}
    starts = dict.fromkeys(index, 0) if after is None else await _starts(storage, index, after, is_pending)
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        for sink, key in index.items():
            first = starts[sink]
            pipe.zrange(key, first, first + most - 1, desc=not is_pending, withscores=True)
            pipe.zcard(key)
        answers = await pipe.execute()
    found = [
        Position(int(score), sink, event_id.decode())
        for sink, entries in zip(index, answers[::2], strict=True)
        for event_id, score in entries
    ]
    sign = 1 if is_pending else -1
    return sorted(found, key=lambda each: (sign * each.at_ms, each.sink))[:most], sum(answers[1::2])


async def _starts(
    storage: Storage,
    index: Mapping[str, str],
    after: Position,
    is_pending: bool,  # noqa: FBT001
) -> dict[str, int]:
    """Returns how many entries of each sink come before a position or are at it.

    If the entry of the position has left its place, the entries of the same time are listed again, and none is missed.
    """
    at, exclusive = after.at_ms, f"({after.at_ms}"
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        for key in index.values():
            pipe.zcount(key, *(("-inf", exclusive) if is_pending else (exclusive, "+inf")))
            pipe.zcount(key, at, at)
            pipe.zcard(key)
            pipe.zscore(key, after.event_id)
            pipe.zrank(key, after.event_id)
        found = iter(await pipe.execute())
    starts = {}
    for sink, before, equal, count, score, rank in zip(index, found, found, found, found, found, strict=True):
        if sink == after.sink and score == at:
            starts[sink] = rank + 1 if is_pending else count - rank
        else:
            starts[sink] = before + (equal if sink < after.sink else 0)
    return starts


async def visible(storage: Storage, allowed: frozenset[str] | None, found: Sequence[Position]) -> Sequence[Position]:
    """Returns the events that a caller may see: those of exports of its connections, and test events.

    Args:
        allowed: These connections; None for all. Then no round trip is needed.
    """
    if allowed is None or not found:
        return found
    async with storage.calls():
        export_ids = [export_of(each.event_id) for each in found]
        records = await read_fields(storage.client, storage.keys, export_ids, ["connection"])
    return [
        each
        for each, record in zip(found, records, strict=True)
        if each.event_id.startswith(TEST_PREFIX) or record.get("connection", b"").decode() in allowed
    ]


async def _described(storage: Storage, types: Mapping[str, str], chosen: Sequence[Position]) -> list[Delivery]:
    if not chosen:
        return []
    states = await states_of(storage, [(each.event_id, each.sink) for each in chosen])
    async with storage.calls():
        events = await read_stored_events(storage.client, storage.keys, [each.event_id for each in chosen])
    namespace = storage.keys.namespace
    return [
        Delivery(
            event_id=each.event_id,
            event_at=time_of_event(event, each.event_id, namespace) or moment(time_of_test_ms(each.event_id)),
            sink=each.sink,
            type=types[each.sink],
            **state,
        )
        for each, event, state in zip(chosen, events, states, strict=True)
    ]


async def _read_delivered(storage: Storage, which: Which, limit: int) -> EventPage:
    """Returns the last events that sinks have taken, as workers have listed them."""
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        for sink in which.types:
            pipe.lrange(storage.keys.delivered(sink), 0, READ_MAX - 1)
        answers = await pipe.execute()
    ages: dict[Position, int] = {}
    for sink, entries in zip(which.types, answers, strict=True):
        for event_id, at_ms, age_ms in (entry.decode().split() for entry in entries):
            ages[Position(int(at_ms), sink, event_id)] = int(age_ms)
    seen = await visible(storage, which.allowed, sorted(ages, key=lambda each: (-each.at_ms, each.sink)))
    deliveries = [
        Delivery(
            event_id=each.event_id,
            event_at=moment(each.at_ms - ages[each]),
            sink=each.sink,
            type=which.types[each.sink],
            state="delivered",
            delivered_at=moment(each.at_ms),
        )
        for each in seen[:limit]
    ]
    return EventPage(deliveries, None, len(seen), seen[:limit])


def export_of(event_id: str) -> str:
    """Returns the export of an event. A test event has none, so no export has the returned id."""
    return event_id.partition(".")[0]


def time_of_test_ms(event_id: str) -> int:
    """Returns the time in the id of a test event; 0 for another event."""
    prefix, _, rest = event_id.partition("-")
    text = rest.partition("-")[0]
    return int(text) if f"{prefix}-" == TEST_PREFIX and text.isdecimal() else 0


def moment(at_ms: float) -> datetime:
    """Returns a time in Redis."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)

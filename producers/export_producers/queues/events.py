"""The completion events of several queues."""

from collections.abc import Mapping, Sequence
from typing import Any

from export_producers.client import ExportQueue
from export_producers.events.deliveries import states_of
from export_producers.events.listing import EventPage, Position, Which, read_events, sink_types
from export_producers.queues.merging import START, decoded
from export_producers.queues.pages import merged_events
from export_producers.queues.queues import ExportQueues


async def sinks_of(queues: ExportQueues) -> dict[str, str]:
    """Returns sink → type: the sinks that the workers of any queue have announced."""
    answers = await queues.every(lambda queue: sink_types(queue.storage))
    return {name: kind for found in reversed(answers.found) for name, kind in sorted(found.items())}


async def events_of(queues: ExportQueues, which: Which, limit: int, cursor: str | None) -> EventPage:
    """Returns one page of events of all queues. See `read_events`.

    Raises:
        InvalidRequestError: The cursor is none of an earlier page.
    """
    if len(queues.by_name) == 1:
        after = None if cursor is None else Position.of(cursor)
        return await read_events(queues.first.storage, which, limit, after)
    before = decoded(cursor, queues.by_name)
    positions = {name: None if each == START else Position.of(each) for name, each in before.items()}

    async def read(queue: ExportQueue) -> EventPage:
        # A queue that has no more is counted all the same.
        name = queues.name_of(queue)
        return await read_events(queue.storage, which, limit if name in before else 1, positions.get(name))

    return merged_events(await queues.every(read), which.state, limit, before)


async def states_in(queues: ExportQueues, pairs: Sequence[tuple[str, str]]) -> list[Mapping[str, Any] | None]:
    """Returns the state of each delivery: an event and a sink. None if only a queue that is away can know it.

    A queue that does not have an event takes it for delivered.
    """
    answers = await queues.every(lambda queue: states_of(queue.storage, pairs))
    return [_known(states, is_sure=not answers.missing) for states in zip(*answers.found, strict=True)]


def _known(states: Sequence[Mapping[str, Any]], *, is_sure: bool) -> Mapping[str, Any] | None:
    undelivered = next((state for state in states if state["state"] != "delivered"), None)
    return undelivered or (states[0] if is_sure else None)

"""The activity of a gateway: each queue has the acts on its connections."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from export_producers.activity import Act, ActivityPage, ActivityRange, checked_cursor
from export_producers.client import ExportQueue
from export_producers.queues.merging import START, decoded
from export_producers.queues.pages import merged_activity
from export_producers.queues.queues import ExportQueues
from export_worker.errors import InvalidRequestError, ServiceUnreachableError


async def add_act(queues: ExportQueues, act: Act) -> None:
    """Adds an act to the queue of its connection. Any other queue is better than none.

    Raises:
        ServiceUnreachableError: No queue can be reached.
    """
    if act.connection is not None:
        with suppress(InvalidRequestError, ServiceUnreachableError):
            return await queues.of_connection(act.connection, lambda queue: queue.activity.add(act))
    return await queues.of_any(lambda queue: queue.activity.add(act))


async def read_activity(
    queues: ExportQueues, wanted: Callable[[Act], bool], part: ActivityRange, limit: int
) -> ActivityPage:
    """Returns the newest acts of all queues that are wanted, with one round trip for each. See `ActivityLog.page`.

    Args:
        part: Its `before` is the cursor of the previous page.

    Raises:
        InvalidRequestError: The cursor is none.
    """
    if len(queues.by_name) == 1:
        if part.before is not None:
            checked_cursor(part.before)
        return await queues.first.activity.page(wanted, part, limit)
    before = decoded(part.before, queues.by_name)
    for position in before.values():
        if position != START:
            checked_cursor(position)

    async def read(queue: ExportQueue) -> ActivityPage:
        position = before.get(queues.name_of(queue))
        if position is None:
            return ActivityPage([], None)
        return await queue.activity.page(wanted, replace(part, before=position or None), limit)

    return merged_activity(await queues.every(read), limit, before)

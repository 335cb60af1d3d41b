"""The changes of several queues as one stream, whose position holds that of each queue."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from time import monotonic

from export_producers.queues.merging import decoded, encoded
from export_producers.reads.change_feed import Batch, ChangeFeed
from export_producers.reads.changes import Change
from export_worker.errors import InvalidRequestError, ServiceUnreachableError
from export_worker.redis.cancellation import cancel_and_wait

RETRY_S = 1.0
"""Time after which the changes of a queue whose Redis could not be reached are read again."""
BATCHES_MAX = 100
"""Batches of all queues that wait for one client."""

FIRST_S = 2.0
"""A new client does not wait longer for the first answer of each queue."""


class ChangesOfQueues:
    """Follows the changes of several queues. Has the interface of `ChangeFeed`.

    Args:
        feeds: The changes of each queue.
    """

    def __init__(self, feeds: Mapping[str, ChangeFeed]) -> None:
        self._feeds = feeds

    @property
    def position(self) -> str:
        """The position up to which changes were read."""
        return encoded({name: feed.position for name, feed in self._feeds.items()})

    @property
    def read_at_s(self) -> float:
        """When a Redis has answered last, on the monotonic clock."""
        return max(feed.read_at_s for feed in self._feeds.values())

    async def follow(self, last: str | None) -> AsyncGenerator[Batch, None]:
        """Yields what has changed since the position `last`, and then each batch of any queue.

        When a queue can be read again, the batch is None: the client reads its page again. See `ChangeFeed.follow`.
        """
        positions = None if last is None else self._positions(last)
        received: asyncio.Queue[tuple[str, Batch]] = asyncio.Queue(BATCHES_MAX)
        readers = [
            asyncio.create_task(_read(feed, None if positions is None else positions.get(name, ""), name, received))
            for name, feed in self._feeds.items()
        ]
        try:
            yield await self._first(received)
            while True:
                yield self._placed(*await received.get())
        finally:
            await cancel_and_wait(*readers)

    async def _first(self, received: "asyncio.Queue[tuple[str, Batch]]") -> Batch:
        """Returns the first batches of all queues as one. Those of a Redis that hangs follow later."""
        batches = list[Batch]()
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                while len(batches) < len(self._feeds):
                    batches.append(self._placed(*await received.get()))
        return None if None in batches else [change for batch in batches for change in batch or ()]

    def _placed(self, name: str, batch: Batch) -> Batch:
        """Returns the changes of a queue with positions among those of all queues."""
        return None if batch is None else [self._with_position(name, change) for change in batch]

    def _with_position(self, name: str, change: Change) -> Change:
        positions = {each: feed.position for each, feed in self._feeds.items()}
        return replace(change, position=encoded(positions | {name: change.position}))

    def _positions(self, last: str) -> Mapping[str, str]:
        try:
            return decoded(last, self._feeds)
        except InvalidRequestError:  # of another configuration: all changes are missing
            return {}


async def _read(feed: ChangeFeed, last: str | None, name: str, received: "asyncio.Queue[tuple[str, Batch]]") -> None:
    """Reads the changes of one queue for one client for ever. After an outage of its Redis, changes may be missing."""
    away_s: float | None = None
    while True:
        try:
            async with aclosing(feed.follow(last)) as batches:
                async for batch in batches:
                    if away_s is None:
                        await received.put((name, batch))
                    elif feed.read_at_s > away_s:
                        await received.put((name, None))
                        away_s = None
        except ServiceUnreachableError:
            away_s, last = monotonic(), None
        await asyncio.sleep(RETRY_S)

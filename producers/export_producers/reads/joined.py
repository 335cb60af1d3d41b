"""Joins the calls of one moment."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class JoinedCalls(Generic[Item, Answer]):
    """Makes one call for all callers that call while the event loop runs once.

    Args:
        call: Returns the answer to each item, in the same order.
    """

    def __init__(self, call: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]]) -> None:
        self._call = call
        self._items: list[Item] = []
        self._calling: asyncio.Task[Sequence[Answer]] | None = None

    async def answer(self, item: Item) -> Answer:
        """Returns the answer to one item. Raises what the call raises."""
        if self._calling is None:
            self._items = []
            self._calling = asyncio.ensure_future(self._run(self._items))
        place = len(self._items)
        self._items.append(item)
        # A caller that is cancelled does not cancel the call of the others.
        return (await asyncio.shield(self._calling))[place]

    async def _run(self, items: Sequence[Item]) -> Sequence[Answer]:
        await asyncio.sleep(0)
        self._calling = None
        return await self._call(items)

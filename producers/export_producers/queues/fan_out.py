"""Asks several queues at once, and notes whose Redis cannot be reached."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from export_producers.client import ExportQueue
from export_worker.errors import ExportNotFoundError, ServiceUnreachableError
from export_worker.redis.cancellation import cancel_and_wait

GRACE_S = 3.0
"""After the first answer, the other queues have this time: far longer than a Redis that works needs."""
PROBE_S = 1.0
"""Between two probes of a Redis that cannot be reached. Until one succeeds, answers do not wait for it."""
HOLDERS_MAX = 10_000
"""Exports whose queue is remembered, so that the next call asks only that one: a megabyte."""

Answer = TypeVar("Answer")


class QueueUnreachableError(ServiceUnreachableError):
    """The Redis of one of several queues cannot be reached, or refuses.

    Args:
        queue: The name of the queue.
        reason: What Redis or the client says. It has the address of Redis.
    """

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"queue {queue}: {reason}")
        self.queue = queue


Call = Callable[[ExportQueue], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Answers(Generic[Answer]):
    """What the queues have answered.

    Args:
        by_queue: The answer of each queue that could be reached, by its name. There is at least one.
        missing: The names of the other queues.
    """

    by_queue: Mapping[str, Answer]
    missing: tuple[str, ...] = ()

    @property
    def found(self) -> list[Answer]:
        """The answers, in the order of the queues' names in the configuration."""
        return list(self.by_queue.values())

    def require_all(self) -> None:
        """Raises ServiceUnreachableError if an answer is missing: it may be the one that has what is sought."""
        if self.missing:
            raise QueueUnreachableError(self.missing[0], "it cannot be reached, and the other queues do not have it")


class FanOut:
    """Asks queues. A single queue is asked directly, and its errors are raised unchanged.

    Args:
        queues: The queues by their names, in the order of the configuration.
    """

    def __init__(self, queues: Mapping[str, ExportQueue]) -> None:
        self._queues = queues
        self._only = next(iter(queues.values())) if len(queues) == 1 else None
        self._away: dict[str, QueueUnreachableError] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._holders: dict[str, str] = {}

    async def close(self) -> None:
        """Stops the probes."""
        await cancel_and_wait(*self._probes.values())

    async def every(self, call: Call[Answer]) -> Answers[Answer]:
        """Asks all queues at once.

        Raises:
            ServiceUnreachableError: None of them can be reached.
        """
        if self._only is not None:
            return Answers({next(iter(self._queues)): await call(self._only)})
        asked = {name: asyncio.create_task(self.ask(name, call)) for name in self._queues}
        try:
            await _answered(list(asked.values()))
        finally:
            late = {name for name, task in asked.items() if not task.done()}
            await cancel_and_wait(*asked.values())
        for name in late:
            self._note(name, f"it has not answered within {GRACE_S:g} s")
        found = {name: task.result() for name, task in asked.items() if name not in late and not _failed(task)}
        if not found:
            raise next(error for task in asked.values() if (error := task.exception()) is not None)
        return Answers(found, tuple(name for name in asked if name not in found))

    async def holder(self, export_id: str, call: Call[Answer]) -> Answer:
        """Calls all queues at once, and returns the answer of the one that has the export.

        Args:
            call: Raises ExportNotFoundError, and changes nothing, if the queue does not have the export.

        Raises:
            ExportNotFoundError: No queue has the export.
            ServiceUnreachableError: None of those that can be reached has it.
        """
        if self._only is not None:
            return await call(self._only)
        if (known := self._holders.get(export_id)) is not None:
            return await self.ask(known, call)
        asked = {asyncio.create_task(self.ask(name, call)): name for name in self._queues}
        try:
            found, away = await _first_holder(asked)
        finally:
            await cancel_and_wait(*asked)
        if found is None:
            raise away or ExportNotFoundError(export_id)
        self._remember(export_id, asked[found])
        return found.result()

    async def ask(self, name: str, call: Call[Answer]) -> Answer:
        """Asks one queue, unless its Redis could not be reached just now. Errors name the queue."""
        if self._only is not None:
            return await call(self._only)
        if (known := self._away.get(name)) is not None:
            raise known
        try:
            return await call(self._queues[name])
        except ServiceUnreachableError as error:
            raise self._note(name, str(error)) from None

    def _note(self, name: str, reason: str) -> QueueUnreachableError:
        error = self._away.setdefault(name, QueueUnreachableError(name, reason))
        if name not in self._probes or self._probes[name].done():
            self._probes[name] = asyncio.create_task(self._probe(name))
        return error

    async def _probe(self, name: str) -> None:
        """Waits until a queue can be read."""
        while name in self._away:
            with suppress(ServiceUnreachableError, TimeoutError):
                await self._queues[name].reads.connections()
                del self._away[name]
                return
            await asyncio.sleep(PROBE_S)

    def _remember(self, export_id: str, name: str) -> None:
        if len(self._holders) >= HOLDERS_MAX:
            del self._holders[next(iter(self._holders))]
        self._holders[export_id] = name


async def _answered(asked: Sequence["asyncio.Task[Answer]"]) -> None:
    """Waits for all answers, but not long after the first one."""
    waiting = set(asked)
    while waiting and all(not task.done() or _failed(task) for task in asked):
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if waiting:
        await asyncio.wait(waiting, timeout=GRACE_S)


def _failed(task: "asyncio.Task[Answer]") -> bool:
    """Returns whether the queue of a task cannot be reached. Other errors are errors of the call."""
    return isinstance(task.exception(), ServiceUnreachableError)


async def _first_holder(
    asked: Iterable["asyncio.Task[Answer]"],
) -> tuple["asyncio.Task[Answer] | None", ServiceUnreachableError | None]:
    """Returns the first call whose queue has the export, or why that is not known."""
    waiting, away = set(asked), None
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            match task.exception():
                case ServiceUnreachableError() as error:
                    away = error
                case ExportNotFoundError():
                    pass
                case _:
                    return task, None
    return None, away

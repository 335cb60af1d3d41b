"""Reads many exports at once, wherever each of them is."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from export_producers.client import ExportQueue
from export_producers.queues.queues import ExportQueues
from export_producers.reads.details import Details, read_details
from export_producers.statuses import read_statuses
from export_worker.contract.status import Status

Found = TypeVar("Found")


async def statuses_of(queues: ExportQueues, export_ids: Sequence[str]) -> list[Status | None]:
    """Returns the statuses of exports; None for one that does not exist, or whose queue cannot be reached."""

    async def read(queue: ExportQueue) -> list[Status | None]:
        async with queue.storage.calls():
            return await read_statuses(queue.storage.client, queue.storage.keys, export_ids)

    return await _first_found(queues, read)


async def details_of(queues: ExportQueues, export_ids: Sequence[str]) -> list[Details | None]:
    """Returns the details of exports; None for one that does not exist, or whose queue cannot be reached."""
    return await _first_found(queues, lambda queue: read_details(queue.storage, export_ids))


async def _first_found(
    queues: ExportQueues, read: Callable[[ExportQueue], Awaitable[list[Found | None]]]
) -> list[Found | None]:
    answers = (await queues.every(read)).found
    return [next((found for found in each if found is not None), None) for each in zip(*answers, strict=True)]

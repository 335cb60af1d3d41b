"""The batches of several queues. A batch is in the queue of its connections."""

from collections.abc import Sequence
from dataclasses import dataclass

from export_producers.batches import LISTED_MAX, BatchRequester
from export_producers.client import ExportQueue
from export_producers.queues.fan_out import Call
from export_producers.queues.queues import Answer, ExportQueues
from export_worker.contract.batch import Batch, BatchNotFoundError
from export_worker.contract.request import ExportRequest
from export_worker.errors import FieldProblem, InvalidRequestError


@dataclass(frozen=True, slots=True)
class BatchList:
    """The newest batches.

    Args:
        missing: The queues whose batches are missing, because their Redis cannot be reached.
    """

    batches: list[Batch]
    missing: tuple[str, ...] = ()


async def enqueue_batch(
    queues: ExportQueues, name: str, requests: Sequence[ExportRequest], by: BatchRequester
) -> Batch:
    """Enqueues a batch in the queue of its connections. See `Batches.enqueue`.

    Raises:
        InvalidRequestError: Its connections are of several queues.
    """

    async def enqueue(queue: ExportQueue) -> Batch:
        await queue.batches.enqueue(name, requests, by)
        return await queue.batches.status(name)

    spaces = {await queues.namespace_of(each) for each in sorted({request.connection for request in requests})}
    if len(spaces) > 1:
        message = "name connections of several queues; make one batch for each queue"
        raise InvalidRequestError([FieldProblem("requests", message)])
    return await queues.of_connection(requests[0].connection, enqueue)


async def of_batch(queues: ExportQueues, name: str, call: Call[Answer]) -> Answer:
    """Calls the queue that has a batch.

    Raises:
        BatchNotFoundError: No queue has it.
        ServiceUnreachableError: One that may have it cannot be reached.
    """

    async def has_it(queue: ExportQueue) -> bool:
        try:
            await queue.batches.status(name)
        except BatchNotFoundError:
            return False
        return True

    answers = await queues.every(has_it)
    holder = next((queue for queue, found in answers.by_queue.items() if found), None)
    if holder is None:
        answers.require_all()
        raise BatchNotFoundError(name)
    return await queues.ask(holder, call)


async def newest_batches(queues: ExportQueues) -> BatchList:
    """Returns the newest batches of all queues, the newest first."""
    answers = await queues.every(lambda queue: queue.batches.newest())
    every = sorted((batch for found in answers.found for batch in found), key=lambda each: each.created_at)
    return BatchList(every[::-1][:LISTED_MAX], answers.missing)

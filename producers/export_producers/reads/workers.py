"""Reads the workers that run, each with its steps, and combines them with the queue."""

from collections.abc import Sequence
from typing import Annotated

from arq.connections import ArqRedis
from pydantic import ConfigDict, Field, ValidationError

from export_producers.reads.overview import WORKERS_MAX, state_of
from export_producers.reads.overview_document import Overview, QueueOverview, WorkerState
from export_worker.contract.model import Model, Timestamp
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.status import Count
from export_worker.contract.worker_record import WorkerRecord
from export_worker.redis.client import commands


class RoleQueue(QueueOverview):
    """The steps of one role of workers, with those that wait."""

    waiting: Count
    """For `control`: exports that wait for a slot of their connection. For `transfer`: transfers that wait for a
    worker; they are also due."""


class Fleet(Model):
    """The workers that run, and the queue."""

    model_config = ConfigDict(extra="ignore", strict=False)

    now: Timestamp
    """The time of this state."""
    workers: Annotated[list[WorkerState], Field(max_length=WORKERS_MAX)]
    """The workers, the last started first."""
    queue: dict[Role, RoleQueue]
    """The queue by role of workers."""
    missing_queues: list[str] = []
    """The queues whose part is missing, because their Redis cannot be reached. Only of a gateway with several."""


async def read_workers(redis: ArqRedis, keys: Keys) -> list[WorkerState]:
    """Returns the workers that run, the last started first, in two round trips. Raises the errors of redis-py.

    The record of a worker that has stopped has expired.
    """
    owners = await commands(redis).zrevrange(keys.workers, 0, WORKERS_MAX - 1)
    async with redis.pipeline(transaction=False) as pipe:
        for owner in owners:
            pipe.get(keys.worker(owner.decode()))
        stored = await pipe.execute() if owners else []
    found = [worker for text in stored if text is not None and (worker := _worker(text)) is not None]
    return sorted(found, key=lambda worker: worker.started_at, reverse=True)


def _worker(text: bytes) -> WorkerState | None:
    """Returns a worker; None if another version has written a record that this one cannot read."""
    try:
        record = WorkerRecord.model_validate_json(text)
    except ValidationError:
        return None
    return state_of(record)


def fleet_of(overview: Overview, workers: Sequence[WorkerState]) -> Fleet:
    """Returns the workers with the queue. Pure."""
    connections = overview.connections.values()
    waiting: dict[Role, int] = {
        "control": sum(each.waiting for each in connections),
        "transfer": sum(each.transfers_waiting for each in connections),
    }
    queue = {role: RoleQueue(**each.model_dump(), waiting=waiting[role]) for role, each in overview.queue.items()}
    missing = overview.missing_queues
    return Fleet(now=overview.now, workers=list(workers), queue=queue, missing_queues=missing)
